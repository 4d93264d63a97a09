import asyncio
import base64
import contextlib
import ipaddress
import os
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from g4jax.media import public_network
from g4jax.media.fetch import MAX_REDIRECTS, FetchPolicy, fetch
from g4jax.media.inputs import MediaError
from g4jax.media.public_network import PublicNetwork, is_public
from g4jax.media.sources import read_source

OPEN = FetchPolicy(allow_private=True, timeout_s=5.0)
Answer = bytes | Callable[[asyncio.StreamWriter], AsyncIterator[None]]


class Site:
    """A web server on every address of this machine that notes what it is asked for."""

    def __init__(self, answers: dict[str, bytes | Callable]):
        self.answers = answers
        self.asked: list[str] = []
        self.heads: list[str] = []

    async def __aenter__(self) -> "Site":
        self._server = await asyncio.start_server(self._serve, "0.0.0.0", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_) -> None:
        self._server.close()

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        path = head.split()[1]
        self.asked.append(path)
        self.heads.append(head)
        answer = self.answers[path]
        with contextlib.suppress(ConnectionError):
            if callable(answer):
                await answer(self, writer)
            else:
                writer.write(answer)
            await writer.drain()
        writer.close()


def ok(body: bytes, *headers: str) -> bytes:
    head = "".join(f"{header}\r\n" for header in ("Content-Type: text/html", *headers))
    return f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n{head}\r\n".encode() + body


def to(location: str) -> bytes:
    return f"HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode()


def got(answers: dict, path: str = "/", policy: FetchPolicy = OPEN) -> bytes:
    async def run() -> bytes:
        async with Site(answers) as site:
            return await fetch(site.url(path), policy)

    return asyncio.run(run())


def refused(url: str, policy: FetchPolicy = FetchPolicy()) -> str:  # noqa: B008
    with pytest.raises(MediaError) as error:
        asyncio.run(fetch(url, policy))
    return str(error.value)


def test_content_comes_whole_and_nothing_private_is_sent():
    async def run() -> None:
        async with Site({"/a%20b?x=1": ok(bytes(range(256)) * 4096)}) as site:
            assert await fetch(site.url("/a b?x=1"), OPEN) == bytes(range(256)) * 4096
            head = site.heads[0].lower()
            assert f"host: 127.0.0.1:{site.port}\r\n" in head
            assert "cookie" not in head and "authorization" not in head

    asyncio.run(run())


def test_a_chain_of_redirects_is_followed_to_its_limit():
    chain: dict[str, bytes | Callable] = {f"/{i}": to(f"{i + 1}") for i in range(MAX_REDIRECTS + 1)}
    assert got(chain | {f"/{MAX_REDIRECTS}": ok(b"end")}, "/0") == b"end"
    with pytest.raises(MediaError, match=f"redirects more than {MAX_REDIRECTS} times"):
        got(chain | {f"/{MAX_REDIRECTS + 1}": ok(b"end")}, "/0")


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://example.com/", "data:,x", "gopher://a/", "//u:p@a/"])
def test_a_redirect_leads_to_http_only(location):
    with pytest.raises(MediaError, match="must be http or https|no user or password"):
        got({"/": to(location)})


@pytest.fixture
def only_127_0_0_1_is_public(monkeypatch):
    monkeypatch.setattr(public_network, "is_public", lambda address: str(address) == "127.0.0.1")


@pytest.mark.parametrize("host", ["127.0.0.2", "0x7f000002", "2130706434"])
def test_a_redirect_to_a_private_address_is_not_followed(only_127_0_0_1_is_public, host):
    async def run() -> None:
        async with Site({"/": b"", "/secret": ok(b"secret")}) as site:
            site.answers["/"] = to(site.url("/secret", host))
            with pytest.raises(MediaError, match=f"{host}, which is not a public address"):
                await fetch(site.url("/"), FetchPolicy())
            assert site.asked == ["/"]
            assert await fetch(site.url("/"), OPEN) == b"secret"

    asyncio.run(run())


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "10.1.2.3", "169.254.169.254", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0", "2130706433"],
)
def test_private_addresses_are_refused(host):
    assert "not a public address" in refused(f"http://{host}:9/")


