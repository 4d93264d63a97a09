"""Digits as a simple machine speaks them: a buzz or a hiss, shaped by resonances that move as in the English words."""

import random
from dataclasses import dataclass

import numpy as np

from scripts.nano.sounds import RATE, noise, soft_ends

Formants = tuple[float, float, float]

VOWELS: dict[str, Formants] = {
    "i": (280, 2250, 2900),
    "I": (400, 1950, 2550),
    "e": (530, 1850, 2480),
    "a": (750, 1250, 2500),
    "o": (500, 850, 2400),
    "u": (320, 800, 2250),
    "r": (420, 1250, 1650),
    "n": (250, 1100, 2300),
    "v": (280, 1050, 2200),
    "w": (300, 640, 2200),
}
HISSES: dict[str, tuple[float, float]] = {
    "s": (4500, 7500),
    "f": (1200, 7800),
    "t": (3000, 6000),
    "k": (1500, 2800),
    "z": (4000, 7000),
}
"""Lowest and highest frequency of a hiss."""

WORDS = (
    "z.08 i.10 r.08 o.16",  # zero
    "w.08 a.14 n.12",
    "t.05 u.24",
    "f.08 r.08 i.18",
    "f.09 o.18 r.09",
    "f.08 a.12 i.10 v.07",
    "s.11 I.09 -.04 k.04 s.10",
    "s.10 e.09 v.06 e.07 n.09",
    "e.12 i.08 -.05 t.06",
    "n.08 a.13 i.10 n.09",  # nine
)
"""Sounds of each digit and how long they last in seconds; a dash is a closed mouth."""

FRAME = 400
HOP = 100
BANDWIDTHS = (80.0, 110.0, 160.0)


@dataclass(frozen=True)
class Voice:
    """Who speaks: pitch in Hz, how long the throat is and how fast the words come, both relative to the average."""

    pitch: float
    throat: float
    pace: float
    breath: float


def voice(rng: random.Random) -> Voice:
    high = rng.random() < 0.5
    pitch = rng.uniform(160, 260) if high else rng.uniform(85, 150)
    return Voice(
        pitch, rng.uniform(1.0, 1.2) if high else rng.uniform(0.88, 1.05), rng.uniform(0.8, 1.25), rng.random()
    )


def spoken(rng: random.Random, digit: int, by: Voice) -> np.ndarray:
    """A digit as a waveform: source times filter, frame by frame, put together by overlapping."""
    sounds = [(sound[0], float(sound[1:]) / by.pace * rng.uniform(0.85, 1.2)) for sound in WORDS[digit].split()]
    hops = [max(1, round(length * RATE / HOP)) for _, length in sounds]
    count = sum(hops)
    buzz, hiss, formants, bands = _tracks(rng, [sound for sound, _ in sounds], hops, by)
    samples = (count - 1) * HOP + FRAME
    voiced = _filtered(_pulses(rng, samples, by, count), _resonances(formants)) * np.repeat(buzz, HOP)
    breath = _filtered(noise(rng, samples), bands) * np.repeat(hiss, HOP)
    return soft_ends((voiced + breath).astype(np.float32), RATE // 100)


def _tracks(rng: random.Random, sounds: list[str], hops: list[int], by: Voice):
    """Loudness of buzz and hiss, formants and hiss band, frame by frame and gliding from sound to sound."""
    frequencies = np.fft.rfftfreq(FRAME, 1 / RATE)
    targets, buzz, hiss, bands = [], [], [], []
    vowels = [VOWELS.get(sound) for sound in sounds]
    for index, sound in enumerate(sounds):
        near = sorted((abs(index - other), vowel) for other, vowel in enumerate(vowels) if vowel is not None)
        formants = np.asarray(near[0][1]) * by.throat * [rng.uniform(0.94, 1.06) for _ in range(3)]
        targets.append(np.repeat(formants[None], hops[index], 0))
        nasal = 0.5 if sound in "nv" else 1.0
        buzz.append(np.full(hops[index], nasal if sound in VOWELS else 0.4 if sound == "z" else 0.0))
        hiss.append(np.full(hops[index], rng.uniform(0.25, 0.5) if sound in HISSES else 0.02 * by.breath))
        low, high = HISSES.get(sound, (500, 6000))
        inside = (frequencies > low * by.throat) & (frequencies < high)
        bands.append(np.repeat(inside[None].astype(np.float32), hops[index], 0))
    return (
        _smooth(np.concatenate(buzz)[:, None], 5)[:, 0],
        _smooth(np.concatenate(hiss)[:, None], 3)[:, 0],
        _smooth(np.concatenate(targets), 9),
        _smooth(np.concatenate(bands), 3),
    )


def _smooth(track: np.ndarray, width: int) -> np.ndarray:
    """Running mean over `width` frames."""
    padded = np.pad(track, [(width // 2, width // 2), (0, 0)], mode="edge")
    sums = np.cumsum(np.concatenate([np.zeros_like(padded[:1]), padded]), axis=0)
    return (sums[width:] - sums[:-width]) / width


def _pulses(rng: random.Random, samples: int, by: Voice, count: int) -> np.ndarray:
    """The buzz of a throat: one pulse a period, the pitch falling a little and trembling."""
    pitch = by.pitch * np.linspace(rng.uniform(1.0, 1.15), rng.uniform(0.8, 1.0), samples)
    phase = np.cumsum(pitch / RATE)
    pulses = np.diff(np.floor(phase), prepend=0.0).astype(np.float32)
    return pulses * np.float32((RATE / by.pitch) ** 0.5)


def _resonances(formants: np.ndarray) -> np.ndarray:
    """Gain [frames, bins] of a vocal tract with these formants, falling towards high frequencies as a voice does."""
    frequencies = np.fft.rfftfreq(FRAME, 1 / RATE)[None, :]
    gain = np.zeros((len(formants), frequencies.shape[1]))
    for index, (bandwidth, weight) in enumerate(zip(BANDWIDTHS, (1.0, 0.6, 0.35), strict=True)):
        gain += weight / (1 + ((frequencies - formants[:, index : index + 1]) / bandwidth) ** 2)
    return gain + 0.02 / (1 + frequencies / 1000)


def _filtered(source: np.ndarray, gain: np.ndarray) -> np.ndarray:
    """Overlapping frames of `source` times `gain` in frequency, added up to `len(gain) * HOP` samples."""
    count = len(gain)
    frames = np.lib.stride_tricks.sliding_window_view(source, FRAME)[::HOP][:count]
    shaped = np.fft.irfft(np.fft.rfft(frames * np.hanning(FRAME)) * gain, n=FRAME)
    out = np.zeros((count + FRAME // HOP - 1) * HOP)
    for part in range(FRAME // HOP):
        out[part * HOP : (part + count) * HOP] += shaped[:, part * HOP : (part + 1) * HOP].ravel()
    return out[: count * HOP]
