"""What a caller may name as the source of a medium in his own program: a path or a URL too."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.request import url2pathname

from g4jax.media.fetch import FetchPolicy, fetch

OWN = FetchPolicy(allow_private=True)


def read_source(source: Any) -> Any:
    """The content of a path or a URL (http, https, data, file) as bytes; whatever else is given comes back unchanged.

    Raises:
        MediaError: the URL cannot be fetched.
        OSError: the file cannot be read.
    """
    if isinstance(source, str) and source.startswith(("http://", "https://", "data:")):
        # In a thread of its own, since the caller may be in an event loop, as every notebook is.
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(lambda: asyncio.run(fetch(source, OWN))).result()
    if isinstance(source, str) and source.startswith("file://"):
        return Path(url2pathname(source.removeprefix("file://"))).read_bytes()
    if isinstance(source, str | Path):
        return Path(source).expanduser().read_bytes()
    if isinstance(source, bytearray | memoryview):
        return bytes(source)
    return source
