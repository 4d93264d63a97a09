"""From a plan to the padded arrays of a step. Shapes, buckets and padding are decided here and nowhere else."""

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from g4jax.engine.packing import Field, Fields, empty, pack
from g4jax.engine.plan import DRAWN, DecodePlan, PrefillPiece, PrefillPlan
from g4jax.engine.request import Request

STOP_IDS = 8
"""Stop ids per row that the device knows; a request with more is stopped by the host, a few tokens later."""

Slots = Mapping[bytes, np.ndarray]
"""Digest of an encoder's input -> the rows of its soft tokens."""


class Early(NamedTuple):
    """The first layers of a prompt, a program of their own: the device runs it while the host launches the rest.

    Of each token they hand on `hidden` numbers and `per_layer`, those of all layers (0: the model has none).
    """

    layers: int
    hidden: int
    per_layer: int


@dataclasses.dataclass(frozen=True)
class Shapes:
    """Everything that a compiled step's shapes depend on.

    Attributes:
        prefill_tokens: sizes of the packed prompt, ascending; score_tokens: the one of them that prompts are scored in;
            mixed_tokens: those in which prompts go with a decode batch of the largest size.
        prefill_rows: sequences in a prefill step.
        decode_rows: sizes of a decode batch, ascending; rich_rows: fewer, for requests that ask for more than a draw.
        table_width: pages of the longest sequence; context length is never a shape.
        page_size: tokens of a page.
        decode_steps: tokens of one decode call.
        early: what of a prompt is launched first.
        soft_slots: rows of the store of soft tokens; 0 for a model without encoders.
        pad_id: what stands where a soft token replaces the token.
    """

    prefill_tokens: tuple[int, ...]
    score_tokens: int
    prefill_rows: int
    decode_rows: tuple[int, ...]
    rich_rows: tuple[int, ...]
    table_width: int
    page_size: int
    decode_steps: int
    early: Early
    mixed_tokens: tuple[int, ...] = ()
    soft_slots: int = 0
    pad_id: int = 0


def bucket(sizes: tuple[int, ...], needed: int) -> int:
    """The smallest of `sizes` that holds `needed`."""
    return next(size for size in sizes if size >= needed)


def prefill_fields(tokens: int, shapes: Shapes) -> Fields:
    """soft: where the embedding of a token lies in the store of soft tokens; -1 for an ordinary one."""
    names = ("tokens", "positions", "rows", "limits", *(("soft",) if shapes.soft_slots else ()))
    per_token = tuple(Field(name, (tokens,)) for name in names)
    per_row = tuple(Field(name, (shapes.prefill_rows,)) for name in ("starts", "lengths", "contexts"))
    return per_token + per_row + _tables(shapes.prefill_rows, shapes.table_width)


def score_fields(tokens: int, shapes: Shapes) -> Fields:
    """Those of a prefill, and the token that follows each."""
    return prefill_fields(tokens, shapes) + _targets(tokens)


def decode_fields(rows: int, table_width: int) -> Fields:
    per_row = tuple(Field(name, (rows,)) for name in ("tokens", "positions", "budgets", "sources"))
    return per_row + (Field("stop_ids", (rows, STOP_IDS)),) + _tables(rows, table_width)


def pack_prefill(plan: PrefillPlan, shapes: Shapes, size: int, slots: Slots) -> np.ndarray:
    """The input of a packed prompt of `size` tokens; `slots` holds the outputs of all inputs of the plan."""
    fields = prefill_fields(size, shapes)
    arrays = empty(fields)
    arrays["rows"][:] = -1
    if shapes.soft_slots:
        arrays["soft"][:] = -1
    at = 0
    for row, piece in enumerate(plan.pieces):
        _fill_piece(arrays, row, piece, at)
        _fill_soft(arrays, piece, at, shapes.pad_id, slots)
        at += piece.length
    return pack(fields, arrays)


def pack_score(plan: PrefillPlan, shapes: Shapes, slots: Slots) -> np.ndarray:
    """The input of a step that scores prompts."""
    targets, at = np.zeros(shapes.score_tokens, np.int32), 0
    for piece in plan.pieces:
        following = piece.request.tokens[piece.start + 1 : piece.end + 1]
        targets[at : at + len(following)] = following
        at += piece.length
    prompts = pack_prefill(plan, shapes, shapes.score_tokens, slots)
    return np.concatenate([prompts, pack(_targets(shapes.score_tokens), {"targets": targets})])


def pack_decode(plan: DecodePlan, shapes: Shapes, size: int) -> np.ndarray:
    """The input of a batch of `size` rows; those without a budget are padding."""
    fields = decode_fields(size, shapes.table_width)
    arrays = empty(fields)
    arrays["positions"][:] = -1
    arrays["stop_ids"][:] = -1
    arrays["sources"][:] = -1
    count = len(plan.requests)
    positions = [request.next_position - budget for request, budget in zip(plan.requests, plan.budgets, strict=True)]
    sources = [source if source < DRAWN else shapes.decode_rows[-1] + source - DRAWN for source in plan.sources]
    arrays["tokens"][:count] = [request.tokens[-1] for request in plan.requests]
    arrays["positions"][:count], arrays["sources"][:count] = positions, sources
    arrays["budgets"][:count] = plan.budgets
    for row, request in enumerate(plan.requests):
        fill_stop_ids(arrays["stop_ids"], row, request)
        _fill_tables(arrays, row, request)
    return pack(fields, arrays)


def _targets(tokens: int) -> Fields:
    return (Field("targets", (tokens,)),)


def _tables(rows: int, table_width: int) -> Fields:
    return Field("sliding_table", (rows, table_width)), Field("full_table", (rows, table_width))


def _fill_piece(arrays: dict[str, np.ndarray], row: int, piece: PrefillPiece, at: int) -> None:
    here = slice(at, at + piece.length)
    positions = np.arange(piece.start, piece.end)
    arrays["tokens"][here] = piece.request.tokens[piece.start : piece.end]
    arrays["positions"][here] = positions
    arrays["rows"][here] = row
    arrays["limits"][here] = _limits(positions, piece.request.spans)
    arrays["starts"][row], arrays["lengths"][row], arrays["contexts"][row] = at, piece.length, piece.end
    _fill_tables(arrays, row, piece.request)


def _fill_soft(arrays: dict[str, np.ndarray], piece: PrefillPiece, at: int, pad_id: int, slots: Slots) -> None:
    for placed in piece.media:
        start, end = max(placed.start, piece.start), min(placed.end, piece.end)
        here = slice(at + start - piece.start, at + end - piece.start)
        arrays["tokens"][here] = pad_id
        arrays["soft"][here] = slots[placed.input.digest][start - placed.start : end - placed.start]


def _limits(positions: np.ndarray, spans: tuple[tuple[int, int], ...]) -> np.ndarray:
    """The last position that each query sees on sliding layers: its own, or the last of its image run."""
    limits = positions.copy()
    for start, end in spans:
        limits[(positions >= start) & (positions < end)] = end - 1
    return limits


def _fill_tables(arrays: dict[str, np.ndarray], row: int, request: Request) -> None:
    arrays["sliding_table"][row, : len(request.sliding_pages)] = request.sliding_pages
    arrays["full_table"][row, : len(request.full_pages)] = request.full_pages


def fill_stop_ids(ids: np.ndarray, row: int, request: Request) -> None:
    """Row `row` of `ids` [rows, STOP_IDS]."""
    if not request.stop_ids:
        return
    stops = sorted(request.stop_ids)[:STOP_IDS]
    ids[row, : len(stops)] = stops
