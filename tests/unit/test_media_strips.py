"""Every strip is worked at once, whoever does it, and nobody waits for threads that are busy."""

import threading

import pytest

from g4jax.media import strips
from g4jax.media.strips import in_strips


@pytest.mark.parametrize("count", [1, 2, 8])
def test_every_strip_is_worked_at_once(count):
    seen: list[int] = []
    in_strips(count, seen.append)
    assert sorted(seen) == list(range(count))


def test_busy_threads_are_not_waited_for():
    end = threading.Event()
    workers = strips._pool()._max_workers
    busy = [strips._pool().submit(end.wait, 20) for _ in range(workers)]
    seen: set[int] = set()
    in_strips(4, seen.add)
    assert seen == {0, 1, 2, 3} and not any(future.done() for future in busy)
    end.set()


@pytest.mark.parametrize("bad", [0, 2, 3])
def test_what_goes_wrong_is_told(bad):
    def work(strip: int) -> None:
        if strip == bad:
            raise MemoryError(f"strip {strip}")

    with pytest.raises(MemoryError, match=f"strip {bad}"):
        in_strips(4, work)
