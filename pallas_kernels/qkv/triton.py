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
from pallas_kernels.norm.reference import Splits
from pallas_kernels.norm.triton import ANY, load_sum, rounded

ELEMENTS = 2048
"""Values per program: 16 a thread with 4 warps."""


@launcher("num_heads", "k_eq_v", "eps", "interpret")
def qkv_rope_write(
    qkv: Splits,
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
    (tokens, _), head_dim, dtype = qkv.shape[-2:], q_norm.shape[0], q_norm.dtype
    kv_heads = k_pages.shape[1] if k_norm is not None else 0
    check_power_of_two(head_dim)
    q_block, kv_block = _block(num_heads, head_dim), _block(kv_heads, head_dim)
    q_blocks = num_heads // q_block

    def kernel(*refs: Any) -> None:
        qkv_ref, q_norm_ref, cos_ref, sin_ref = refs[:4]
        token, block = pl.program_id(0), pl.program_id(1)

        def queries() -> None:
            head = block * q_block + lax.iota(jnp.int32, q_block)
            raw, weight = load_halves(qkv_ref, token, head, head_dim, dtype), load_weight(q_norm_ref)
            turned = rotated(normed_halves(raw, weight, dtype, eps), load_angle(cos_ref, sin_ref, token))
            store_halves(q_ref, (token, head), turned)

        def keys_values() -> None:
            head = (block - q_blocks) * kv_block + lax.iota(jnp.int32, kv_block)
            raw, weight = load_halves(qkv_ref, token, num_heads + head, head_dim, dtype), load_weight(k_norm_ref)
            first = num_heads if k_eq_v else num_heads + kv_heads
            raw_v = load_halves(qkv_ref, token, first + head, head_dim, dtype)
            angle = load_angle(cos_ref, sin_ref, token)
            at = plt.load(page_ref.at[token]), head, plt.load(offset_ref.at[token])
            store_halves(k_pages_ref, at, rotated(normed_halves(raw, weight, dtype, eps), angle))
            store_halves(v_pages_ref, at, normed_halves(raw_v, None, dtype, eps))

        if k_norm is None:
            (q_ref,) = refs[4:]
            return queries()
        k_norm_ref, page_ref, offset_ref, _, _, q_ref, k_pages_ref, v_pages_ref = refs[4:]
        pl.when(block < q_blocks)(queries)
        pl.when(block >= q_blocks)(keys_values)

    inputs = [qkv, q_norm, cos, sin]
    outputs = [jax.ShapeDtypeStruct((tokens, num_heads, head_dim), dtype)]
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


class Halves(NamedTuple):
    """The halves [R, H/2] of heads, which a rotation mixes element by element; float32 of values rounded already."""

    a: Array
    b: Array


def load_halves(ref: Any, row: Array, head: Array, head_dim: int, dtype: Any) -> Halves:
    """Heads `head` [R] of one row of `ref` [T, C], or of splits [S, T, C] of it, whose sum is rounded to `dtype`."""
    first = head[:, None] * head_dim + lax.iota(jnp.int32, head_dim // 2)[None]

    def load(column: Array) -> Array:
        return load_sum(ref, (row, column), dtype).astype(jnp.float32)

    return Halves(load(first), load(first + head_dim // 2))


def load_weight(ref: Any) -> Halves:
    """A norm's weight [H]."""
    half = ref.shape[0] // 2
    column = lax.iota(jnp.int32, half)
    return Halves(*(plt.load(ref.at[c])[None].astype(jnp.float32) for c in (column, column + half)))


def load_angle(cos_ref: Any, sin_ref: Any, row: Array) -> tuple[Array, Array]:
    """cos and sin [1, H/2] of one row."""
    column = lax.iota(jnp.int32, cos_ref.shape[1])
    cos, sin = (plt.load(ref.at[row, column])[None].astype(jnp.float32) for ref in (cos_ref, sin_ref))
    return cos, sin


def normed_halves(x: Halves, weight: Halves | None, dtype: Any, eps: float) -> Halves:
    """`rms(x) * weight`, rounded to `dtype`."""
    total = jnp.sum(x.a * x.a, axis=1) + jnp.sum(x.b * x.b, axis=1)
    scale = lax.rsqrt(total * (0.5 / x.a.shape[1]) + eps)[:, None]
    a, b = x.a * scale, x.b * scale
    if weight is not None:
        a, b = a * weight.a, b * weight.b
    return Halves(rounded(a, dtype), rounded(b, dtype))


def rotated(x: Halves, angle: tuple[Array, Array]) -> Halves:
    cos, sin = angle
    return Halves(x.a * cos - x.b * sin, x.b * cos + x.a * sin)


def store_halves(ref: Any, at: tuple[Array, ...], heads: Halves) -> None:
    """Rows `at` of `ref` [..., H]; the head index in `at` is the vector that spans the rows."""
    rows = tuple(i[:, None] if i.ndim else i for i in at)
    half = heads.a.shape[1]
    column = lax.iota(jnp.int32, half)[None]
    plt.store(ref.at[(*rows, column)], heads.a.astype(ref.dtype))
    plt.store(ref.at[(*rows, column + half)], heads.b.astype(ref.dtype))


def check_power_of_two(head_dim: int) -> None:
    if head_dim & (head_dim - 1) or head_dim < 16:
        raise Unsupported(f"head_dim {head_dim}: a Triton tile is a power of two, at least 16")
