"""Endless training rows: samples drawn by worker processes, tokenized, and laid end to end in rows of one length."""

import multiprocessing
import os
import random
from collections.abc import Iterator
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tokenizers

from g4jax.chat.template import ChatTemplate, shipped_source
from g4jax.chat.tokenizer import Tokenizer
from scripts.nano import mixture, rendering
from scripts.nano.drawn import Drawn
from scripts.nano.tasks import Sample

OPEN_ROWS = 32
SAMPLES_AT_ONCE = 256


class Rows(NamedTuple):
    """Three uint16 arrays [R, T], of numpy or, in a compiled step, of jax.

    `segments` is 1, 2, ... by sample and 0 where a row is not filled; `replies` is 1 on what the model writes.
    """

    tokens: Any
    segments: Any
    replies: Any


class Encoder:
    """Samples to token ids, with the tokenizer of `folder`."""

    def __init__(self, folder: Path):
        self.backend = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.template = ChatTemplate(shipped_source("small"), Tokenizer(folder))

    def __call__(self, samples: list[Sample]) -> list[tuple[list[int], list[int]]]:
        """Ids of every sample's prompt and reply."""
        prompts = [rendering.prompt(sample, self.template) for sample in samples]
        replies = [rendering.reply(sample, prompt) for sample, prompt in zip(samples, prompts, strict=True)]
        encoded = [e.ids for e in self.backend.encode_batch_fast([*prompts, *replies], add_special_tokens=False)]
        return list(zip(encoded[: len(samples)], encoded[len(samples) :], strict=True))


class _Packer:
    """Puts each sample into the open row that it fills best; gives a row out when it is the fullest of too many."""

    def __init__(self, length: int):
        self.length = length
        self._open: list[list[tuple[list[int], list[int]]]] = []
        self._room: list[int] = []

    def add(self, prompt: list[int], reply: list[int]) -> list[tuple[list[int], list[int]]] | None:
        """The samples of a finished row, or None. Samples longer than a row are dropped."""
        size = len(prompt) + len(reply)
        if size > self.length:
            return None
        fitting = [index for index, room in enumerate(self._room) if room >= size]
        if not fitting:
            self._open.append([])
            self._room.append(self.length)
            fitting = [len(self._open) - 1]
        best = min(fitting, key=self._room.__getitem__)
        self._open[best].append((prompt, reply))
        self._room[best] -= size
        if len(self._open) <= OPEN_ROWS and self._room[best] >= 8:
            return None
        fullest = self._room.index(min(self._room))
        self._room.pop(fullest)
        return self._open.pop(fullest)


def packed(encoder: Encoder, seed: int, length: int, rows: int) -> Iterator[Rows]:
    """Batches of `rows` rows of `length` tokens, for ever, from the training part of the mixture."""
    rng = random.Random(seed)
    packer = _Packer(length)
    finished: list[list[tuple[list[int], list[int]]]] = []
    while True:
        samples = [mixture.any_sample(rng, "train") for _ in range(SAMPLES_AT_ONCE)]
        done = (packer.add(prompt, reply) for prompt, reply in encoder(samples))
        finished += [row for row in done if row]
        while len(finished) >= rows:
            yield laid_out(finished[:rows], length)
            finished = finished[rows:]


def laid_out(rows: list[list[tuple[list[int], list[int]]]], length: int) -> Rows:
    """Rows of samples as arrays."""
    batch = Rows(*(np.zeros((len(rows), length), np.uint16) for _ in Rows._fields))
    for index, row in enumerate(rows):
        start = 0
        for segment, (prompt, reply) in enumerate(row, start=1):
            end = start + len(prompt) + len(reply)
            batch.tokens[index, start:end] = prompt + reply
            batch.segments[index, start:end] = segment
            batch.replies[index, start + len(prompt) : end] = 1
            start = end
    return batch


def _work(folder: str, seed: int, length: int, rows: int, out: "Queue[Rows]") -> None:
    for batch in packed(Encoder(Path(folder)), seed, length, rows):
        out.put(batch)


class Workers:
    """Processes that keep a queue of batches filled. Use as a context manager; iterate for batches of `rows` rows.

    When the queue is empty an earlier batch comes again, so that slow processes never hold up the device; `fresh` is
    the share of batches that were new.
    """

    def __init__(self, folder: Path, *, seed: int, length: int, rows: int, processes: int):
        context = multiprocessing.get_context("spawn")
        self._queue: Queue[Rows] = context.Queue(maxsize=64)
        self._processes = [
            context.Process(target=_work, args=(str(folder), seed * 1000 + n, length, rows, self._queue), daemon=True)
            for n in range(processes)
        ]
        self._drawn = Drawn(self._queue, self._processes, recent=128, seed=seed)

    @property
    def fresh(self) -> float:
        return self._drawn.fresh

    def __enter__(self) -> "Workers":
        os.environ["TOKENIZERS_PARALLELISM"] = "false"  # inherited: one thread in each of many processes
        for process in self._processes:
            process.start()
        return self

    def __iter__(self) -> Iterator[Rows]:
        return iter(self._drawn)

    def __exit__(self, *_: object) -> None:
        self._drawn.stop()
