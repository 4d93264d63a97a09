"""The public draw, and the largest logits: the implementation is chosen here."""

from __future__ import annotations

from jaxtyping import Array, Float, Int

from pallas_kernels.core import Implementation, Unsupported, resolve
from pallas_kernels.draw import reference, triton, triton_largest
from pallas_kernels.draw.reference import Rules, capped

__all__ = ["Rules", "capped", "draw", "largest"]


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


def largest(
    logits: Float[Array, "B V"], count: int, *, implementation: Implementation | None = None
) -> tuple[Int[Array, "B N"], Float[Array, "B N"]]:
    """The tokens of the `count` largest logits of each row, and these; of equal ones the lower token first.

    NaN counts as -inf. Once only -inf is left, the tokens mean nothing.
    """
    chosen = resolve(implementation)
    if chosen != "reference":
        try:
            return triton_largest.largest(logits, count, interpret=chosen == "interpret")
        except Unsupported:
            pass
    return reference.largest(logits, count)
