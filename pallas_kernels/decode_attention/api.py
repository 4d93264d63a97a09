"""One new token per sequence against a paged cache."""

from jaxtyping import Array, Float, Int

from pallas_kernels.core import Implementation, Unsupported, on_hopper, resolve
from pallas_kernels.decode_attention import reference
from pallas_kernels.norm.reference import Splits


def decode_attention(
    q: Float[Array, "B N H"],
    k_pages: Float[Array, "P K Z H"],
    v_pages: Float[Array, "P K Z H"],
    table: Int[Array, "B M"],
    lengths: Int[Array, " B"],
    *,
    window: int | None,
    implementation: Implementation | None = None,
) -> Float[Array, "B N*H"]:
    """softmax(q k^T) v over keys 0..lengths-1 of each row, the query being the last of them; no scale, no soft cap.

    Key j of row b is slot j % Z of page `table[b, j // Z]`. With a `window` only the last `window` keys are seen, and
    table entries of pages wholly before them may hold anything. A row of length 0 is padding: its result is zeros.
    Query head n reads KV head n // (N / K).
    """
    kind = resolve(implementation)
    args = (q, k_pages, v_pages, table, lengths)
    if kind == "reference":
        return reference.decode_attention(*args, window=window)
    if kind == "triton" and on_hopper():
        try:
            from pallas_kernels.decode_attention import mosaic

            return mosaic.decode_attention(*args, window=window)
        except Unsupported:
            pass
    try:
        from pallas_kernels.decode_attention import triton

        return triton.decode_attention(*args, window=window, interpret=kind == "interpret")
    except Unsupported:
        return reference.decode_attention(*args, window=window)


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
    implementation: Implementation | None = None,
) -> tuple[Float[Array, "B {num_heads}*H"], Float[Array, "P K Z H"], Float[Array, "P K Z H"]]:
    """`qkv_rope_write` at `positions` followed by `decode_attention` to keys 0..positions, in one.

    Returns `(out, k_pages, v_pages)`; the pages are updated in place when they are donated. Without `k_norm` (a layer
    that reads another layer's cache) the key at `positions` is already there and the pages come back as they are.
    Position -1 marks a padding row: it writes nowhere but to the null page 0, and its result is zeros.
    """
    kind = resolve(implementation)
    args = (qkv, q_norm, k_norm, cos, sin, k_pages, v_pages, table, positions)
    settings = {"num_heads": num_heads, "k_eq_v": k_eq_v, "window": window, "eps": eps}
    if kind == "reference":
        return reference.attend_decode(*args, **settings)
    if kind == "triton" and on_hopper():
        try:
            from pallas_kernels.decode_attention import mosaic

            return mosaic.attend_decode(*args, **settings)
        except Unsupported:
            pass
    try:
        from pallas_kernels.decode_attention import triton

        return triton.attend_decode(*args, **settings, interpret=kind == "interpret")
    except Unsupported:
        return reference.attend_decode(*args, **settings)
