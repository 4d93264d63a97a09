"""Norm, RoPE and cache write as one Pallas kernel: a program takes one token and a few of its heads.

Nothing is shared between programs, so the grid is simply tokens x blocks of heads; the blocks of query heads come
first, then those of KV heads, which write k and v straight into their page.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plt
from jaxtyping import Array, Float, Int

from pallas_kernels.core import Unsupported, launcher

ANY = pl.BlockSpec(memory_space=pl.ANY)
ELEMENTS = 2048
"""Values per program: 16 a thread with 4 warps."""


class RawHeads(NamedTuple):
    """Heads [R, H] as they stand in memory, beside each value its partner in the rotation, and the norm's weights.

    Loads come before the first reduction, whatever they are for: a program then waits for memory once.
    """

    x: Array
    partner: Array
    weights: tuple[Array, Array] | None


def load_heads(ref: Any, row: Array, head: Array, weight_ref: Any | None, head_dim: int) -> RawHeads:
    """Heads `head` [R] of one row of `ref` [T, C]."""
    columns = lax.iota(jnp.int32, head_dim), _exchanged(head_dim)
    first = head[:, None] * head_dim
    x, partner = (plt.load(ref.at[row, first + c[None]]) for c in columns)
    if weight_ref is None:
        return RawHeads(x, partner, None)
    weight, other = (plt.load(weight_ref.at[c]) for c in columns)
    return RawHeads(x, partner, (weight, other))


def load_value(ref: Any, row: Array, key_head: Array, kv_heads: int, k_eq_v: bool, head_dim: int) -> RawHeads:
    """The values beside the keys that lie at `key_head` [R]."""
    return load_heads(ref, row, key_head if k_eq_v else key_head + kv_heads, None, head_dim)


def load_rotation(cos_ref: Any, sin_ref: Any, row: Array, head_dim: int) -> tuple[Array, Array]:
    """cos and the signed sin [H] of one row."""
    column, half = lax.iota(jnp.int32, head_dim), head_dim // 2
    angle = jnp.where(column < half, column, column - half)
    cos, sin = (plt.load(ref.at[row, angle]).astype(jnp.float32) for ref in (cos_ref, sin_ref))
    return cos, jnp.where(column < half, -sin, sin)


def normed(heads: RawHeads, eps: float) -> Array:
    """`rms(x) * weight`: float32 [R, H], rounded to the heads' dtype."""
    return _normed_pair(heads, eps)[0]


def normed_rope(heads: RawHeads, rotation: tuple[Array, Array], eps: float) -> Array:
    """`rope(rms(x) * weight)` [R, H], rounded likewise.

    A program cannot take a tile apart, so each value's partner is normed beside it.
    """
    x, partner = _normed_pair(heads, eps)
    cos, sin = rotation
    return _rounded(x * cos[None] + partner * sin[None], heads.x.dtype)


def _exchanged(head_dim: int) -> Array:
    """The column of each column's partner: the two halves of a head exchanged."""
    column, half = lax.iota(jnp.int32, head_dim), head_dim // 2
    return jnp.where(column < half, column + half, column - half)


def _normed_pair(heads: RawHeads, eps: float) -> tuple[Array, Array]:
    x, partner = (part.astype(jnp.float32) for part in heads[:2])
    scale = lax.rsqrt(jnp.sum(x * x, axis=1) * (1.0 / x.shape[1]) + eps)[:, None]
    x, partner = x * scale, partner * scale
    if heads.weights is not None:
        weight, other = (part.astype(jnp.float32) for part in heads.weights)
        x, partner = x * weight[None], partner * other[None]
    return _rounded(x, heads.x.dtype), _rounded(partner, heads.x.dtype)


def _rounded(x: Array, dtype: Any) -> Array:
    return x.astype(dtype).astype(jnp.float32)


