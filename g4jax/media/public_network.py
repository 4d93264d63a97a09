"""Connections that cannot be turned against the network this machine stands in."""

import asyncio
import ipaddress
import socket
from collections.abc import Iterable

import httpcore

from g4jax.media.inputs import MediaError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_NAT64 = ipaddress.ip_network("64:ff9b::/96")


class PublicNetwork(httpcore.AsyncNetworkBackend):
    """Opens TCP connections to public addresses only.

    The name is resolved here and the connection goes to the very address that was judged: a name server that answers
    differently the second time (DNS rebinding) gains nothing. The certificate is still checked against the name.
    """

    def __init__(self) -> None:
        # httpcore declares this class a second time, for where anyio is not installed: the server always has it.
        self._tcp: httpcore.AsyncNetworkBackend = httpcore.AnyIOBackend()  # pyright: ignore

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Raises MediaError where `host` has no public address, httpcore's errors where none of them answers."""
        addresses = [address for address in await resolve(host, port) if is_public(address)]
        if not addresses:
            raise MediaError(f"is at {host}, which is not a public address: such addresses are not fetched")
        for address in addresses[:-1]:
            try:
                return await self._tcp.connect_tcp(str(address), port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
        return await self._tcp.connect_tcp(str(addresses[-1]), port, timeout, local_address, socket_options)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


async def resolve(host: str, port: int) -> list[Address]:
    """All addresses of a name, in the order of preference; MediaError where it has none."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError:
        raise MediaError(f"is at {host}, a name that is not known: check the URL") from None
    return list(dict.fromkeys(ipaddress.ip_address(entry[4][0]) for entry in found))


def is_public(address: Address) -> bool:
    """False for private, shared (RFC 6598), loopback, link-local, multicast, reserved and unspecified addresses, and
    for IPv6 addresses that stand for such an IPv4 address."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or _translated(address)
        if inner is not None:
            return is_public(inner)
        if address.is_site_local:
            return False
    return address.is_global and not address.is_multicast and not address.is_reserved


def _translated(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """What a NAT64 gateway makes of it (RFC 6052)."""
    return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF) if address in _NAT64 else None
