"""The media of a conversation, in the order in which a chat template writes their placeholders."""

from collections.abc import Mapping, Sequence
from typing import Any

from g4jax.media.inputs import MediaKind

KINDS: dict[str, MediaKind] = {
    "image": "image",
    "image_url": "image",
    "input_image": "image",
    "audio": "audio",
    "audio_url": "audio",
    "input_audio": "audio",
    "video": "video",
    "video_url": "video",
}
"""What a part of each type is."""


def media_parts(messages: Sequence[Mapping[str, Any]]) -> list[tuple[MediaKind, Any]]:
    """Kind and source of every part that is no text. The source is what the part holds under the name of its type,
    or, in OpenAI's forms, what stands there as `url` or as base64 `data`.

    Raises:
        ValueError: a part has nothing under the name of its type.
    """
    contents = (message.get("content") for message in messages)
    parts = (part for content in contents if isinstance(content, list) for part in content)
    return [(KINDS[part["type"]], _source(part)) for part in parts if part.get("type") in KINDS]


def _source(part: Mapping[str, Any]) -> Any:
    source = part.get(part["type"])
    if isinstance(source, Mapping):
        data = source.get("data")
        source = source.get("url") if data is None else f"data:;base64,{data}"
    if source is None:
        raise ValueError(f"a part of type {part['type']} has nothing under {part['type']!r}: put the medium there")
    return source