@launcher("num_heads", "k_eq_v", "eps", "interpret")
def qkv_rope_write(
    qkv: Float[Array, "T C"],
    q_norm: Float[Array, " H"],
    k_norm: Float[Array, " H"] | None,
    cos: Float[Array, "T H//2"],
    sin: Float[Array, "T H//2"],
    k_pages: Float[Array, "P K Z H"],
    v_pages: Float[Array, "P K Z H"],
    page: Int[Array, " T"],
    offset: Int[Array, " T"],
    *,
    num_heads: int,
    k_eq_v: bool,
    eps: float,
    interpret: bool,
) -> tuple[Float[Array, "T N H"], Float[Array, "P K Z H"], Float[Array, "P K Z H"]]:
    tokens, head_dim = qkv.shape[0], q_norm.shape[0]
    kv_heads = k_pages.shape[1] if k_norm is not None else 0
    check_power_of_two(head_dim)
    q_block, kv_block = _block(num_heads, head_dim), _block(kv_heads, head_dim)
    q_blocks = num_heads // q_block

    def kernel(*refs: Any) -> None:
        qkv_ref, q_norm_ref, cos_ref, sin_ref = refs[:4]
        token, block = pl.program_id(0), pl.program_id(1)

        def queries() -> None:
            head = block * q_block + lax.iota(jnp.int32, q_block)
            raw = load_heads(qkv_ref, token, head, q_norm_ref, head_dim)
            _store(q_ref, (token, head), normed_rope(raw, load_rotation(cos_ref, sin_ref, token, head_dim), eps))

        def keys_values() -> None:
            head = (block - q_blocks) * kv_block + lax.iota(jnp.int32, kv_block)
            raw = load_heads(qkv_ref, token, num_heads + head, k_norm_ref, head_dim)
            raw_v = load_value(qkv_ref, token, num_heads + head, kv_heads, k_eq_v, head_dim)
            rotation = load_rotation(cos_ref, sin_ref, token, head_dim)
            at = plt.load(page_ref.at[token]), head, plt.load(offset_ref.at[token])
            _store(k_pages_ref, at, normed_rope(raw, rotation, eps))
            _store(v_pages_ref, at, normed(raw_v, eps))

        if k_norm is None:
            (q_ref,) = refs[4:]
            return queries()
        k_norm_ref, page_ref, offset_ref, _, _, q_ref, k_pages_ref, v_pages_ref = refs[4:]
        pl.when(block < q_blocks)(queries)
        pl.when(block >= q_blocks)(keys_values)

    inputs = [qkv, q_norm, cos, sin]
    outputs = [jax.ShapeDtypeStruct((tokens, num_heads, head_dim), qkv.dtype)]
    aliases = {}
    if k_norm is not None:
        inputs += [k_norm, page, offset, k_pages, v_pages]
        outputs += [jax.ShapeDtypeStruct(p.shape, p.dtype) for p in (k_pages, v_pages)]
        aliases = {7: 1, 8: 2}
    out = pl.pallas_call(
        kernel,
        grid=(tokens, q_blocks + (kv_heads // kv_block if kv_heads else 0)),
        in_specs=[ANY] * len(inputs),
        out_specs=[ANY] * len(outputs),
        out_shape=outputs,
        input_output_aliases=aliases,
        compiler_params=plt.CompilerParams(num_warps=4, num_stages=1),
        interpret=interpret,
        name="qkv_rope_write" if kv_heads else "q_rope",
    )(*inputs)
    return (out[0], k_pages, v_pages) if k_norm is None else tuple(out)


def _block(heads: int, head_dim: int) -> int:
    """Heads per program: a power of two that divides `heads`."""
    divisor = heads & -heads
    return max(1, min(divisor, ELEMENTS // head_dim))


def _store(ref: Any, at: tuple[Array, ...], heads: Float[Array, "R H"]) -> None:
    """Rows `at` of `ref` [..., H]; the head index in `at` is the vector that spans the rows."""
    rows = tuple(i[:, None] if i.ndim else i for i in at)
    plt.store(ref.at[(*rows, lax.iota(jnp.int32, heads.shape[1])[None])], heads.astype(ref.dtype))


def check_power_of_two(head_dim: int) -> None:
    if head_dim & (head_dim - 1) or head_dim < 16:
        raise Unsupported(f"head_dim {head_dim}: a Triton tile is a power of two, at least 16")
