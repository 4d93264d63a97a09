"""Decode attention of many rows on Hopper, with Pallas' Mosaic GPU backend: whole pages come by bulk copies.

The Triton kernels copy 16 bytes a thread and reach some 60 % of the bandwidth there. Norm, RoPE and cache write are a
launch of their own here.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jaxtyping import Array, Float, Int

from pallas_kernels.core import Unsupported, launcher, plgpu
from pallas_kernels.decode_attention.combine import combine
from pallas_kernels.decode_attention.mosaic_program import NARROW, Shape, attend, bring
from pallas_kernels.decode_attention.reference import slot_of
from pallas_kernels.decode_attention.tiling import MANY_PROGRAMS, Ends, Tiling, span_of
from pallas_kernels.norm.reference import Splits
from pallas_kernels.qkv.triton import qkv_rope_write

ENDS = Ends(newest=-1, cached=0)
KEYS = 64
"""Of a tile: the rows of a warpgroup's product."""


def decode_attention(
    q: Float[Array, "B N H"],
    k_pages: Float[Array, "P K Z H"],
    v_pages: Float[Array, "P K Z H"],
    table: Int[Array, "B M"],
    lengths: Int[Array, " B"],
    *,
    window: int | None,
) -> Float[Array, "B N*H"]:
    """See `api.decode_attention`; raises Unsupported for what is better left to the Triton kernels."""
    check(q.shape[1], q.shape[0], q.dtype, k_pages)
    return launch(q, k_pages, v_pages, table, lengths, window=window, **choose(window)._asdict())


def attend_decode(
    qkv: Splits,
    q_norm: Float[Array, " H"],
    k_norm: Float[Array, " H"] | None,
    cos: Float[Array, "B H//2"],
    sin: Float[Array, "B H//2"],
    k_pages: Float[Array, "P K Z H"],
    v_pages: Float[Array, "P K Z H"],
    table: Int[Array, "B M"],
    positions: Int[Array, " B"],
    *,
    num_heads: int,
    k_eq_v: bool,
    window: int | None,
    eps: float,
) -> tuple[Float[Array, "B {num_heads}*H"], Float[Array, "P K Z H"], Float[Array, "P K Z H"]]:
    """See `api.attend_decode`; raises Unsupported likewise."""
    check(num_heads, len(positions), q_norm.dtype, k_pages)
    settings = {"num_heads": num_heads, "k_eq_v": k_eq_v, "eps": eps, "interpret": False}
    page, slot = slot_of(positions, table, k_pages.shape[2])
    q, k_pages, v_pages = qkv_rope_write(qkv, q_norm, k_norm, cos, sin, k_pages, v_pages, page, slot, **settings)
    return decode_attention(q, k_pages, v_pages, table, positions + 1, window=window), k_pages, v_pages


def check(num_heads: int, rows: int, dtype: Any, pages: Float[Array, "P K Z H"]) -> None:
    _, kv_heads, page_size, head_dim = pages.shape
    if rows * kv_heads < MANY_PROGRAMS:
        raise Unsupported(f"{rows} rows of {kv_heads} KV heads do not fill the device without splits")
    if dtype != jnp.bfloat16 or pages.dtype != dtype:
        raise Unsupported(f"{pages.dtype} keys under {dtype} queries")
    if num_heads // kv_heads > NARROW or num_heads < NARROW or head_dim % 64 or KEYS % page_size or page_size % 8:
        raise Unsupported(f"{num_heads} heads of {head_dim} over {kv_heads} in pages of {page_size}")


class Plan(NamedTuple):
    tiling: Tiling
    slots: int
    """Of the ring, 32 KB each: two programs of three, or one of four, are on a processor."""


def choose(window: int | None) -> Plan:
    """A window is short and needs no splits; elsewhere a long row can spread, from 256 keys on."""
    if window is not None:
        return Plan(Tiling(KEYS, splits=1, least=1, num_warps=4, num_stages=1), slots=3)
    return Plan(Tiling(KEYS, splits=8, least=4, num_warps=4, num_stages=1), slots=4)


@launcher("window", "tiling", "slots", "interpret")
def launch(
    q: Float[Array, "B N H"],
    k_pages: Float[Array, "P K Z H"],
    v_pages: Float[Array, "P K Z H"],
    table: Int[Array, "B M"],
    lengths: Int[Array, " B"],
    *,
    window: int | None,
    tiling: Tiling,
    slots: int,
    interpret: bool = False,
) -> Float[Array, "B N*H"]:
    """One program for each row, KV head and split; then the splits are joined."""
    rows, num_heads, head_dim = q.shape
    _, kv_heads, page_size, _ = k_pages.shape
    group, splits = num_heads // kv_heads, tiling.splits
    shape = Shape(group, head_dim, page_size, table.shape[1], window, q.dtype, slots, tiling)
    outputs = [jax.ShapeDtypeStruct((rows, splits, kv_heads, group, head_dim), q.dtype)]
    if splits > 1:
        outputs.append(jax.ShapeDtypeStruct((rows, splits, kv_heads, NARROW), jnp.float32))

    def decode_attention(*refs: Any) -> None:
        ins, lengths_ref, outs, scratch = refs[:4], refs[4], refs[5 : 5 + len(outputs)], refs[5 + len(outputs) :]
        at = tuple(lax.axis_index(name) for name in ("row", "kv_head", "split"))
        span = span_of(lengths_ref[at[0]], ENDS, window, tiling)
        busy = (at[2] < span.active) | (at[2] == 0)  # A padding row gets its zeros from the first split.
        warpgroup = lax.axis_index("warpgroup")
        pl.when(busy & (warpgroup == 0))(lambda: attend(outs, at, scratch, span, shape))
        pl.when(busy & (warpgroup == 1))(lambda: bring(ins, at, scratch, span, shape))

    out = plgpu.kernel(
        decode_attention,
        out_type=outputs,
        scratch_types=shape.scratch(),
        grid=(splits, kv_heads, rows),
        grid_names=("split", "kv_head", "row"),
        num_threads=2,
        thread_name="warpgroup",
        compiler_params=plgpu.CompilerParams(approx_math=True, lowering_semantics=plgpu.LoweringSemantics.Lane),
        interpret=plgpu.InterpretGPUParams() if interpret else None,
    )(q, k_pages, v_pages, table, lengths)
    if splits == 1:
        return out[0].reshape(rows, -1)
    partial = out[0].reshape(rows, splits, num_heads, head_dim)
    return combine(partial, out[1], lengths, ends=ENDS, window=window, tiling=tiling, interpret=interpret)
