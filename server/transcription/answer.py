"""What the audio API answers, field by field as OpenAI's own types."""

from typing import Literal

import msgspec


class InputDetails(msgspec.Struct):
    audio_tokens: int
    text_tokens: int


class Usage(msgspec.Struct, tag_field="type", tag="tokens"):
    input_tokens: int
    output_tokens: int
    total_tokens: int
    input_token_details: InputDetails


class Duration(msgspec.Struct, tag_field="type", tag="duration"):
    seconds: float


class Transcript(msgspec.Struct):
    text: str
    usage: Usage


class Segment(msgspec.Struct):
    """A piece of the speech. `seek`: where it begins, in hundredths of a second. `no_speech_prob` is not known here."""

    id: int
    seek: int
    start: float
    end: float
    text: str
    tokens: list[int]
    temperature: float
    avg_logprob: float
    compression_ratio: float
    no_speech_prob: float = 0.0


class VerboseTranscript(msgspec.Struct):
    """`language` is the one that the client has named, for the model does not tell which it heard."""

    task: Literal["transcribe", "translate"]
    language: str
    duration: float
    text: str
    segments: list[Segment]
    usage: Duration


class TextDelta(msgspec.Struct, tag_field="type", tag="transcript.text.delta"):
    delta: str


class TextDone(msgspec.Struct, tag_field="type", tag="transcript.text.done"):
    text: str
    usage: Usage


Event = TextDelta | TextDone
