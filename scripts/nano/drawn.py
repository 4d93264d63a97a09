"""Batches that processes draw: new ones as they come, and earlier ones again rather than a device that waits."""

import collections
import queue
import random
from collections.abc import Iterator, Sequence
from multiprocessing.process import BaseProcess
from typing import Generic, Protocol, TypeVar

Batch = TypeVar("Batch")


class Source(Protocol[Batch]):
    """A queue; `get` raises `queue.Empty`."""

    def get(self, block: bool = True, timeout: float | None = None) -> Batch: ...


class Drawn(Generic[Batch]):
    """Endless batches of `source`, which `processes` fill.

    The last `recent` of them are kept; from half as many on, one of these comes again whenever the source is empty.
    """

    def __init__(self, source: Source[Batch], processes: Sequence[BaseProcess], *, recent: int, seed: int):
        self._source, self._processes = source, processes
        self._recent: collections.deque[Batch] = collections.deque(maxlen=recent)
        self._enough = recent // 2
        self._rng = random.Random(seed)
        self._new = self._given = 0

    @property
    def fresh(self) -> float:
        """The share of batches that were new."""
        return self._new / max(1, self._given)

    def __iter__(self) -> Iterator[Batch]:
        while True:
            batch = self._next()
            self._given += 1
            if batch is None:
                batch = self._rng.choice(self._recent)
            else:
                self._new += 1
                self._recent.append(batch)
            yield batch

    def stop(self) -> None:
        """Ends the processes."""
        for process in self._processes:
            process.terminate()
            process.join()

    def _next(self) -> Batch | None:
        """A new batch; None when there is none yet and an earlier one can stand in."""
        while True:
            try:
                return self._source.get(timeout=0.001 if len(self._recent) >= self._enough else 30)
            except queue.Empty:
                if not any(process.is_alive() for process in self._processes):
                    raise RuntimeError("every data worker has died; its traceback stands above") from None
                if self._recent:
                    return None
