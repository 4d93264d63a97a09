"""From images and sounds to the padded arrays of an encoder's step. Host code without jax."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from g4jax.engine.batch import bucket
from g4jax.engine.packing import Field, Fields, empty, pack
from g4jax.media.inputs import SoftInput

SEE_SLOTS = {70: (4, 16), 280: (1, 2, 4), 1120: (1,)}
"""Soft tokens of a slot, and how many slots a launch may have. An image takes one; 70 to 1120 are its budgets."""
HEAR_TOKENS = (128, 752)
"""Soft tokens of a launch: a short sound, or one of the longest (30 s)."""
LONGEST_INPUT = 1120
"""Most soft tokens that one input has."""

Key = tuple[Any, ...]
"""A program: ("see", tokens of a slot, slots) or ("hear", tokens)."""


@dataclass(frozen=True)
class EncoderShapes:
    """What the encoders' steps depend on.

    Attributes:
        slots: rows of the store of soft tokens.
        patches_per_token, patch_size: of what is seen; 0 for a model that sees nothing.
        frames_per_token, frame_size: of what is heard; 0 for a model that hears nothing.
    """

    slots: int
    patches_per_token: int
    patch_size: int
    frames_per_token: int
    frame_size: int


class EncoderLaunch(NamedTuple):
    """`inputs` go together, and what they make goes to `rows`."""

    inputs: tuple[SoftInput, ...]
    rows: tuple[np.ndarray, ...]

    @property
    def is_heard(self) -> bool:
        return self.inputs[0].kind == "audio"

    @property
    def key(self) -> Key:
        """The program that takes it."""
        if self.is_heard:
            return ("hear", bucket(HEAR_TOKENS, self.inputs[0].num_tokens))
        tokens = _slot(self.inputs[0])
        return ("see", tokens, bucket(SEE_SLOTS[tokens], len(self.inputs)))


def launches(inputs: Sequence[tuple[SoftInput, np.ndarray]]) -> list[EncoderLaunch]:
    """Each sound alone; images whose slots have one size together, as many as a launch holds."""
    groups = [[pair] for pair in inputs if pair[0].kind == "audio"]
    for tokens, slots in SEE_SLOTS.items():
        seen = [pair for pair in inputs if pair[0].kind != "audio" and _slot(pair[0]) == tokens]
        groups += [seen[start : start + slots[-1]] for start in range(0, len(seen), slots[-1])]
    return [EncoderLaunch(*map(tuple, zip(*group, strict=True))) for group in groups]


def _slot(piece: SoftInput) -> int:
    return bucket(tuple(SEE_SLOTS), piece.num_tokens)


def see_fields(tokens: int, slots: int) -> Fields:
    """grids: rows and columns of soft tokens of the image in each slot; rows: where tokens go."""
    return Field("grids", (slots, 2)), Field("rows", (slots * tokens,))


def hear_fields(tokens: int) -> Fields:
    """length: valid frames; rows: where tokens go."""
    return Field("length", ()), Field("rows", (tokens,))


def pack_seen(launch: EncoderLaunch, shapes: EncoderShapes) -> tuple[np.ndarray, np.ndarray]:
    """Pixels uint8 `[P, patch_size]` and the packed fields; padding is seen by nobody, and goes nowhere."""
    _, tokens, slots = launch.key
    fields = see_fields(tokens, slots)
    arrays = empty(fields)
    arrays["rows"][:] = shapes.slots
    pixels = np.empty((slots, tokens * shapes.patches_per_token, shapes.patch_size), np.uint8)
    for slot, (piece, rows) in enumerate(zip(launch.inputs, launch.rows, strict=True)):
        arrays["grids"][slot] = piece.grid
        arrays["rows"][slot * tokens :][: piece.num_tokens] = rows
        pixels[slot, : len(piece.data)] = piece.data
        pixels[slot, len(piece.data) :] = 0
    pixels[len(launch.inputs) :] = 0
    return pixels.reshape(-1, shapes.patch_size), pack(fields, arrays)


def pack_heard(launch: EncoderLaunch, shapes: EncoderShapes) -> tuple[np.ndarray, np.ndarray]:
    """Frames float32 `[F, frame_size]` and the packed fields."""
    (piece,), (rows,) = launch
    _, tokens = launch.key
    fields = hear_fields(tokens)
    arrays = empty(fields)
    arrays["length"][...] = len(piece.data)
    arrays["rows"][:] = shapes.slots
    arrays["rows"][: piece.num_tokens] = rows
    frames = np.zeros((tokens * shapes.frames_per_token, shapes.frame_size), np.float32)
    frames[: len(piece.data)] = piece.data
    return frames, pack(fields, arrays)
