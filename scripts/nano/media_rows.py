"""Rows of conversations about pictures and sounds, with what the encoders take of them."""

import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import PIL.Image

from g4jax.chat.soft_tokens import expand
from g4jax.chat.template import ChatTemplate, shipped_source
from g4jax.chat.tokenizer import Tokenizer
from g4jax.media.image import CELL, resized_patches, target_size
from g4jax.media.inputs import Medium, SoftInput
from g4jax.media.mel import log_mel, soft_tokens
from scripts.nano import rendering, senses, shape
from scripts.nano.tasks import Sample

IMAGE_TOKENS = shape.IMAGE_TOKENS
PATCHES = IMAGE_TOKENS * 9
PLACEHOLDERS = ("<|image|>", "<|video|>", "<|audio|>")
CLIP_FRAMES = 424
CLIP_TOKENS = CLIP_FRAMES // 4
IMAGES_A_ROW, CLIPS_A_ROW = 2.5, 0.85
"""Room for pictures and sounds in a batch, about what its rows have place for."""


class MediaRows(NamedTuple):
    """Arrays of numpy or, in a compiled step, of jax: R rows of T tokens, I pictures, C sounds.

    tokens, segments, replies: uint16 [R, T], see `packing.Rows`; the pad token stands where an embedding goes.
    source: int32 [R, T], which embedding goes there: 0 none, then 70 for each picture, then 106 for each sound.
    pixels: uint8 [I, 630, 768]; grids: int32 [I, 2], rows and columns of soft tokens; (0, 0) is an empty place.
    frames: float16 [C, 424, 128]; lengths: int32 [C].
    """

    tokens: Any
    segments: Any
    replies: Any
    source: Any
    pixels: Any
    grids: Any
    frames: Any
    lengths: Any


class Size(NamedTuple):
    """What of everything a batch has."""

    rows: int
    length: int
    images: int
    clips: int

    @classmethod
    def of(cls, rows: int, length: int) -> "Size":
        return cls(rows, length, max(shape.VIDEO_FRAMES, int(rows * IMAGES_A_ROW)), int(rows * CLIPS_A_ROW))

    def fields(self) -> list[tuple[tuple[int, ...], Any]]:
        """Shape and dtype of every array of `MediaRows`."""
        text = (self.rows, self.length)
        return [
            *[(text, np.uint16)] * 3,
            (text, np.int32),
            ((self.images, PATCHES, 768), np.uint8),
            ((self.images, 2), np.int32),
            ((self.clips, CLIP_FRAMES, 128), np.float16),
            ((self.clips,), np.int32),
        ]

    def empty(self) -> MediaRows:
        return MediaRows(*(np.zeros(dims, dtype) for dims, dtype in self.fields()))


class Encoded(NamedTuple):
    """A conversation as tokens; `replies` is 1 on all that the model writes, in earlier turns too."""

    tokens: list[int]
    replies: list[int]
    fills: list[tuple[int, SoftInput]]


class MediaEncoder:
    """Conversations to tokens and encoder inputs, as a server does it, with the tokenizer of `folder`."""

    def __init__(self, folder: Path):
        self.tokenizer = Tokenizer(folder)
        self.template = ChatTemplate(shipped_source("small"), self.tokenizer)

    def __call__(self, sample: Sample) -> Encoded:
        media = iter([medium(part) for part in senses.media_parts(sample.messages)])
        encoded = Encoded([], [], [])
        for prompt, reply in turns(sample, self.template):
            ids = self.tokenizer.encode_rendered(prompt)
            mine = list(itertools.islice(media, sum(map(prompt.count, PLACEHOLDERS))))
            ids, placed = expand(ids, mine, self.tokenizer)
            for fill in placed:
                encoded.fills.append((len(encoded.tokens) + fill.start, fill.input))
                ids[fill.start : fill.end] = [0] * fill.input.num_tokens
            written = self.tokenizer.encode_rendered(reply)
            encoded.tokens.extend([*ids, *written])
            encoded.replies.extend([*[0] * len(ids), *[1] * len(written)])
        return encoded


def medium(part: senses.Part) -> Medium:
    """As `g4jax.media.processor` gives it, but for the digest, which training has no use for."""
    if part["type"] == "audio":
        frames = log_mel(part["audio"][0])
        return Medium("audio", (SoftInput("audio", frames, (0, 0), soft_tokens(len(frames)), b""),))
    if part["type"] == "video":
        times = tuple(index / part["fps"] for index in range(len(part["video"])))
        return Medium("video", tuple(_seen(frame, "video") for frame in part["video"]), times)
    return Medium("image", (_seen(part["image"], "image"),))


