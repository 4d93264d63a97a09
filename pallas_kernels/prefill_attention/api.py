"""Attention of a ragged batch of prompt pieces over paged keys and values."""

from jaxtyping import Array, Float, Int

from pallas_kernels.core import Implementation, Unsupported, on_hopper, resolve
from pallas_kernels.prefill_attention import reference, triton


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
    implementation: Implementation | None = None,
) -> Float[Array, "T N*H"]:
    """Attends every packed query to the keys of its own sequence; the score scale is 1.

    Args:
      q: packed queries; sequence `r` owns rows `starts[r] .. starts[r] + lengths[r] - 1`. Query head `n` reads
        KV head `n // (N / K)`.
      k_pages: the pool of key pages, Z tokens each; the keys of the piece itself are already written.
      v_pages: the pool of value pages.
      table: page of the tokens `Z m .. Z m + Z - 1` of sequence `r`. Entries out of every sight may be any page.
      starts: first packed row of each sequence.
      lengths: queries of each sequence; 0 for an unused row.
      contexts: tokens of each sequence in the cache, this piece included: the queries stand at the positions
        `contexts - lengths .. contexts - 1`.
      limits: the last position each query may see: its own, or the last position of its image.
      window: with a window, the query at position i sees only keys j > i - window.
      implementation: see `core.resolve`.

    Returns:
      The heads' outputs side by side. Rows that no sequence owns are zeros.

    Raises:
      ValueError: if the number of query heads is not a multiple of the KV heads.
    """
    if q.shape[1] % k_pages.shape[1]:
        raise ValueError(f"q has {q.shape[1]} heads, k_pages {k_pages.shape[1]}: the first must be a multiple.")
    chosen = resolve(implementation)
    operands = (q, k_pages, v_pages, table, starts, lengths, contexts, limits)
    if chosen == "triton" and on_hopper():
        try:
            from pallas_kernels.prefill_attention import mosaic

            return mosaic.prefill_attention(*operands, window=window)
        except Unsupported:
            pass
    if chosen != "reference":
        try:
            return triton.prefill_attention(*operands, window=window, interpret=chosen == "interpret")
        except Unsupported:
            pass
    return reference.prefill_attention(*operands, window=window)
