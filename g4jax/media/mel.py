"""What the audio tower hears: log-mel frames of a 16 kHz waveform; and the frames of a model without a tower.

Equal to transformers' Gemma4AudioFeatureExtractor and Gemma4UnifiedAudioFeatureExtractor, without their padding.
"""

import functools
import math

import numpy as np
from jaxtyping import Float32

from g4jax.media.inputs import MediaError

RATE = 16_000
LONGEST = 30 * RATE
"""Samples of a clip; the rest of a longer one is not heard."""

WINDOW = 320
HOP = 160
BINS = 128
_FFT = 512
_FLOOR = 1e-3
_LEAST = WINDOW + 1 - HOP
"""Samples of the shortest clip with a frame: the first takes 160 zeros on the left and 161 samples."""


def log_mel(samples: Float32[np.ndarray, " n"]) -> Float32[np.ndarray, "v 128"]:
    """ln(0.001 + mel triangles of the magnitude spectrum) of 20 ms every 10 ms, the first around the first sample.

    Raises:
        MediaError: fewer than 161 samples, which is less than one frame.
    """
    if len(samples) < _LEAST:
        raise MediaError(f"is too short ({len(samples)} samples at 16 kHz): must have at least {_LEAST} (0.01 seconds)")
    padded = np.pad(samples[:LONGEST], (WINDOW // 2, 0))
    # The reference takes 321 samples and drops the last, which decides how many frames there are.
    frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW + 1)[::HOP, :-1]
    spectrum = np.abs(np.fft.rfft(frames * _hann(), n=_FFT)).astype(np.float32)
    return np.log(spectrum @ _triangles() + np.float32(_FLOOR))


def soft_tokens(frames: int) -> int:
    """How many of the tower's outputs `frames` log-mel frames give: two halvings, each rounded up."""
    return math.ceil(math.ceil(frames / 2) / 2)


def waveform_frames(samples: Float32[np.ndarray, " n"], size: int = 640) -> Float32[np.ndarray, "t size"]:
    """Consecutive pieces of `size` samples, the last filled up with zeros: one soft token each.

    Raises:
        MediaError: no samples.
    """
    if not len(samples):
        raise MediaError("is empty: a sound must have samples")
    samples = samples[:LONGEST]
    return np.pad(samples, (0, -len(samples) % size)).reshape(-1, size)


@functools.cache
def _hann() -> Float32[np.ndarray, " 320"]:
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)).astype(np.float32)


@functools.cache
def _triangles() -> Float32[np.ndarray, "257 128"]:
    """HTK's: corners equally far apart in mel from 0 to 8000 Hz, each of height 1. The first lies between two bins."""
    mel = np.linspace(0, _to_mel(RATE / 2), BINS + 2)
    left, middle, right = (700 * (10 ** (corners / 2595) - 1) for corners in (mel[:-2], mel[1:-1], mel[2:]))
    frequencies = np.linspace(0, RATE / 2, _FFT // 2 + 1)[:, None]
    rising = (frequencies - left) / (middle - left)
    falling = (right - frequencies) / (right - middle)
    return np.maximum(0, np.minimum(rising, falling)).astype(np.float32)


def _to_mel(frequency: float) -> float:
    return 2595 * math.log10(1 + frequency / 700)