@pytest.mark.parametrize(
    "address",
    """0.0.0.0 10.0.0.1 100.64.0.1 127.0.0.1 127.9.9.9 169.254.169.254 172.16.0.1 192.168.0.1 192.0.2.1 198.18.0.1
    224.0.0.1 239.1.2.3 240.0.0.1 255.255.255.255 :: ::1 fe80::1 fec0::1 fc00::1 fd12::1 ff02::1 ff0e::1 2001:db8::1
    ::ffff:10.0.0.1 ::ffff:127.0.0.1 64:ff9b::a9fe:a9fe 2002:7f00:1:: 2001:0:102:304:0:0:80ff:fffe
    ::127.0.0.1""".split(),
)
def test_what_is_not_public(address):
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "address", "1.1.1.1 8.8.8.8 100.63.0.1 2606:4700::1111 ::ffff:8.8.8.8 64:ff9b::808:808".split()
)
def test_what_is_public(address):
    assert is_public(ipaddress.ip_address(address))


def test_the_connection_goes_to_the_address_that_was_judged(monkeypatch):
    """A name server that changes its answer is asked once; of a mixed answer the private part is left out."""
    answers = [["10.0.0.1", "1.1.1.1"], ["127.0.0.1"]]

    def getaddrinfo(host, port, *args, **kwargs):
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in answers.pop(0)]

    class Recorder:
        async def connect_tcp(self, host, port, *args):
            connected.append((host, port))

    connected: list[tuple[str, int]] = []
    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    network = PublicNetwork()
    network._tcp = Recorder()  # type: ignore[assignment]
    asyncio.run(network.connect_tcp("rebinding.example", 80))
    assert connected == [("1.1.1.1", 80)] and answers == [["127.0.0.1"]]


def test_an_address_that_does_not_answer_leaves_the_next(monkeypatch):
    async def run() -> None:
        async with Site({"/": ok(b"x")}) as site:

            async def resolve(host, port):
                return [ipaddress.ip_address(address) for address in ("127.0.0.3", "127.0.0.1")]

            monkeypatch.setattr(public_network, "resolve", resolve)
            monkeypatch.setattr(public_network, "is_public", lambda address: True)
            network = PublicNetwork()
            connect, tried = network._tcp.connect_tcp, []

            async def first_fails(host, *args):
                tried.append(host)
                return await connect(host if host == "127.0.0.1" else "127.0.0.1", site.port if len(tried) > 1 else 1)

            monkeypatch.setattr(network._tcp, "connect_tcp", first_fails)
            stream = await network.connect_tcp("two.example", site.port)
            await stream.aclose()
            assert tried == ["127.0.0.3", "127.0.0.1"]

    asyncio.run(run())


