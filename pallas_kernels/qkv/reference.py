"""Norm, RoPE and cache write of q|k|v rows in plain jax.numpy."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from pallas_kernels.norm.reference import Splits, summed


def head_norm(x: Float[Array, "T N H"], weight: Float[Array, " H"] | None, eps: float) -> Float[Array, "T N H"]:
    """RMS norm over each head, in float32, rounded once."""
    wide = x.astype(jnp.float32)
    wide = wide * lax.rsqrt(jnp.mean(wide * wide, axis=-1, keepdims=True) + eps)
    if weight is not None:
        wide = wide * weight.astype(jnp.float32)
    return wide.astype(x.dtype)


def rotate(x: Float[Array, "T N H"], cos: Float[Array, "T H//2"], sin: Float[Array, "T H//2"]) -> Float[Array, "T N H"]:
    """Half-split RoPE: element i is paired with i + H/2."""
    a, b = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    cos, sin = cos[:, None].astype(jnp.float32), sin[:, None].astype(jnp.float32)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).astype(x.dtype)


def qkv_rope(
    qkv: Splits,
    q_norm: Float[Array, " H"],
    k_norm: Float[Array, " H"] | None,
    cos: Float[Array, "T H//2"],
    sin: Float[Array, "T H//2"],
    *,
    num_heads: int,
    k_eq_v: bool,
    eps: float,
) -> tuple[Float[Array, "T N H"], Float[Array, "T K H"] | None, Float[Array, "T K H"] | None]:
    rows = summed(qkv, q_norm.dtype)
    heads = rows.reshape(rows.shape[0], -1, q_norm.shape[0])
    q = rotate(head_norm(heads[:, :num_heads], q_norm, eps), cos, sin)
    if k_norm is None:
        return q, None, None
    raw = heads[:, num_heads:]
    raw_k, raw_v = (raw, raw) if k_eq_v else jnp.split(raw, 2, axis=1)
    return q, rotate(head_norm(raw_k, k_norm, eps), cos, sin), head_norm(raw_v, None, eps)


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
) -> tuple[Float[Array, "T N H"], Float[Array, "P K Z H"], Float[Array, "P K Z H"]]:
    q, k, v = qkv_rope(qkv, q_norm, k_norm, cos, sin, num_heads=num_heads, k_eq_v=k_eq_v, eps=eps)
    if k is None or v is None:
        return q, k_pages, v_pages
    k_pages = k_pages.at[page, :, offset].set(k.astype(k_pages.dtype))
    v_pages = v_pages.at[page, :, offset].set(v.astype(v_pages.dtype))
    return q, k_pages, v_pages
