"""Sounds at 16 kHz: tones, beeps, clicks, noise and sirens, and what a room and a microphone do to them."""

import random

import numpy as np

RATE = 16_000

_FIELD = np.random.default_rng(1).standard_normal(RATE * 8).astype(np.float32)


def seconds(rng: random.Random, low: float, high: float) -> int:
    """A number of samples."""
    return int(rng.uniform(low, high) * RATE)


def silence(rng: random.Random, low: float, high: float) -> np.ndarray:
    return np.zeros(seconds(rng, low, high), np.float32)


def tone(rng: random.Random, start_hz: float, end_hz: float, count: int) -> np.ndarray:
    """`count` samples that glide from one pitch to another: a sine with some overtones and soft ends."""
    place = np.linspace(0, 1, count, dtype=np.float32)
    phase = 2 * np.pi * np.cumsum(start_hz * (end_hz / start_hz) ** place) / RATE
    wave = np.sin(phase)
    for overtone in range(2, rng.choice((2, 2, 3, 4))):
        wave += rng.uniform(0.1, 0.5) / overtone * np.sin(overtone * phase + rng.uniform(0, 6))
    return soft_ends(wave.astype(np.float32), seconds(rng, 0.004, 0.02))


def noise(rng: random.Random, count: int) -> np.ndarray:
    """White, or darker noise."""
    first = rng.randint(0, len(_FIELD) - count - 8)
    wave = _FIELD[first : first + count]
    return wave if rng.random() < 0.5 else (wave + _FIELD[first + 1 : first + 1 + count]) * 0.7


def click(rng: random.Random) -> np.ndarray:
    """A few milliseconds."""
    count = seconds(rng, 0.004, 0.01)
    return noise(rng, count) * np.exp(-np.linspace(0, 6, count, dtype=np.float32)) * 2


def soft_ends(wave: np.ndarray, ramp: int) -> np.ndarray:
    ramp = min(ramp, len(wave) // 2)
    rise = np.linspace(0, 1, ramp, dtype=np.float32)
    wave[:ramp] *= rise
    wave[len(wave) - ramp :] *= rise[::-1]
    return wave


def recorded(rng: random.Random, parts: list[np.ndarray]) -> np.ndarray:
    """The parts one after another as a microphone gives them: loud or quiet, with silence around, hiss and a room."""
    wave = np.concatenate([silence(rng, 0.02, 0.3), *parts, silence(rng, 0.05, 0.3)])
    if rng.random() < 0.3:
        delay = seconds(rng, 0.01, 0.05)
        wave[delay:] += rng.uniform(0.1, 0.35) * wave[:-delay]
    peak = 10 ** rng.uniform(-1.3, -0.05)
    wave = wave * np.float32(peak / max(1e-6, float(np.abs(wave).max())))
    hiss = 0.0 if rng.random() < 0.2 else peak * 10 ** rng.uniform(-3.0, -1.5)
    return np.clip(wave + np.float32(hiss) * noise(rng, len(wave)), -1, 1).astype(np.float32)
