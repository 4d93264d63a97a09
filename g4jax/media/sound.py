"""Sound as every model takes it: one channel at 16 kHz, float32, full scale 1."""

from collections.abc import Iterable

import numpy as np
from jaxtyping import Float32

from g4jax.media.inputs import MediaError
from g4jax.media.mel import RATE
from g4jax.media.sound_files import MAX_SECONDS, check_rate, open_sound, too_long

_LOUDEST = 1e6
"""More than any scale a caller may have used, and far from what overflows in a spectrum."""


def decode_sound(data: bytes) -> Float32[np.ndarray, " n"]:
    """The sound in a file of any usual format, its channels averaged.

    Raises:
        MediaError: no sound, cut short, in an unknown format, or beyond the limits of `sound_files`.
    """
    rate, blocks = open_sound(data)
    return _at_16_khz(blocks, rate)


def resample(samples: np.ndarray, rate: int) -> Float32[np.ndarray, " n"]:
    """The same of an array at `rate` Hz: `[n]`, `[n, channels]` or `[channels, n]` (the shorter axis is the channels').

    Floats have full scale 1, int16 has full scale 32768.

    Raises:
        MediaError: another shape or dtype, no samples, numbers that are no sound, or beyond the limits.
    """
    check_rate(rate)
    return _at_16_khz([_mono(samples)], rate)


def _at_16_khz(blocks: Iterable[Float32[np.ndarray, " k"]], rate: int) -> Float32[np.ndarray, " n"]:
    convert, parts, read = _converter(rate), [], 0
    for block in blocks:
        read += len(block)
        if read > MAX_SECONDS * rate:
            raise too_long()
        parts.append(convert(block, False))
    if not read:
        raise MediaError("is empty: a sound must have samples")
    parts.append(convert(np.zeros(0, np.float32), True))
    samples = np.concatenate(parts)
    # Written so that NaN fails too. A resampler may have nothing to give for a few samples.
    if len(samples) and not np.abs(samples).max() <= _LOUDEST:
        raise MediaError("has samples that are not finite, or beyond 1e6: full scale is 1")
    return samples


def _converter(rate: int):
    if rate == RATE:
        return lambda block, last: block
    import soxr

    return soxr.ResampleStream(rate, RATE, 1, dtype="float32", quality="HQ").resample_chunk


def _mono(samples: np.ndarray) -> Float32[np.ndarray, " n"]:
    if samples.dtype != np.int16 and not np.issubdtype(samples.dtype, np.floating):
        raise MediaError(f"is an array of {samples.dtype}: must be float or int16")
    if samples.ndim not in (1, 2) or 0 in samples.shape:
        raise MediaError(
            f"is an array of shape {samples.shape}: must be [samples], [samples, channels] or [channels, samples]"
        )
    scale = 32768 if samples.dtype == np.int16 else 1
    samples = samples.astype(np.float32)
    if samples.ndim == 2:
        samples = samples.mean(axis=int(np.argmin(samples.shape)))
    return samples / np.float32(scale)
