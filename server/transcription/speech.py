"""Speech in pieces that the model can hear."""

from dataclasses import dataclass

from g4jax.media.inputs import Medium
from g4jax.media.mel import RATE
from g4jax.media.processor import MediaProcessor
from g4jax.media.sound import decode_sound
from g4jax.media.speech_split import split_at_silences


@dataclass(frozen=True)
class Speech:
    """A piece, from `start_s` to `end_s` seconds of the whole."""

    start_s: float
    end_s: float
    medium: Medium


def speech_of(processor: MediaProcessor, data: bytes) -> list[Speech]:
    """The content of a sound file, cut at silences; MediaError for what is none."""
    samples = decode_sound(data)
    return [
        Speech(start / RATE, stop / RATE, processor.audio(samples[start:stop]))
        for start, stop in split_at_silences(samples)
    ]
