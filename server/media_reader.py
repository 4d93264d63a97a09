"""Fetches the media of requests and makes them ready for the model's encoders."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from g4jax.config import Gemma4Config
from g4jax.media.fetch import FetchPolicy, data_content, fetch, is_data
from g4jax.media.inputs import MediaError, MediaKind, Medium, content_digest
from g4jax.media.processor import MediaProcessor
from server.errors import invalid
from server.media import MediaSource
from server.media_cache import MediaCache

MAX_MEDIA = 128
"""Media of one request."""

MAX_AT_ONCE = 16
"""Media that are fetched at a time, of all requests together: each may fill the memory up to its limit."""

NUM_THREADS = 8
"""Images that are read at a time, and as many videos and sounds."""

T = TypeVar("T")


class MediaReader:
    """Reads media with threads of its own, so that a long video never keeps a text from being tokenized, and no image
    waits for one."""

    def __init__(self, processor: MediaProcessor, policy: FetchPolicy, max_soft_tokens: int | None = None):
        """`max_soft_tokens`: most tokens of an image for which a request sets no limit; None: the checkpoint's."""
        self.processor = processor
        self._policy = policy
        self._max_soft_tokens = max_soft_tokens
        self._places = asyncio.Semaphore(MAX_AT_ONCE)
        self._cache = MediaCache()
        self._threads = ThreadPoolExecutor(NUM_THREADS, thread_name_prefix="media")
        self._image_threads = ThreadPoolExecutor(NUM_THREADS, thread_name_prefix="picture")

    @classmethod
    def from_folder(cls, folder: str | Path, policy: FetchPolicy, max_soft_tokens: int | None = None) -> "MediaReader":
        """For the checkpoint in `folder`; errors as of `MediaProcessor.from_folder` and `Gemma4Config.from_folder`."""
        processor = MediaProcessor.from_folder(folder, Gemma4Config.from_folder(folder))
        return cls(processor, policy, max_soft_tokens)

    async def read(self, sources: Sequence[MediaSource]) -> list[Medium]:
        """All media of a request, read at the same time; 400 names the field of one that cannot be."""
        if len(sources) > MAX_MEDIA:
            message = f"a request may have at most {MAX_MEDIA} images, videos and sounds, this is one more"
            raise invalid(sources[MAX_MEDIA].field, message)
        for source in sources:
            self.check(source.kind, source.field)
        readings = [self._begin(source) for source in sources]
        try:
            return await asyncio.gather(*readings)
        finally:
            for reading in readings:
                reading.cancel()

    def check(self, kind: MediaKind, field: str) -> None:
        """400 where the model has no encoder for it."""
        if not self.processor.has(kind):
            what = {"image": "images", "video": "videos", "audio": "audio"}[kind]
            raise invalid(field, f"this model takes no {what}", code="unsupported_parameter")

    async def run(self, field: str, work: Callable[[], T]) -> T:
        """The result of `work`, done in one of the threads; a MediaError is a 400 that names the field."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except MediaError as error:
            raise invalid(field, str(error)) from None

    def _begin(self, source: MediaSource) -> asyncio.Future[Medium]:
        """What came with the request needs no fetching: a thread has it before the event loop does anything else."""
        if is_data(source.url):
            return self._submit(source, lambda: data_content(source.url, self._policy))
        return asyncio.ensure_future(self._fetched(source))

    async def _fetched(self, source: MediaSource) -> Medium:
        async with self._places:
            try:
                data = await fetch(source.url, self._policy)
            except MediaError as error:
                raise invalid(source.field, str(error)) from None
            return await self._submit(source, lambda: data)

    def _submit(self, source: MediaSource, content: Callable[[], bytes]) -> asyncio.Future[Medium]:
        threads = self._image_threads if source.kind == "image" else self._threads
        return asyncio.get_running_loop().run_in_executor(threads, self._medium, source, content)

    def _medium(self, source: MediaSource, content: Callable[[], bytes]) -> Medium:
        """All that is done with a file, in one thread: each change of threads costs what a small step takes."""
        try:
            data = content()
            digest = content_digest(data)
            key = source.kind, source.max_soft_tokens, digest
            medium = self._cache.get(key)
            if medium is None:
                medium = self._process(source, data, digest)
                self._cache.put(key, medium)
            return medium
        except MediaError as error:
            raise invalid(source.field, str(error)) from None

    def _process(self, source: MediaSource, data: bytes, content: bytes) -> Medium:
        match source.kind:
            case "image":
                return self.processor.image(data, source.max_soft_tokens or self._max_soft_tokens, content)
            case "video":
                return self.processor.video(data)
            case "audio":
                return self.processor.audio(data)
