"""Batches of `MediaRows` from worker processes through shared memory: pickling them would cost more than a step."""

import mmap
import multiprocessing
import os
import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing.queues import Queue
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import Any

import numpy as np

from scripts.nano import senses
from scripts.nano.drawn import Drawn
from scripts.nano.media_rows import MediaEncoder, MediaRows, Size, media_rows

RECENT = 64
FETCHERS = 4
"""Threads that hand batches over: a device takes one only between two steps."""


class Slots:
    """Shared memory for several batches of one size. It goes to a child process with that process's arguments."""

    def __init__(self, size: Size, count: int):
        self.size, self.count = size, count
        self.stride = sum(_bytes(*field) for field in size.fields())
        # Not below /dev/shm, which is tiny in many containers.
        self._file = os.memfd_create("nano")
        os.ftruncate(self._file, self.stride * count)
        self.memory = mmap.mmap(self._file, self.stride * count)

    def __getstate__(self) -> dict[str, Any]:
        return {name: vars(self)[name] for name in ("size", "count", "stride")} | {"file": DupFd(self._file)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._file = state.pop("file").detach()
        vars(self).update(state)
        self.memory = mmap.mmap(self._file, self.stride * self.count)

    def batch(self, slot: int) -> MediaRows:
        """The arrays of a slot, as views."""
        offset, arrays = slot * self.stride, []
        for dims, dtype in self.size.fields():
            count = int(np.prod(dims))
            arrays.append(np.frombuffer(self.memory, dtype, count, offset).reshape(dims))
            offset += _bytes(dims, dtype)
        return MediaRows(*arrays)


def _bytes(dims: tuple[int, ...], dtype: Any) -> int:
    return -(-int(np.prod(dims)) * np.dtype(dtype).itemsize // 64) * 64


def _work(
    folder: str, seed: int, slots: Slots, free: "Queue[int]", full: "Queue[int]", scores: Sequence[float]
) -> None:
    def accuracy() -> dict[str, float]:
        return dict(zip(senses.JUDGED, scores, strict=True))

    for batch in media_rows(MediaEncoder(Path(folder)), seed, slots.size, accuracy):
        slot = free.get()
        for view, array in zip(slots.batch(slot), batch, strict=True):
            view[...] = array
        full.put(slot)


class MediaWorkers:
    """Processes that draw pictures and sounds. Use as a context manager; iterate for batches.

    `put` takes a batch over (to a device, say) and runs in threads of its own. When no new batch is there an earlier
    one comes again; `fresh` is the share of batches that were new.
    """

    def __init__(self, folder: Path, *, seed: int, size: Size, processes: int, put: Callable[[MediaRows], MediaRows]):
        context = multiprocessing.get_context("spawn")
        self._slots = Slots(size, 2 * processes)
        self._free: Queue[int] = context.Queue()
        self._full: Queue[int] = context.Queue()
        self._scores = context.RawArray("d", len(senses.JUDGED))
        for slot in range(self._slots.count):
            self._free.put(slot)
        shared = (self._slots, self._free, self._full, self._scores)
        self._processes = [
            context.Process(target=_work, args=(str(folder), seed * 1000 + n, *shared), daemon=True)
            for n in range(processes)
        ]
        self._put = put
        self._ready: queue.Queue[MediaRows] = queue.Queue(maxsize=4)
        self._drawn = Drawn(self._ready, self._processes, recent=RECENT, seed=seed)

    @property
    def fresh(self) -> float:
        return self._drawn.fresh

    def learned(self, accuracy: Mapping[str, float]) -> None:
        """What is known how well by now: the processes draw less of it from their next batches on."""
        self._scores[:] = [accuracy[name] for name in senses.JUDGED]

    def __enter__(self) -> "MediaWorkers":
        os.environ["TOKENIZERS_PARALLELISM"] = "false"  # inherited: one thread in each of many processes
        os.environ["OPENBLAS_NUM_THREADS"] = "1"
        for process in self._processes:
            process.start()
        for _ in range(FETCHERS):
            threading.Thread(target=self._fetch, daemon=True).start()
        return self

    def _fetch(self) -> None:
        while True:
            slot = self._full.get()
            batch = MediaRows(*(np.array(view) for view in self._slots.batch(slot)))
            self._free.put(slot)
            self._ready.put(self._put(batch))

    def __iter__(self) -> Iterator[MediaRows]:
        return iter(self._drawn)

    def __exit__(self, *_: object) -> None:
        self._drawn.stop()
