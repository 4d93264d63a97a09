"""From images and sounds to the padded arrays of an encoder's step. Host code without jax."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from g4jax.engine.packing import Field, Fields, empty, pack
from g4jax.media.inputs import SoftInput

SEE_TOKENS = (72, 288, 576, 1152)
"""Soft tokens of a launch: one image of any budget (70, 140, 280, 560, 1120), or several smaller ones."""
HEAR_TOKENS = (128, 752)
"""Soft tokens of a launch: a short sound, or one of the longest (30 s)."""
LONGEST_INPUT = 1120
"""Most soft tokens that one input has."""


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
    def num_tokens(self) -> int:
        return sum(piece.num_tokens for piece in self.inputs)

    @property
    def is_heard(self) -> bool:
        return self.inputs[0].kind == "audio"


def launches(inputs: Sequence[tuple[SoftInput, np.ndarray]]) -> list[EncoderLaunch]:
    """Images packed in their order, as many as a launch holds; each sound goes alone."""
    seen = [pair for pair in inputs if pair[0].kind != "audio"]
    groups: list[list[tuple[SoftInput, np.ndarray]]] = [[pair] for pair in inputs if pair[0].kind == "audio"]
    open_group: list[tuple[SoftInput, np.ndarray]] = []
    for pair in seen:
        if open_group and sum(other.num_tokens for other, _ in open_group) + pair[0].num_tokens > SEE_TOKENS[-1]:
            groups.append(open_group)
            open_group = []
        open_group.append(pair)
    groups += [open_group] if open_group else []
    return [EncoderLaunch(*map(tuple, zip(*group, strict=True))) for group in groups]


def see_fields(tokens: int, shapes: EncoderShapes) -> Fields:
    """x, y: place of each patch in its image; first, last: the patches of the same image; rows: where tokens go."""
    patches = tokens * shapes.patches_per_token
    return (*(Field(name, (patches,)) for name in ("x", "y", "first", "last")), Field("rows", (tokens,)))


def hear_fields(tokens: int) -> Fields:
    """length: valid frames; rows: where tokens go."""
    return Field("length", ()), Field("rows", (tokens,))


def pack_seen(launch: EncoderLaunch, tokens: int, shapes: EncoderShapes) -> tuple[np.ndarray, np.ndarray]:
    """Pixels uint8 `[P, patch_size]` and the packed fields; padding sees nothing, and goes nowhere."""
    per_token = shapes.patches_per_token
    fields = see_fields(tokens, shapes)
    arrays = empty(fields)
    arrays["rows"][:] = shapes.slots
    pixels = np.zeros((tokens * per_token, shapes.patch_size), np.uint8)
    at = 0
    for piece, rows in zip(launch.inputs, launch.rows, strict=True):
        here = slice(at * per_token, (at + piece.num_tokens) * per_token)
        pixels[here] = piece.data
        arrays["x"][here], arrays["y"][here] = patch_places(piece.grid, per_token)
        arrays["first"][here], arrays["last"][here] = here.start, here.stop
        arrays["rows"][at : at + piece.num_tokens] = rows
        at += piece.num_tokens
    return pixels, pack(fields, arrays)


def pack_heard(launch: EncoderLaunch, tokens: int, shapes: EncoderShapes) -> tuple[np.ndarray, np.ndarray]:
    """Frames float32 `[F, frame_size]` and the packed fields."""
    (piece,), (rows,) = launch
    fields = hear_fields(tokens)
    arrays = empty(fields)
    arrays["length"][...] = len(piece.data)
    arrays["rows"][:] = shapes.slots
    arrays["rows"][: piece.num_tokens] = rows
    frames = np.zeros((tokens * shapes.frames_per_token, shapes.frame_size), np.float32)
    frames[: len(piece.data)] = piece.data
    return frames, pack(fields, arrays)


def patch_places(grid: tuple[int, int], per_token: int) -> tuple[np.ndarray, np.ndarray]:
    """Column and row, in patches, of the patches of `grid` rows and columns of soft tokens, token by token."""
    side = round(per_token**0.5)
    token, patch = np.divmod(np.arange(grid[0] * grid[1] * per_token), per_token)
    return side * (token % grid[1]) + patch % side, side * (token // grid[1]) + patch // side
