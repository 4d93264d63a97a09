"""Paged attention of one query per sequence in plain jax.numpy."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from pallas_kernels.norm.reference import Splits
from pallas_kernels.qkv import reference as qkv_reference

MASKED = -1e30
"""A score that loses against every real one and stays finite where a row has no key at all."""


def decode_attention(
    q: Float[Array, "B N H"],
    k_pages: Float[Array, "P K Z H"],
    v_pages: Float[Array, "P K Z H"],
    table: Int[Array, "B M"],
    lengths: Int[Array, " B"],
    *,
    window: int | None,
) -> Float[Array, "B N*H"]:
    rows, num_heads, _ = q.shape
    _, kv_heads, page_size, head_dim = k_pages.shape
    logical = logical_pages(lengths, table.shape[1], page_size, window)
    physical = jnp.take_along_axis(table, jnp.minimum(logical, table.shape[1] - 1), axis=1)
    position = (logical[:, :, None] * page_size + jnp.arange(page_size)).reshape(rows, -1)
    seen = (position >= 0) & (position < lengths[:, None])
    if window is not None:
        seen &= position >= lengths[:, None] - window

    k = k_pages[physical].swapaxes(1, 2).reshape(rows, kv_heads, -1, head_dim)
    v = v_pages[physical].swapaxes(1, 2).reshape(rows, kv_heads, -1, head_dim)
    v = jnp.where(seen[:, None, :, None], v, 0)  # 0 * NaN is NaN, and a page may hold anything
    grouped = q.reshape(rows, kv_heads, num_heads // kv_heads, head_dim)
    highest = {"precision": lax.Precision.HIGHEST, "preferred_element_type": jnp.float32}
    scores = jnp.einsum("bkgh,bksh->bkgs", grouped, k.astype(q.dtype), **highest)
    scores = jnp.where(seen[:, None, None], scores, MASKED)
    p = jnp.exp(scores - scores.max(axis=-1, keepdims=True)) * seen[:, None, None]
    p = p / jnp.maximum(p.sum(axis=-1, keepdims=True), 1e-30)
    out = jnp.einsum("bkgs,bksh->bkgh", p.astype(v.dtype), v, **highest)
    return out.reshape(rows, num_heads * head_dim).astype(q.dtype)


def logical_pages(lengths: Int[Array, " B"], width: int, page_size: int, window: int | None) -> Int[Array, "B m"]:
    """The pages of each row that can hold a visible key: all of them, or those the window touches."""
    if window is None or window + page_size > width * page_size:
        return jnp.broadcast_to(jnp.arange(width), (lengths.shape[0], width))
    first = jnp.maximum(lengths - window, 0) // page_size
    return first[:, None] + jnp.arange(-(-window // page_size) + 1)


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
    page, slot = slot_of(positions, table, k_pages.shape[2])
    q, k_pages, v_pages = qkv_reference.qkv_rope_write(
        qkv, q_norm, k_norm, cos, sin, k_pages, v_pages, page, slot,
        num_heads=num_heads, k_eq_v=k_eq_v, eps=eps,
    )  # fmt: skip
    out = decode_attention(q, k_pages, v_pages, table, positions + 1, window=window)
    return out, k_pages, v_pages


def slot_of(
    positions: Int[Array, " B"], table: Int[Array, "B M"], page_size: int
) -> tuple[Int[Array, " B"], Int[Array, " B"]]:
    """Page and slot of the key at each row's position; those of a padding row (-1) lie in the null page."""
    at = jnp.maximum(positions, 0)
    page = jnp.take_along_axis(table, (at // page_size)[:, None], axis=1)[:, 0]
    return jnp.where(positions < 0, 0, page), at % page_size
