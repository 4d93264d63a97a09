"""Prefill attention on Hopper, with Pallas' Mosaic GPU backend: the tensor cores are fed by bulk copies of whole pages.

The Triton kernel reaches some 15 % of the tensor cores' rate there. At head_dim 512 a program makes half of the columns
of its rows' results, and both programs of the same rows compute the scores: the sums of all columns would not fit into
the registers, and that is a third of the work done twice.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jaxtyping import Array, Float, Int

from pallas_kernels.core import Unsupported, launcher, plgpu
from pallas_kernels.prefill_attention.mosaic_program import (
    COLUMNS,
    COMPUTING,
    KEYS,
    ROWS,
    Shape,
    Tile,
    bring,
    clear_nobodys,
)
from pallas_kernels.prefill_attention.mosaic_softmax import attend
from pallas_kernels.prefill_attention.tiles import cut, owned

MIN_TOKENS = 2048
"""Every size of a launch has kernels of its own, which take seconds of each start: only the size that long prompts are
cut into is worth them."""


class Ring(NamedTuple):
    """Columns of a block of keys or values, how many blocks are in flight, and whether warpgroups take turns.

    Turns need slots for all blocks of a tile: the later warpgroup still holds values when the other asks for keys.
    """

    width: int
    slots: int
    turns: bool


def choose(head_dim: int) -> Ring:
    """All blocks that fit beside the queries."""
    if head_dim > COLUMNS:
        return Ring(width=128, slots=6, turns=True)
    return Ring(width=min(head_dim, COLUMNS), slots=5, turns=True)


def prefill_attention(
    q: Float[Array, "T N H"],
    k_pages: Float[Array, "P K Z H"],
    v_pages: Float[Array, "P K Z H"],
    table: Int[Array, "R M"],
    starts: Int[Array, " R"],
    lengths: Int[Array, " R"],
    contexts: Int[Array, " R"],
    limits: Int[Array, " T"],
    *,
    window: int | None,
) -> Float[Array, "T N*H"]:
    """See `api.prefill_attention`; raises Unsupported for what is better left to the Triton kernel."""
    (num_heads, head_dim), (kv_heads, page_size) = q.shape[1:], k_pages.shape[1:3]
    if q.dtype != jnp.bfloat16 or k_pages.dtype != q.dtype:
        raise Unsupported(f"{k_pages.dtype} keys under {q.dtype} queries")
    if head_dim % 64 or head_dim > COLUMNS and head_dim != 2 * COLUMNS or KEYS % page_size or page_size % 8:
        raise Unsupported(f"heads of {head_dim} in pages of {page_size}")
    if num_heads // kv_heads not in (2, 4, 8, 16):
        raise Unsupported(f"{num_heads} heads over {kv_heads}")
    if q.shape[0] < MIN_TOKENS or q.shape[0] % 8:
        raise Unsupported(f"{q.shape[0]} tokens")
    if window is not None and kv_heads == 1:
        raise Unsupported("a window of one KV head makes few and short programs: Triton's are as fast")
    tokens = COMPUTING * ROWS * kv_heads // num_heads
    facts = plan(starts, lengths, contexts, limits, window=window, tokens=tokens, page_size=page_size)
    return launch(q, k_pages, v_pages, table, facts, window=window, ring=choose(head_dim))


@launcher("window", "tokens", "page_size")
def plan(
    starts: Int[Array, " R"],
    lengths: Int[Array, " R"],
    contexts: Int[Array, " R"],
    limits: Int[Array, " T"],
    *,
    window: int | None,
    tokens: int,
    page_size: int,
) -> Int[Array, "tiles 3 64"]:
    """The facts of each tile of `tokens` queries; the same in all layers of a kind, so XLA computes them once."""
    num_rows = limits.shape[0]
    tiles = cut(starts, lengths, num_rows, tokens, on_grid=True)
    cell, skipped = tiles.first // tokens, tiles.first % tokens
    token = jnp.arange(tokens, dtype=jnp.int32)
    token = jnp.clip(token, skipped[:, None], (skipped + jnp.maximum(tiles.count, 1) - 1)[:, None])
    rows = cell[:, None] * tokens + token  # the first and the last one stand in for those of others
    position = (contexts - lengths - starts)[tiles.sequence][:, None] + rows
    upper = jnp.minimum(limits[rows], contexts[tiles.sequence][:, None] - 1)
    lower = jnp.zeros_like(position) if window is None else jnp.maximum(position - window + 1, 0)
    begin, end = lower[:, 0], jnp.max(upper, axis=1) + 1
    origin = begin // page_size * page_size
    steps = (end - origin + KEYS - 1) // KEYS
    inner = jnp.minimum((lower[:, -1] - origin + KEYS - 1) // KEYS, steps)
    outer = jnp.clip((jnp.min(upper, axis=1) + 1 - origin) // KEYS, inner, steps)
    nobody = 1 - owned(starts, lengths, num_rows)
    nobody = jnp.pad(nobody, (0, tiles.first.shape[0] * tokens - num_rows)).reshape(-1, tokens)
    nobody = jnp.pad(nobody, ((0, 0), (0, 64 - tokens))).reshape(-1, 2, 32).astype(jnp.uint32)
    words = jnp.sum(nobody << jnp.arange(32, dtype=jnp.uint32), axis=2, dtype=jnp.uint32).astype(jnp.int32)
    tile = Tile(tiles.sequence, cell, skipped, tiles.count, origin, begin, end, inner, outer, steps, *words.T)
    scalars = jnp.pad(jnp.stack(tile, axis=1), ((0, 0), (0, ROWS - len(tile))))
    lower, upper = (jnp.tile(bound, ROWS // tokens) for bound in (lower, upper))
    return jnp.stack([lower, upper, scalars], axis=1)


@launcher("window", "ring", "interpret")
def launch(
    q: Float[Array, "T N H"],
    k_pages: Float[Array, "P K Z H"],
    v_pages: Float[Array, "P K Z H"],
    table: Int[Array, "R M"],
    facts: Int[Array, "tiles 3 64"],
    *,
    window: int | None,
    ring: Ring,
    interpret: bool = False,
) -> Float[Array, "T N*H"]:
    """A program for each tile of queries that `plan` tells of, KV head and 256 columns of the result."""
    num_rows, num_heads, head_dim = q.shape
    _, kv_heads, page_size, _ = k_pages.shape
    shape = Shape(
        num_heads // kv_heads, head_dim, page_size, table.shape[1], window, q.dtype, *ring, interpret=interpret
    )
    num_tiles = facts.shape[0]

    def prefill_attention(*refs: Any) -> None:
        ins, out_ref, scratch = refs[:5], refs[5], refs[6:]
        warpgroup = lax.axis_index("warpgroup")

        def place() -> tuple[Array, ...]:
            number, kv_head, part = (lax.axis_index(name) for name in ("tile", "kv_head", "part"))
            return num_tiles - 1 - number, kv_head, part  # the tiles with the most keys stand last: they start first

        @pl.when(warpgroup < COMPUTING)
        def _() -> None:
            plgpu.set_max_registers(240, action="increase")
            at = place()
            tile = Tile.read(ins[-1].at[at[0]])
            pl.when(tile.count > 0)(lambda: attend(out_ref, at, scratch, tile, shape))
            again = Tile.read(ins[-1].at[at[0]])
            some = (warpgroup == 0) & (again.nobodys | again.more_nobodys != 0)
            pl.when(some)(lambda: clear_nobodys(out_ref, at, scratch, again, shape))

        @pl.when(warpgroup == COMPUTING)
        def _() -> None:
            plgpu.set_max_registers(24, action="decrease")
            at = place()
            tile = Tile.read(ins[-1].at[at[0]])
            pl.when(tile.count > 0)(lambda: bring(ins, at, scratch, tile, shape))

    out = plgpu.kernel(
        prefill_attention,
        out_type=jax.ShapeDtypeStruct(q.shape, q.dtype),
        scratch_types=shape.scratch(),
        grid=(num_tiles, kv_heads, head_dim // shape.columns),
        grid_names=("tile", "kv_head", "part"),
        num_threads=COMPUTING + 1,
        thread_name="warpgroup",
        compiler_params=plgpu.CompilerParams(
            approx_math=True,
            lowering_semantics=plgpu.LoweringSemantics.Lane,
            reduction_scratch_bytes=0,  # a row lies in four lanes: sums and maxima of it need no memory
        ),
        interpret=plgpu.InterpretGPUParams() if interpret else None,
        kernel_name=f"prefill_attention_{head_dim}",
    )(q, k_pages, v_pages, table, facts)
    return out.reshape(num_rows, num_heads * head_dim)
