"""The parts of a message that are no text, in the words of OpenAI and of vLLM."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Tag

from server.body import Body

Detail = Literal["auto", "none", "low", "high", "original"]
"""How closely an image is looked at; auto and none leave it to the server, original is as close as can be."""

MaxSoftTokens = Literal[70, 140, 280, 560, 1120]
"""Most tokens of one image."""


class MediaUrl(Body):
    """An http, https or data address, or a file address where the server allows its folder."""

    url: str


class ImageUrl(MediaUrl):
    detail: Detail | None = None


def _address_or_object(value: Any) -> str:
    return "<address>" if isinstance(value, str) else "<object>"


AnyUrl = Annotated[
    Annotated[str, Tag("<address>")] | Annotated[MediaUrl, Tag("<object>")], Discriminator(_address_or_object)
]
AnyImageUrl = Annotated[
    Annotated[str, Tag("<address>")] | Annotated[ImageUrl, Tag("<object>")], Discriminator(_address_or_object)
]


class InputAudio(Body):
    """`data` is base64. What it holds is seen in the data, so `format` says nothing new."""

    data: str
    format: str | None = None


class ImageUrlPart(Body):
    type: Literal["image_url"]
    image_url: AnyImageUrl


class VideoUrlPart(Body):
    type: Literal["video_url"]
    video_url: AnyUrl


class AudioUrlPart(Body):
    type: Literal["audio_url"]
    audio_url: AnyUrl


class InputAudioPart(Body):
    type: Literal["input_audio"]
    input_audio: InputAudio


MediaPart = ImageUrlPart | VideoUrlPart | AudioUrlPart | InputAudioPart


class MediaWishes(Body):
    """vLLM's place for `max_soft_tokens`."""

    max_soft_tokens: MaxSoftTokens | None = None
