"""Accuracy on fresh pictures and sounds while training, by the rule of `judging`."""

import random
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from scripts.nano import senses
from scripts.nano.media_rows import MediaEncoder, MediaRows, Size, judged_rows

Predict = Callable[[MediaRows], np.ndarray]
"""A batch to the likeliest next token at every place [R, T]."""


@dataclass(frozen=True)
class MediaJudge:
    """Fresh samples in batches; `where` gives ability, batch, row, first and last place (exclusive) of every reply."""

    batches: list[MediaRows]
    where: list[tuple[str, int, int, int, int]]

    @classmethod
    def draw(cls, encoder: MediaEncoder, *, per_ability: int, size: Size) -> "MediaJudge":
        """`per_ability` samples each, the abilities in turn."""
        sources = {ability: random.Random(zlib.crc32(ability.encode())) for ability in senses.JUDGED}
        samples = [senses.sample(rng, ability) for _ in range(per_ability) for ability, rng in sources.items()]
        return cls(*judged_rows(encoder, samples, size))

    def score(self, predict: Predict) -> dict[str, float]:
        """Share of right replies by ability."""
        likeliest = [predict(batch) for batch in self.batches]
        marks: dict[str, list[bool]] = {ability: [] for ability in senses.JUDGED}
        for ability, batch, row, first, end in self.where:
            written, wanted = likeliest[batch][row, first - 1 : end - 1], self.batches[batch].tokens[row, first:end]
            marks[ability].append(bool((written == wanted).all()))
        return {ability: float(np.mean(marks[ability])) for ability in marks}
