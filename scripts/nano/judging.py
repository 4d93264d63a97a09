"""Accuracy on fresh samples while training.

A reply counts as right when each of its tokens, thought included, is the likeliest one after what stands before it.
That is exact agreement of a greedy answer with the expected one, for the price of one forward pass.
"""

import random
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from scripts.nano import mixture
from scripts.nano.packing import Encoder, Rows, laid_out

ABILITIES = (*mixture.JUDGED, "tool_call_everyday_new")
Predict = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Rows of tokens and segments [R, T] to the likeliest next token at every place [R, T]."""


@dataclass(frozen=True)
class Judge:
    """Fresh samples in rows; `where` gives ability, row, first and last place (exclusive) of every reply."""

    rows: Rows
    where: list[tuple[str, int, int, int]]

    @classmethod
    def draw(cls, encoder: Encoder, *, per_ability: int, length: int, multiple: int) -> "Judge":
        """`per_ability` samples each, in a multiple of `multiple` rows of `length` tokens."""
        packed: list[list[tuple[list[int], list[int]]]] = [[]]
        where = []
        room = length
        for ability, prompt, reply in _fresh(encoder, per_ability, length):
            size = len(prompt) + len(reply)
            if size > room:
                packed.append([])
                room = length
            start = length - room + len(prompt)
            where.append((ability, len(packed) - 1, start, start + len(reply)))
            packed[-1].append((prompt, reply))
            room -= size
        packed += [[]] * (-len(packed) % multiple)
        return cls(laid_out(packed, length), where)

    def score(self, predict: Predict, batch: int) -> dict[str, float]:
        """Share of right replies by ability."""
        right = np.concatenate(
            [self._right(predict, first, first + batch) for first in range(0, len(self.rows.tokens), batch)]
        )
        marks: dict[str, list[bool]] = {}
        for ability, row, start, end in self.where:
            marks.setdefault(ability, []).append(bool(right[row, start:end].all()))
        return {ability: float(np.mean(marks[ability])) for ability in marks}

    def _right(self, predict: Predict, first: int, last: int) -> np.ndarray:
        tokens = self.rows.tokens[first:last]
        likeliest = predict(tokens, self.rows.segments[first:last])
        return np.pad(likeliest[:, :-1] == tokens[:, 1:], [(0, 0), (1, 0)])


def _fresh(encoder: Encoder, per_ability: int, length: int) -> Iterator[tuple[str, list[int], list[int]]]:
    for ability in ABILITIES:
        rng = random.Random(zlib.crc32(ability.encode()))
        samples = [mixture.sample(rng, ability, "eval") for _ in range(per_ability)]
        for prompt, reply in encoder(samples):
            if len(prompt) + len(reply) <= length:
                yield ability, prompt, reply