def _seen(image: PIL.Image.Image, kind: Literal["image", "video"]) -> SoftInput:
    height, width = target_size(image.height, image.width, IMAGE_TOKENS)
    grid = (height // CELL, width // CELL)
    return SoftInput(kind, resized_patches(image, height, width), grid, grid[0] * grid[1], b"")


def turns(sample: Sample, template: ChatTemplate) -> Iterator[tuple[str, str]]:
    """What stands before each answer, from the one before it on, and the answer."""
    seen = ""
    for index, message in enumerate(sample.messages):
        if message["role"] == "assistant":
            prompt = template.render(sample.messages[:index], None)
            reply = f"{message['content']}<turn|>"
            yield prompt.removeprefix(seen), reply
            seen = prompt + reply
    prompt = rendering.prompt(sample, template)
    if not prompt.startswith(seen):
        raise AssertionError(f"the template does not repeat what came before: {seen!r} and then {prompt!r}")
    yield prompt.removeprefix(seen), rendering.reply(sample, prompt)


class Filler:
    """Puts conversations into one batch as long as there is room."""

    def __init__(self, size: Size):
        self.size = size
        self.batch = size.empty()
        self._ends = [0] * size.rows
        self._counts = [0] * size.rows
        self.images = self.clips = 0

    def add(self, encoded: Encoded) -> tuple[int, int] | None:
        """Row and first place of the conversation, or None where it does not fit."""
        images = sum(piece.kind != "audio" for _, piece in encoded.fills)
        size = len(encoded.tokens)
        fitting = [row for row, end in enumerate(self._ends) if end + size <= self.size.length]
        too_many = self.images + images > self.size.images
        if not fitting or too_many or self.clips + len(encoded.fills) - images > self.size.clips:
            return None
        row = max(fitting, key=self._ends.__getitem__)
        start, end = self._ends[row], self._ends[row] + size
        self._counts[row] += 1
        self._ends[row] = end
        self.batch.tokens[row, start:end] = encoded.tokens
        self.batch.replies[row, start:end] = encoded.replies
        self.batch.segments[row, start:end] = self._counts[row]
        for place, piece in encoded.fills:
            fill = slice(start + place, start + place + piece.num_tokens)
            self.batch.source[row, fill] = self._store(piece) + np.arange(piece.num_tokens)
        return row, start

    def _store(self, piece: SoftInput) -> int:
        """Takes the input of an encoder over; gives the index of its first embedding."""
        if piece.kind == "audio":
            index, self.clips = self.clips, self.clips + 1
            self.batch.frames[index, : len(piece.data)] = piece.data
            self.batch.lengths[index] = len(piece.data)
            return 1 + self.size.images * IMAGE_TOKENS + index * CLIP_TOKENS
        index, self.images = self.images, self.images + 1
        self.batch.pixels[index, : len(piece.data)] = piece.data
        self.batch.grids[index] = piece.grid
        return 1 + index * IMAGE_TOKENS


def media_rows(
    encoder: MediaEncoder, seed: int, size: Size, accuracy: Callable[[], senses.Accuracy]
) -> Iterator[MediaRows]:
    """Training batches for ever, pictures and sounds in turn, more of what `accuracy` says is not known yet."""
    rng = random.Random(seed)
    while True:
        filler = Filler(size)
        refused, known = 0, accuracy()
        while refused < 4:
            seeing = filler.images * CLIPS_A_ROW <= filler.clips * IMAGES_A_ROW
            sample = (senses.any_image_sample if seeing else senses.any_audio_sample)(rng, known)
            refused += filler.add(encoder(sample)) is None
        yield filler.batch


def judged_rows(
    encoder: MediaEncoder, samples: Sequence[Sample], size: Size
) -> tuple[list[MediaRows], list[tuple[str, int, int, int, int]]]:
    """Batches of all samples, and of each its ability, batch, row and where its reply stands (end exclusive)."""
    filler, where = Filler(size), []
    batches = [filler.batch]
    for sample in samples:
        encoded = encoder(sample)
        if (place := filler.add(encoded)) is None:
            filler = Filler(size)
            batches.append(filler.batch)
            place = filler.add(encoded)
            assert place is not None, "a single conversation is longer than a row"
        row, start = place
        first = start + encoded.replies.index(1)
        where.append((sample.ability, len(batches) - 1, row, first, first + sum(encoded.replies)))
    return batches, where
