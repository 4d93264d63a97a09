"""The content of a URL in a request: it was written by a stranger, so every limit is kept while reading."""

import asyncio
import base64
import binascii
import contextlib
import functools
import os
import re
import ssl
import stat
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote_to_bytes, urlsplit
from urllib.request import url2pathname

import httpcore
import httpx
import msgspec

from g4jax.media.inputs import MediaError
from g4jax.media.public_network import PublicNetwork

MAX_REDIRECTS = 5
REDIRECTS = (301, 302, 303, 307, 308)
HEADERS = {"User-Agent": "g4jax", "Accept": "*/*", "Accept-Encoding": "identity"}

_DATA = re.compile(r"data:(?P<type>[^,]*),", re.IGNORECASE)
_BASE64 = re.compile(r";\s*base64\s*$", re.IGNORECASE)
_SPACE = re.compile(rb"\s+")


@dataclass(frozen=True)
class FetchPolicy:
    """What may be fetched.

    allow_private: http(s) addresses that are not public, such as those of this machine, as well.
    local_root: the folder whose files may be named by file: URLs and by paths; without it there are none.
    max_bytes: of one medium. timeout_s: for one medium, from the name's resolution to the last byte.
    """

    allow_private: bool = False
    local_root: Path | None = None
    max_bytes: int = 2**26
    timeout_s: float = 30.0


PUBLIC = FetchPolicy()
"""Public addresses and data: URLs."""


async def fetch(url: str, policy: FetchPolicy = PUBLIC) -> bytes:
    """What stands at an http, https, data or file URL, or at a path below `policy.local_root`.

    Nothing is sent but the request itself: no cookies, no credentials. What the content is said to be is not believed.

    Raises:
        MediaError: the URL is of another kind or not allowed, does not answer in time, or gives too much.
    """
    try:
        async with asyncio.timeout(policy.timeout_s):
            if is_data(url):
                return await asyncio.to_thread(data_content, url, policy)
            scheme = urlsplit(url).scheme.lower()
            if scheme in ("http", "https"):
                return await _http(url, policy)
            if scheme in ("", "file"):
                return await asyncio.to_thread(_local, url, policy)
    except TimeoutError:
        raise MediaError(f"did not arrive within {policy.timeout_s:g} seconds") from None
    except ValueError as error:
        raise error if isinstance(error, MediaError) else MediaError(f"is not a URL: {error}") from None
    raise MediaError(f"is a {scheme}: URL: must be http, https or data")


def is_data(url: str) -> bool:
    """Whether the URL is its content itself."""
    return url[:5].lower() == "data:"


async def _http(url: str, policy: FetchPolicy) -> bytes:
    network = None if policy.allow_private else PublicNetwork()
    try:
        async with httpcore.AsyncConnectionPool(ssl_context=_certificates(), network_backend=network) as pool:
            at = _checked(url)
            for _ in range(MAX_REDIRECTS + 1):
                async with pool.stream("GET", _target(at), headers={"Host": at.netloc.decode(), **HEADERS}) as response:
                    headers = {name.lower(): value for name, value in response.headers}
                    if response.status not in REDIRECTS:
                        return await _body(response, headers, policy)
                    at = _checked(at.join(headers.get(b"location", b"").decode("latin-1")))
    except (
        httpcore.TimeoutException,
        httpcore.NetworkError,
        httpcore.ProtocolError,
        httpcore.UnsupportedProtocol,
    ) as error:
        raise MediaError(f"cannot be fetched: {error or type(error).__name__}") from None
    raise MediaError(f"redirects more than {MAX_REDIRECTS} times")


def _checked(url: str | httpx.URL) -> httpx.URL:
    """Also for where a redirect leads: from http(s) only to http(s), and never with a password."""
    try:
        url = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise MediaError(f"is not a URL: {error}") from None
    if url.scheme not in ("http", "https"):
        raise MediaError(f"leads to a {url.scheme}: URL: must be http or https")
    if not url.host or url.userinfo:
        raise MediaError("must name a host, and no user or password")
    return url


