"""What was made ready is found again, by its content and by what was asked of it; the least recent makes room."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from g4jax.media.inputs import MediaKind, Medium, SoftInput, content_digest
from server.media_cache import Key, MediaCache


def medium(size: int) -> Medium:
    return Medium("image", (SoftInput("image", np.zeros((size, 768), np.uint8), (1, 1), 1, bytes(16)),))


def key(kind: MediaKind, budget: int | None, content: bytes) -> Key:
    return kind, budget, content_digest(content)


def test_found_by_content_kind_and_budget():
    cache, one = MediaCache(), medium(9)
    cache.put(key("image", 70, b"file"), one)
    assert cache.get(key("image", 70, b"file")) is one
    for other in (("image", 140, b"file"), ("video", 70, b"file"), ("image", 70, b"other"), ("image", None, b"file")):
        assert cache.get(key(*other)) is None


def test_the_least_recent_goes_first():
    cache = MediaCache(max_bytes=30 * 768)
    keys = [key("image", None, bytes([i])) for i in range(4)]
    for each in keys[:3]:
        cache.put(each, medium(10))
    cache.get(keys[0])
    cache.put(keys[3], medium(10))
    assert [cache.get(each) is not None for each in keys] == [True, False, True, True]
    cache.put(key("image", None, b"huge"), medium(31))
    assert cache.get(key("image", None, b"huge")) is None and cache.get(keys[3]) is not None


def test_threads_share_it():
    cache, one = MediaCache(max_bytes=30 * 768), medium(10)

    def use(turn: int) -> None:
        for number in range(200):
            each = key("image", None, bytes([number % 5]))
            cache.put(each, one)
            assert cache.get(each) in (one, None)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(use, range(8)))
    assert sum(cache.get(key("image", None, bytes([number]))) is not None for number in range(5)) == 3
