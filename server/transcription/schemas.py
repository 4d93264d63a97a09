"""The forms of /v1/audio/transcriptions and /v1/audio/translations."""

from typing import Literal, Self

from pydantic import ConfigDict, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from server.body import Body, wrong
from server.transcription.languages import language_name

ResponseFormat = Literal["json", "text", "srt", "verbose_json", "vtt"]


class SpeechForm(Body):
    """What both have. `prompt`: text that shows how names and terms are written.

    `language`, of what is spoken: a code such as "de", or its English name.
    """

    model_config = ConfigDict(strict=False)

    file: bytes
    model: str | None = None
    language: str | None = None
    prompt: str | None = None
    response_format: ResponseFormat = "json"
    temperature: float = Field(0.0, ge=0, le=2)
    stream: bool = False

    @field_validator("language")
    @classmethod
    def _by_name(cls, value: str | None) -> str | None:
        name = None if value is None else language_name(value)
        if value is not None and name is None:
            raise PydanticCustomError("language", "must be a code of ISO 639-1 or a language's English name")
        return name

    @model_validator(mode="after")
    def _streamed_or_not(self) -> Self:
        if self.stream and self.response_format not in ("json", "text"):
            raise wrong("stream", "needs the response_format json or text")
        return self


class TranscriptionForm(SpeechForm):
    """POST /v1/audio/transcriptions. A list is given by the name of its field with [] behind it, once for each."""

    timestamp_granularities: list[Literal["segment", "word"]] = []

    @model_validator(mode="after")
    def _granularities_are_there(self) -> Self:
        if "word" in self.timestamp_granularities:
            raise wrong("timestamp_granularities", "has the times of segments only, not of words")
        if self.timestamp_granularities and self.response_format != "verbose_json":
            raise wrong("timestamp_granularities", "needs the response_format verbose_json")
        return self


class TranslationForm(SpeechForm):
    """POST /v1/audio/translations: the text is English."""
