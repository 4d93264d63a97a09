"""Long speech in pieces that a model hears whole, cut where it is quietest."""

import numpy as np
from jaxtyping import Float32

from g4jax.media.mel import RATE

SEARCH_S = 10.0
"""A piece is cut within so many seconds of its longest end."""

LEAST_S = 1.0
"""No cut leaves less than this behind."""

_STEP = RATE // 100
_PAUSE = 30
"""Steps of 10 ms over which loudness is measured: a pause of 0.3 seconds beats a short one between two sounds."""


def split_at_silences(samples: Float32[np.ndarray, " n"], most_s: float = 30.0) -> list[tuple[int, int]]:
    """(start, stop) of consecutive pieces that cover all of `samples` at 16 kHz.

    None is longer than `most_s` seconds, which must be 3 or more.
    """
    most, pieces, start = int(most_s * RATE), [], 0
    while len(samples) - start > most:
        latest = min(start + most, len(samples) - int(LEAST_S * RATE))
        earliest = max(start + most // 2, latest - int(SEARCH_S * RATE))
        stop = earliest + _quietest(samples[earliest:latest])
        pieces.append((start, stop))
        start = stop
    return [*pieces, (start, len(samples))]


def _quietest(samples: Float32[np.ndarray, " n"]) -> int:
    """The middle of the quietest 0.3 seconds; of several alike (digital silence), the one in their middle."""
    steps = len(samples) // _STEP
    energy = np.square(samples[: steps * _STEP]).reshape(steps, _STEP).sum(axis=1, dtype=np.float64)
    width = min(_PAUSE, steps)
    loudness = np.convolve(energy, np.ones(width), mode="valid")
    alike = np.flatnonzero(loudness <= loudness.min())
    return int((alike[len(alike) // 2] + width / 2) * _STEP)
