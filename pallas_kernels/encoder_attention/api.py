"""Attention in both directions over images in slots of equal size."""

from jaxtyping import Array, Float, Int

from pallas_kernels.core import Implementation, Unsupported, resolve
from pallas_kernels.encoder_attention import reference, triton


def encoder_attention(
    q: Float[Array, "I P N H"],
    k: Float[Array, "I P N H"],
    v: Float[Array, "I P N H"],
    lengths: Int[Array, " I"],
    *,
    implementation: Implementation | None = None,
) -> Float[Array, "I P N H"]:
    """Row p < lengths[i] of slot i attends to the first lengths[i] rows of its slot; the others give zeros.

    The score scale is 1 and the softmax is float32. The reference has a gradient, the kernel has none.
    """
    chosen = resolve(implementation)
    if chosen != "reference":
        try:
            return triton.encoder_attention(q, k, v, lengths, interpret=chosen == "interpret")
        except Unsupported:
            pass
    return reference.encoder_attention(q, k, v, lengths)
