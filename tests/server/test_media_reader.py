"""Who waits for whom where many media are read at once."""

import asyncio
import threading

import pytest

from server import media_reader as media_reader_module
from server.errors import ApiError
from server.media import MediaSource
from server.media_reader import NUM_THREADS
from tests.server.conftest import media_reader
from tests.server.media_samples import data_url, picture


def image(content: bytes, field: str = "here") -> MediaSource:
    return MediaSource("image", data_url(content), field)


def test_no_image_waits_for_long_videos():
    reader, end = media_reader(), threading.Event()

    async def read() -> str:
        videos = [asyncio.ensure_future(reader.run("x", lambda: end.wait(20))) for _ in range(NUM_THREADS)]
        await asyncio.sleep(0)
        (medium,) = await asyncio.wait_for(reader.read([image(picture())]), 10)
        assert not any(video.done() for video in videos)
        end.set()
        await asyncio.gather(*videos)
        return medium.kind

    assert asyncio.run(read()) == "image"


def test_what_was_read_lately_is_not_read_again(monkeypatch):
    reader = media_reader()
    (first,) = asyncio.run(reader.read([image(picture())]))
    monkeypatch.setattr(type(reader.processor), "image", lambda *_: pytest.fail("it is there"))
    assert asyncio.run(reader.read([image(picture())] * 3)) == [first] * 3


def test_a_thread_has_the_data_before_the_event_loop_does_anything_else(monkeypatch):
    begun = threading.Event()
    real = media_reader_module.data_content
    monkeypatch.setattr(media_reader_module, "data_content", lambda *given: begun.set() or real(*given))

    async def read() -> bool:
        reading = asyncio.ensure_future(media_reader().read([image(picture())]))
        await asyncio.sleep(0)  # its first turn, and nobody has another one while this waits
        came = begun.wait(10)
        await reading
        return came

    assert asyncio.run(read())


def test_the_field_of_a_bad_one_among_good_ones():
    sources = [image(picture(), "a"), image(b"GIF89a", "b"), image(picture(seed=1), "c")]
    with pytest.raises(ApiError) as caught:
        asyncio.run(media_reader().read(sources))
    assert caught.value.body.param == "b"
