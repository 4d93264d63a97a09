"""What the encoders take of an image, a video or a sound, and what of a prompt each of them fills."""

import hashlib
from dataclasses import dataclass
from typing import Literal

import numpy as np

MediaKind = Literal["image", "video", "audio"]


class MediaError(ValueError):
    """A medium that cannot be read; the message says what is wrong with it and what would be right."""


def content_digest(content: bytes) -> bytes:
    """32 bytes that name a file's content. SHA-256, for which processors have instructions."""
    return hashlib.sha256(content).digest()


@dataclass(frozen=True, eq=False)
class SoftInput:
    """One run of an encoder: an image, one frame of a video, or a piece of sound.

    data: of an image or a frame uint8 `[9 n, 768]`, the patches of its n soft tokens, 9 to each: tokens in raster order
        and so the patches of a token; a patch is row, column, RGB. Of a sound float32 `[v, 128]` log-mel frames, or
        `[n, 640]` samples for a model without an audio tower.
    grid: rows and columns of soft tokens; (0, 0) for a sound.
    num_tokens: soft tokens that come out.
    digest: 16 bytes; equal ones mean equal soft tokens.
    """

    kind: MediaKind
    data: np.ndarray
    grid: tuple[int, int]
    num_tokens: int
    digest: bytes


@dataclass(frozen=True, eq=False)
class Medium:
    """What one placeholder of a chat template stands for. `timestamps`: the seconds of a video's frames."""

    kind: MediaKind
    inputs: tuple[SoftInput, ...]
    timestamps: tuple[float, ...] = ()


@dataclass(frozen=True, eq=False)
class PlacedInput:
    """`input` gives the embeddings of the tokens `start` to `end` of a prompt."""

    start: int
    input: SoftInput

    @property
    def end(self) -> int:
        return self.start + self.input.num_tokens
