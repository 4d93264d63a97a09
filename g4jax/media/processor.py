"""Media of a conversation to the inputs of a checkpoint's encoders."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from g4jax.config import ConfigError, Gemma4Config
from g4jax.media.image import BUDGETS, CELL, decode_image, image_from_array, resized_patches, target_size, to_rgb
from g4jax.media.inputs import MediaError, MediaKind, Medium, SoftInput, content_digest
from g4jax.media.mel import RATE, log_mel, soft_tokens, waveform_frames
from g4jax.media.sound import decode_sound, resample
from g4jax.media.sources import read_source
from g4jax.media.video import frames_of_file, frames_of_list
from g4jax.tower_config import AnyAudio, AudioEmbedderConfig

Picture = bytes | np.ndarray | PIL.Image.Image
Sound = bytes | np.ndarray | tuple[np.ndarray, int]
Film = bytes | np.ndarray | Sequence[np.ndarray | PIL.Image.Image]


@dataclass(frozen=True)
class MediaProcessor:
    """Reads images, sounds and videos for one checkpoint. Safe to share between threads; the work is numpy's and
    Pillow's, mostly outside the interpreter's lock.

    max_soft_tokens: of an image, where the call does not say; `frame_soft_tokens`: of a frame of a video.
    num_frames: taken of a video at most.

    Every method raises MediaError for a medium that cannot be read, and for one that the model has no encoder for.
    """

    config: Gemma4Config
    max_soft_tokens: int = 280
    frame_soft_tokens: int = 70
    num_frames: int = 32

    @classmethod
    def from_folder(cls, folder: str | Path, config: Gemma4Config) -> "MediaProcessor":
        """With what the checkpoint's processor_config.json says, or its (video_)preprocessor_config.json.

        Raises:
            ConfigError: one of them is not JSON, or has a value that no Gemma 4 has.
        """
        both = _read(Path(folder) / "processor_config.json")
        image = both.get("image_processor") or _read(Path(folder) / "preprocessor_config.json")
        video = both.get("video_processor") or _read(Path(folder) / "video_preprocessor_config.json")
        return cls(
            config,
            max_soft_tokens=_setting(image, "max_soft_tokens", 280, BUDGETS),
            frame_soft_tokens=_setting(video, "max_soft_tokens", 70, BUDGETS),
            num_frames=_setting(video, "num_frames", 32, range(1, 1025)),
        )

    def has(self, kind: MediaKind) -> bool:
        """Whether the model takes media of this kind."""
        config = self.config
        if kind == "audio":
            return config.audio is not None and config.audio_token_id is not None
        return config.vision is not None and getattr(config, f"{kind}_token_id") is not None

    def image(self, source: Picture, max_soft_tokens: int | None = None, content: bytes | None = None) -> Medium:
        """source: a file's content (turned as its EXIF says), uint8 `[height, width(, 1 | 3 | 4)]`, or a PIL image.

        content: the file's `content_digest`, where it is known already.
        """
        self._require("image")
        budget = self._budget(max_soft_tokens, self.max_soft_tokens)
        data, grid = self._see(_picture(source), budget)
        # A file names its pixels; anything else has to be named by them.
        if isinstance(source, bytes):
            digest = _digest(b"file", budget, content or content_digest(source))
        else:
            digest = _digest(b"patches", grid, data)
        return Medium("image", (SoftInput("image", data, grid, grid[0] * grid[1], digest),))

    def video(self, source: Film, max_soft_tokens: int | None = None, fps: float | None = None) -> Medium:
        """source: a file's content, or the frames themselves, which follow each other at `fps` (24, if not given).

        `num_frames` of them are taken at even distances. `max_soft_tokens` counts for each of them.
        """
        self._require("video")
        budget = self._budget(max_soft_tokens, self.frame_soft_tokens)
        if isinstance(source, bytes):
            frames = frames_of_file(source, self.num_frames)
        else:
            frames = ((seconds, _picture(frame)) for seconds, frame in frames_of_list(source, self.num_frames, fps))
        inputs, timestamps = [], []
        for seconds, frame in frames:
            data, grid = self._see(frame, budget)
            inputs.append(SoftInput("video", data, grid, grid[0] * grid[1], _digest(b"patches", grid, data)))
            timestamps.append(seconds)
        return Medium("video", tuple(inputs), tuple(timestamps))

    def audio(self, source: Sound) -> Medium:
        """source: a file's content, mono samples at 16 kHz, or samples (`[n]` or `[n, channels]`) and their rate.

        What is beyond 30 seconds is not heard, as in the reference.
        """
        self._require("audio")
        data, tokens = _hear(_samples(source), self.config.audio)
        return Medium("audio", (SoftInput("audio", data, (0, 0), tokens, _digest(b"sound", data.shape, data)),))

    def load(self, kind: MediaKind, source: Any, max_soft_tokens: int | None = None) -> Medium:
        """As the method of this kind, and `source` may also be a path or a URL, which is opened without restrictions:
        for one's own programs, never for what others send.

        Raises:
            OSError: the file cannot be read.
        """
        content = read_source(source)
        if kind == "audio":
            return self.audio(content)
        return self.image(content, max_soft_tokens) if kind == "image" else self.video(content, max_soft_tokens)

    def _require(self, kind: MediaKind) -> None:
        if not self.has(kind):
            raise MediaError(f"is of a kind that this model does not take: it has no {kind} input")

    def _budget(self, asked: int | None, default: int) -> int:
        if asked is not None and asked not in BUDGETS:
            raise MediaError(f"max_soft_tokens is {asked}: must be one of {', '.join(map(str, BUDGETS))}")
        return asked or default

    def _see(self, image: PIL.Image.Image, budget: int) -> tuple[np.ndarray, tuple[int, int]]:
        """The patches, and the rows and columns of soft tokens."""
        height, width = target_size(image.height, image.width, budget)
        grid = (height // CELL, width // CELL)
        most = self.config.vision.most_cells if self.config.vision else 0
        if max(grid) > most:
            raise MediaError(
                f"is too elongated ({image.width} x {image.height}): the model places at most {most} tokens in a row; "
                "crop it or ask for fewer soft tokens"
            )
        return resized_patches(image, height, width), grid


def _picture(source: Picture) -> PIL.Image.Image:
    if isinstance(source, bytes):
        return decode_image(source)
    if isinstance(source, PIL.Image.Image):
        return to_rgb(source)
    return image_from_array(np.asarray(source))


def _samples(source: Sound) -> np.ndarray:
    if isinstance(source, bytes):
        return decode_sound(source)
    samples, rate = source if isinstance(source, tuple) else (source, RATE)
    return resample(np.asarray(samples), rate)


def _hear(samples: np.ndarray, config: AnyAudio | None) -> tuple[np.ndarray, int]:
    """The encoder's input and how many soft tokens come of it: without a tower one of each row."""
    if isinstance(config, AudioEmbedderConfig):
        frames = waveform_frames(samples, config.samples_per_token)
        return frames, len(frames)
    frames = log_mel(samples)
    return frames, soft_tokens(len(frames))


def _digest(kind: bytes, shape: int | tuple[int, ...], content: bytes | np.ndarray) -> bytes:
    state = hashlib.sha256(b"%b %b:" % (kind, repr(shape).encode()))
    state.update(content if isinstance(content, bytes) else content.data)
    return state.digest()[:16]


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        raise ConfigError(f"{path} is not JSON: {error}") from None
    return content if isinstance(content, dict) else {}


def _setting(raw: dict[str, Any], name: str, default: int, allowed: Sequence[int]) -> int:
    value = default if raw.get(name) is None else raw[name]
    if value not in allowed:
        what = "one of " + ", ".join(map(str, allowed)) if len(allowed) < 10 else f"{allowed[0]} to {allowed[-1]}"
        raise ConfigError(f"the processor's {name} is {value!r}: must be {what}")
    return value
