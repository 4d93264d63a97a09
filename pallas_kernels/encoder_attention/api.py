"""Attention in both directions over packed sequences."""

from jaxtyping import Array, Float, Int

from pallas_kernels.core import Implementation, Unsupported, resolve
from pallas_kernels.encoder_attention import reference, triton


def encoder_attention(
    q: Float[Array, "P N H"],
    k: Float[Array, "P N H"],
    v: Float[Array, "P N H"],
    first: Int[Array, " P"],
    last: Int[Array, " P"],
    *,
    implementation: Implementation | None = None,
) -> Float[Array, "P N H"]:
    """Row i attends to the rows `first[i] <= j < last[i]`; the score scale is 1 and the softmax is float32.

    Any ranges are right; time is what the union of a few neighbouring rows' ranges costs, so rows of one sequence
    should stand together. A row with an empty range (padding) gives zeros.

    The reference has a gradient, the kernel has none.
    """
    chosen = resolve(implementation)
    if chosen != "reference":
        try:
            return triton.encoder_attention(q, k, v, first, last, interpret=chosen == "interpret")
        except Unsupported:
            pass
    return reference.encoder_attention(q, k, v, first, last)