def _target(url: httpx.URL) -> httpcore.URL:
    return httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)


async def _body(response: httpcore.Response, headers: dict[bytes, bytes], policy: FetchPolicy) -> bytes:
    if response.status != 200:
        raise MediaError(f"cannot be fetched: its server answered with status {response.status}")
    if headers.get(b"content-encoding", b"identity").lower() != b"identity":
        raise MediaError("was sent compressed, though that was not asked for")
    claimed = headers.get(b"content-length", b"")
    if claimed.isdigit() and int(claimed) > policy.max_bytes:
        raise _too_large(policy)
    content = bytearray()
    async for piece in response.aiter_stream():
        content += piece
        if len(content) > policy.max_bytes:
            raise _too_large(policy)
    return bytes(content)


@functools.cache
def _certificates() -> ssl.SSLContext:
    return httpcore.default_ssl_context()


def data_content(url: str, policy: FetchPolicy) -> bytes:
    """What a data: URL holds; MediaError for one that is none or holds too much."""
    head = _DATA.match(url)
    if head is None:
        raise MediaError("is a data: URL without a comma: must be data:TYPE;base64,CONTENT")
    # Percent signs and base64 make it longer, never shorter; three quarters is what base64 comes to.
    encoded = url[head.end() :]
    coded = _BASE64.search(head["type"]) is not None
    if coded and "%" not in encoded and len(encoded) * 3 // 4 > policy.max_bytes + 3:
        raise _too_large(policy)
    try:
        if "%" in encoded:
            content = unquote_to_bytes(encoded)
            content = decode_base64(content.decode("latin-1")) if coded else content
        else:
            content = decode_base64(encoded) if coded else encoded.encode()
    except UnicodeEncodeError:
        raise MediaError("is not a URL: it has half a character") from None
    if len(content) > policy.max_bytes:
        raise _too_large(policy)
    return content


def decode_base64(text: str) -> bytes:
    """Of either alphabet, with or without its padding and with line breaks; MediaError for anything else."""
    with contextlib.suppress(msgspec.ValidationError):  # It takes only what nearly all send, and is twice as fast.
        return msgspec.convert(text, bytes)
    plain = _SPACE.sub(b"", text.encode()).translate(bytes.maketrans(b"-_", b"+/")).rstrip(b"=")
    try:
        return base64.b64decode(plain + b"=" * (-len(plain) % 4), validate=True)
    except binascii.Error:
        raise MediaError("is not base64: send the file's bytes in base64") from None


def _local(url: str, policy: FetchPolicy) -> bytes:
    if policy.local_root is None:
        raise MediaError("is not a URL of http, https or data, and files of the server's machine are not read")
    parts = urlsplit(url)
    if parts.scheme and parts.netloc not in ("", "localhost"):
        raise MediaError(f"names a file on {parts.netloc}: must be file:///PATH")
    root = policy.local_root.resolve()
    path = url2pathname(parts.path) if parts.scheme else url
    # Resolving follows every link, so one that leads out of the folder is seen here.
    try:
        resolved = (root / path).resolve()
        if not resolved.is_relative_to(root):
            raise MediaError("names a file outside of the folder that this server reads")
        return _regular_file(resolved, policy)
    except (OSError, RuntimeError):
        raise MediaError("names a file that cannot be read: check the path") from None


def _regular_file(path: Path, policy: FetchPolicy) -> bytes:
    """No pipe and no device: those may never end. NONBLOCK lets a pipe be opened at all, NOFOLLOW a path stay as it
    was resolved."""
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise MediaError("names something that is not a file")
        if status.st_size > policy.max_bytes:
            raise _too_large(policy)
        content = file.read(policy.max_bytes + 1)
    if len(content) > policy.max_bytes:
        raise _too_large(policy)
    return content


def _too_large(policy: FetchPolicy) -> MediaError:
    return MediaError(f"is larger than {policy.max_bytes} bytes, the most that is fetched")
