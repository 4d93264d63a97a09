"""Every line is worked at once, whoever does it, and nobody waits for threads that are busy."""

import threading

import pytest

from g4jax.media import strips
from g4jax.media.strips import in_strips


@pytest.mark.parametrize(("count", "lines"), [(1, 5), (2, 5), (8, 8), (8, 1000), (3, 22)])
def test_strips_are_all_lines_once(count, lines):
    seen: list[tuple[int, int]] = []
    in_strips(count, lines, lambda first, end: seen.append((first, end)))
    assert len(seen) == count and sorted(line for strip in seen for line in range(*strip)) == list(range(lines))
    assert max(end - first for first, end in seen) - min(end - first for first, end in seen) <= 1


def test_busy_threads_are_not_waited_for():
    end = threading.Event()
    workers = strips._pool()._max_workers
    busy = [strips._pool().submit(end.wait, 20) for _ in range(workers)]
    seen: set[int] = set()
    in_strips(4, 4, lambda first, _: seen.add(first))
    assert seen == {0, 1, 2, 3} and not any(future.done() for future in busy)
    end.set()


@pytest.mark.parametrize("bad", [0, 2, 3])
def test_what_goes_wrong_is_told(bad):
    def work(first: int, _: int) -> None:
        if first == bad:
            raise MemoryError(f"line {first}")

    with pytest.raises(MemoryError, match=f"line {bad}"):
        in_strips(4, 4, work)
