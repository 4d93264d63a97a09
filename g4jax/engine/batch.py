"""From a plan to the padded arrays of a step. Shapes, buckets and padding are decided here and nowhere else."""

import dataclasses

import numpy as np

from g4jax.engine.packing import Field, Fields, empty, pack
from g4jax.engine.request import Request
from g4jax.engine.scheduler import DecodePlan, PrefillPiece, PrefillPlan

STOP_IDS = 8
"""Stop ids per row that the device knows; a request with more is stopped by the host, a few tokens later."""


@dataclasses.dataclass(frozen=True)
class Shapes:
    """Everything that a compiled step's shapes depend on.

    Attributes:
        prefill_tokens: sizes of the packed prompt, ascending.
        prefill_rows: sequences in a prefill step.
        decode_rows: sizes of a decode batch, ascending.
        table_width: pages of the longest sequence; context length is never a shape.
        page_size: tokens of a page.
        history: tokens of the longest sequence, for penalties.
        decode_steps: tokens of one decode call.
    """

    prefill_tokens: tuple[int, ...]
    prefill_rows: int
    decode_rows: tuple[int, ...]
    table_width: int
    page_size: int
    history: int
    decode_steps: int


def bucket(sizes: tuple[int, ...], needed: int) -> int:
    """The smallest of `sizes` that holds `needed`."""
    return next(size for size in sizes if size >= needed)


def prefill_fields(tokens: int, rows: int, table_width: int) -> Fields:
    per_token = tuple(Field(name, (tokens,)) for name in ("tokens", "positions", "rows", "limits"))
    per_row = tuple(Field(name, (rows,)) for name in ("starts", "lengths", "contexts"))
    return per_token + per_row + _tables(rows, table_width)


def decode_fields(rows: int, table_width: int) -> Fields:
    per_row = tuple(Field(name, (rows,)) for name in ("tokens", "positions", "budgets"))
    return per_row + (Field("stop_ids", (rows, STOP_IDS)),) + _tables(rows, table_width)


def sampling_fields(rows: int) -> Fields:
    """What `g4jax.sample.logits.SamplingBatch` holds."""
    floats = ("temperature", "top_p", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty")
    return (
        Field("top_k", (rows,)),
        Field("seed", (rows,), np.uint32),
        Field("index", (rows,)),
        *(Field(name, (rows,), np.float32) for name in floats),
    )


def shaping_fields(rows: int, history: int) -> Fields:
    """What only requests with penalties or min_tokens need: the tokens so far, -1 behind them."""
    return (
        Field("history", (rows, history)),
        Field("prompt_lengths", (rows,)),
        Field("min_tokens", (rows,)),
        Field("ends", (rows, STOP_IDS)),
    )


def pack_prefill(plan: PrefillPlan, shapes: Shapes) -> tuple[int, np.ndarray]:
    """The bucket of the packed prompt and its input."""
    size = bucket(shapes.prefill_tokens, plan.num_tokens)
    fields = prefill_fields(size, shapes.prefill_rows, shapes.table_width)
    arrays = empty(fields)
    arrays["rows"][:] = -1
    at = 0
    for row, piece in enumerate(plan.pieces):
        _fill_piece(arrays, row, piece, at)
        at += piece.length
    return size, pack(fields, arrays)


def pack_decode(plan: DecodePlan, shapes: Shapes) -> tuple[int, np.ndarray]:
    """The bucket of the batch and its input; rows without a budget are padding."""
    size = bucket(shapes.decode_rows, len(plan.requests))
    fields = decode_fields(size, shapes.table_width)
    arrays = empty(fields)
    arrays["positions"][:] = -1
    arrays["stop_ids"][:] = -1
    for row, (request, budget) in enumerate(zip(plan.requests, plan.budgets, strict=True)):
        arrays["tokens"][row] = request.tokens[-1]
        arrays["positions"][row] = request.num_computed
        arrays["budgets"][row] = budget
        _fill_ids(arrays["stop_ids"], row, request)
        _fill_tables(arrays, row, request)
    return size, pack(fields, arrays)


def pack_sampling(requests: tuple[Request, ...], rows: int) -> np.ndarray:
    """Sampling parameters of `requests`; the rows behind them are greedy."""
    fields = sampling_fields(rows)
    arrays = empty(fields)
    arrays["top_p"][:] = arrays["repetition_penalty"][:] = 1.0
    for row, request in enumerate(requests):
        arrays["seed"][row] = request.seed
        arrays["index"][row] = len(request.output_ids)
        arrays["top_k"][row] = max(request.params.top_k, 0)
        for name in ("temperature", "top_p", "min_p"):
            arrays[name][row] = getattr(request.params, name)
        for name in ("repetition_penalty", "presence_penalty", "frequency_penalty"):
            arrays[name][row] = getattr(request.params, name)
    return pack(fields, arrays)


def pack_shaping(requests: tuple[Request, ...], rows: int, history: int) -> np.ndarray:
    """Token histories and minimum lengths of `requests`."""
    fields = shaping_fields(rows, history)
    arrays = empty(fields)
    arrays["history"][:] = -1
    arrays["ends"][:] = -1
    for row, request in enumerate(requests):
        arrays["history"][row, : request.num_tokens] = request.tokens
        arrays["prompt_lengths"][row] = len(request.prompt_ids)
        arrays["min_tokens"][row] = request.params.min_tokens
        _fill_ids(arrays["ends"], row, request)
    return pack(fields, arrays)


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


def _limits(positions: np.ndarray, spans: tuple[tuple[int, int], ...]) -> np.ndarray:
    """The last position that each query sees on sliding layers: its own, or the last of its image run."""
    limits = positions.copy()
    for start, end in spans:
        limits[(positions >= start) & (positions < end)] = end - 1
    return limits


def _fill_tables(arrays: dict[str, np.ndarray], row: int, request: Request) -> None:
    arrays["sliding_table"][row, : len(request.sliding_pages)] = request.sliding_pages
    arrays["full_table"][row, : len(request.full_pages)] = request.full_pages


def _fill_ids(ids: np.ndarray, row: int, request: Request) -> None:
    stops = sorted(request.stop_ids)[:STOP_IDS]
    ids[row, : len(stops)] = stops