def test_a_claimed_length_is_refused_before_the_body():
    async def claim(site: Site, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n")
        await writer.drain()
        await asyncio.sleep(3)

    with pytest.raises(MediaError, match="larger than 1000 bytes"):
        got({"/": claim}, policy=FetchPolicy(allow_private=True, max_bytes=1000, timeout_s=2.0))


def test_a_stream_without_an_end_is_left():
    sent = 0

    async def pour(site: Site, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(bytes(65536))
            await writer.drain()
            sent += 65536

    with pytest.raises(MediaError, match="larger than 1000000 bytes"):
        got({"/": pour}, policy=FetchPolicy(allow_private=True, max_bytes=1_000_000))
    assert sent < 20_000_000


@pytest.mark.parametrize("start", [b"", b"HTTP/1.1 200 OK\r\nX-A: ", b"HTTP/1.1 200 OK\r\n\r\n"])
def test_a_trickle_is_left_when_the_time_is_over(start):
    """Every read succeeds, so only a limit on the whole helps."""

    async def trickle(site: Site, writer: asyncio.StreamWriter) -> None:
        writer.write(start)
        while True:
            writer.write(b"a")
            await writer.drain()
            await asyncio.sleep(0.02)

    with pytest.raises(MediaError, match="within 0.3 seconds"):
        got({"/": trickle}, policy=FetchPolicy(allow_private=True, timeout_s=0.3))


@pytest.mark.parametrize(
    ("answer", "match"),
    [
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "status 404"),
        (b"HTTP/1.1 206 Partial\r\nContent-Length: 1\r\n\r\nx", "status 206"),
        (b"SSH-2.0-OpenSSH\r\n", "cannot be fetched"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", "cannot be fetched"),
        (ok(b"\x1f\x8b", "Content-Encoding: gzip"), "compressed"),
    ],
)
def test_other_answers_are_refused(answer, match):
    with pytest.raises(MediaError, match=match):
        got({"/": answer})


def test_a_closed_port_and_an_unknown_name():
    assert "cannot be fetched" in refused("http://127.0.0.1:1/", OPEN)
    assert "a name that is not known" in refused("http://nowhere.invalid/")


@pytest.mark.parametrize(
    "url",
    [
        "ftp://a/b",
        "javascript:1",
        "gopher://a",
        "http://",
        "http://u:p@example.com/",
        "http://[::1",
        "https:///x",
        "x" * 99,
    ],
)
def test_other_urls_are_refused(url):
    assert "must" in refused(url) or "not a URL" in refused(url)


@pytest.mark.parametrize(
    ("url", "content"),
    [
        ("data:image/png;base64,AAEC", b"\0\1\2"),
        ("data:image/png;base64,AAE=", b"\0\1"),
        ("data:image/png;base64,AAE", b"\0\1"),
        ("data:image/png;base64,AA\r\nEC==", b"\0\1\2"),
        ("data:;base64,-_-_", b"\xfb\xff\xbf"),
        ("data:;base64,", b""),
        ("data:;base64,-_%2B/\n AAA", b"\xfb\xff\xbf\x00\x00"),
        ("DATA:audio/wav;charset=x;BASE64,AAEC", b"\0\1\2"),
        ("data:,a%20b", b"a b"),
        ("data:image/svg+xml;utf8,<svg/>", b"<svg/>"),
    ],
)
def test_data_urls(url, content):
    assert asyncio.run(fetch(url)) == content


@pytest.mark.parametrize(
    ("url", "match"),
    [
        ("data:image/png;base64", "without a comma"),
        ("data:image/png;base64,AA*A", "not base64"),
        ("data:image/png;base64,A", "not base64"),
        ("data:image/png;base64,AAE§", "not base64"),
        ("data:image/png;base64,AAE%A7", "not base64"),
        ("data:image/png;base64,\ud800", "half a character"),
        ("data:,%20\ud800", "half a character"),
        ("data:;base64," + base64.b64encode(bytes(1001)).decode(), "larger than 1000"),
        ("data:," + "a" * 1001, "larger than 1000"),
    ],
)
def test_data_urls_that_are_refused(url, match):
    assert match in refused(url, FetchPolicy(max_bytes=1000))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """root/{a.png, in/b c.png, out -> secret, up -> .., pipe} beside a secret."""
    (tmp_path / "root" / "in").mkdir(parents=True)
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "root" / "a.png").write_bytes(b"a")
    (tmp_path / "root" / "in" / "b c.png").write_bytes(b"b")
    (tmp_path / "root" / "out").symlink_to(tmp_path / "secret")
    (tmp_path / "root" / "up").symlink_to(tmp_path)
    (tmp_path / "root" / "loop").symlink_to(tmp_path / "root" / "loop")
    os.mkfifo(tmp_path / "root" / "pipe")
    return tmp_path / "root"


def test_files_below_the_folder_are_read(folder):
    policy = FetchPolicy(local_root=folder)
    urls = ["a.png", str(folder / "a.png"), f"file://{folder}/a.png", "in/../a.png"]
    assert [asyncio.run(fetch(url, policy)) for url in urls] == [b"a"] * 4
    assert asyncio.run(fetch(f"file://localhost{folder}/in/b%20c.png", policy)) == b"b"


@pytest.mark.parametrize("path", ["../secret", "out", "up/secret", "in/../../secret", "/etc/passwd", "."])
def test_nothing_else_is_read(folder, path):
    message = refused(path, FetchPolicy(local_root=folder))
    assert "outside of the folder" in message or "cannot be read" in message
    assert refused(f"file://{folder}/{path.lstrip('/')}", FetchPolicy(local_root=folder))


@pytest.mark.parametrize("path", ["pipe", "loop", "missing", "a\0b"])
def test_what_is_no_ordinary_file(folder, path):
    assert refused(path, FetchPolicy(local_root=folder, timeout_s=3.0)).startswith(("names", "is not"))


def test_a_file_too_large_and_a_host_that_is_not_this_one(folder):
    (folder / "big").write_bytes(bytes(1001))
    assert "larger than 1000" in refused("big", FetchPolicy(local_root=folder, max_bytes=1000))
    assert "on elsewhere" in refused("file://elsewhere/a.png", FetchPolicy(local_root=folder))


@pytest.mark.parametrize("url", ["/etc/hostname", "file:///etc/hostname", "etc/hostname"])
def test_without_a_folder_no_file_is_read(url):
    assert "files of the server's machine are not read" in refused(url)


def test_ones_own_sources(folder):
    for source in ("a.png", folder / "a.png", f"file://{folder}/a.png", "data:,a", bytearray(b"a")):
        source = str(folder / source) if source == "a.png" else source
        assert read_source(source) == b"a"
    array = object()
    assert read_source(array) is array
    with pytest.raises(FileNotFoundError):
        read_source(folder / "missing")

    async def in_a_loop() -> None:
        async with Site({"/": ok(b"x")}) as site:
            assert await asyncio.to_thread(read_source, site.url("/")) == b"x"
        assert read_source("data:,y") == b"y"

    asyncio.run(in_a_loop())
