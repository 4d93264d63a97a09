"""Norm, rotate and store the rows that come out of the fused q|k|v projection."""

from jaxtyping import Array, Float, Int

from pallas_kernels.core import Implementation, Unsupported, resolve
from pallas_kernels.norm.reference import Splits
from pallas_kernels.qkv import reference


def qkv_rope(
    qkv: Splits,
    q_norm: Float[Array, " H"],
    k_norm: Float[Array, " H"] | None,
    cos: Float[Array, "T H//2"],
    sin: Float[Array, "T H//2"],
    *,
    num_heads: int,
    eps: float,
    k_eq_v: bool = False,
) -> tuple[Float[Array, "T N H"], Float[Array, "T K H"] | None, Float[Array, "T K H"] | None]:
    """`(q, k, v)` of every row, without a cache: q = rope(rms(q) q_norm), k = rope(rms(k) k_norm), v = rms(v).

    The rows are [T, C], or float32 splits of them [S, T, C], with C = (N + 2K) H: the heads of q, then k, then v. With
    `k_eq_v` there is no v, C = (N + K) H, and v = rms(raw k), taken before k's weight and rotation. Without `k_norm` (a
    layer that reads another layer's cache) C = N H and k, v are None.
    RoPE is half-split: (a, b) -> (a cos - b sin, b cos + a sin) with a, b the two halves of a head.
    """
    return reference.qkv_rope(qkv, q_norm, k_norm, cos, sin, num_heads=num_heads, k_eq_v=k_eq_v, eps=eps)


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
    implementation: Implementation | None = None,
) -> tuple[Float[Array, "T N H"], Float[Array, "P K Z H"], Float[Array, "P K Z H"]]:
    """`qkv_rope`, with k and v of row t written to slot `offset[t]` of page `page[t]`; returns `(q, k_pages, v_pages)`.

    The pages are updated in place when they are donated. Page 0 is the null page: padding rows write there, and rows
    that collide on it leave one of their values. Without `k_norm` nothing is written.
    """
    kind = resolve(implementation)
    settings = {"num_heads": num_heads, "k_eq_v": k_eq_v, "eps": eps}
    args = (qkv, q_norm, k_norm, cos, sin, k_pages, v_pages, page, offset)
    if kind == "reference":
        return reference.qkv_rope_write(*args, **settings)
    try:
        from pallas_kernels.qkv import triton

        return triton.qkv_rope_write(*args, **settings, interpret=kind == "interpret")
    except Unsupported:
        return reference.qkv_rope_write(*args, **settings)
