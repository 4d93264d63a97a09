"""The public draw: the implementation is chosen here."""

from __future__ import annotations

from jaxtyping import Array, Float, Int

from pallas_kernels.core import Implementation, Unsupported, resolve
from pallas_kernels.draw import reference, triton
from pallas_kernels.draw.reference import Rules, capped

__all__ = ["Rules", "capped", "draw"]


def draw(
    logits: Float[Array, "B V"],
    rules: Rules,
    *,
    cap: float | None = None,
    barred: tuple[int, ...] = (),
    implementation: Implementation | None = None,
) -> Int[Array, " B"]:
    """One token per row. In order: soft cap, temperature, top-k, top-p, min-p, Gumbel-max; temperature 0 is greedy.

    The order and the rules are those of transformers and vLLM, but tokens that tie with the last one kept are kept too
    (by the kernel among the 64 best lines of 128 tokens, where top_k is 64 or less). Logits may be -inf (never drawn);
    NaN counts as -inf.

    Args:
        logits: of every token, `cap * tanh(logits / cap)` still to be taken where there is a `cap`.
        barred: tokens that are never drawn.
    """
    chosen = resolve(implementation)
    if chosen != "reference":
        try:
            return triton.draw(logits, rules, cap=cap, barred=barred, interpret=chosen == "interpret")
        except Unsupported:
            pass
    return reference.draw(logits, rules, cap=cap, barred=barred)
