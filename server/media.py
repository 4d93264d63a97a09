"""The media in the messages of a chat, in the order in which a template writes their placeholders."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from g4jax.media.inputs import MediaKind
from server.conversation_schemas import ContentPart, Message
from server.media_schemas import (
    AudioUrlPart,
    Detail,
    ImageUrl,
    ImageUrlPart,
    InputAudioPart,
    MediaPart,
    MediaUrl,
    VideoUrlPart,
)

SOFT_TOKENS: dict[Detail, int] = {"low": 70, "high": 1120, "original": 1120}
"""Most tokens of an image by its detail."""


@dataclass(frozen=True)
class MediaSource:
    """A medium that is not read yet.

    url: where it is, or a data address that holds it. field: the field of the request that says so.
    max_soft_tokens: most tokens of an image; None: as many as the server gives.
    """

    kind: MediaKind
    url: str
    field: str
    max_soft_tokens: int | None = None


def media_kind(part: ContentPart) -> MediaKind | None:
    """Of a part of a message; None for a text."""
    match part:
        case ImageUrlPart():
            return "image"
        case VideoUrlPart():
            return "video"
        case AudioUrlPart() | InputAudioPart():
            return "audio"
    return None


def media_sources(messages: Sequence[Message], max_soft_tokens: int | None) -> list[MediaSource]:
    """All media of a chat. `max_soft_tokens` is for images that say nothing of their detail."""
    return [
        _source(part, f"messages[{i}].content[{j}]", max_soft_tokens)
        for i, message in enumerate(messages)
        for j, part in _media_parts(message)
    ]


def _media_parts(message: Message) -> Iterator[tuple[int, MediaPart]]:
    for j, part in enumerate(message.content if isinstance(message.content, list) else ()):
        if isinstance(part, MediaPart):
            yield j, part


def _source(part: MediaPart, where: str, max_soft_tokens: int | None) -> MediaSource:
    match part:
        case ImageUrlPart():
            detail = part.image_url.detail if isinstance(part.image_url, ImageUrl) else None
            budget = SOFT_TOKENS.get(detail, max_soft_tokens) if detail else max_soft_tokens
            return MediaSource("image", *_url(part.image_url, f"{where}.image_url"), budget)
        case VideoUrlPart():
            return MediaSource("video", *_url(part.video_url, f"{where}.video_url"))
        case AudioUrlPart():
            return MediaSource("audio", *_url(part.audio_url, f"{where}.audio_url"))
        case InputAudioPart():
            data = part.input_audio.data
            url = data if data.startswith("data:") else f"data:;base64,{data}"
            return MediaSource("audio", url, f"{where}.input_audio.data")


def _url(given: str | MediaUrl, field: str) -> tuple[str, str]:
    """The address, and the field that has it."""
    return (given, field) if isinstance(given, str) else (given.url, f"{field}.url")
