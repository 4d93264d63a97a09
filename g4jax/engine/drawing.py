"""How a batch's tokens are drawn, inside a step."""

import dataclasses
from typing import Any, Literal

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from g4jax.engine.batch import sampling_fields, shaping_fields
from g4jax.engine.packing import unpack
from g4jax.engine.request import Request
from g4jax.sample.logits import SamplingBatch, bump, count_tokens, greedy, sample

Variant = Literal["greedy", "sampled", "shaped"]
"""greedy: argmax. sampled: temperature, top-k, top-p, min-p. shaped: the same after penalties and min_tokens."""

VARIANTS: tuple[Variant, ...] = ("greedy", "sampled", "shaped")


def variant_of(requests: tuple[Request, ...]) -> Variant:
    """The least that serves every request of a batch; a greedy row stays greedy in all of them."""
    if any(request.params.has_penalties or request.params.min_tokens for request in requests):
        return "shaped"
    return "greedy" if all(request.params.greedy for request in requests) else "sampled"


class Drawing:
    """Draws tokens from logits. `sampling` and `shaping` are packed, and empty where the variant needs none."""

    def __init__(
        self,
        variant: Variant,
        rows: int,
        history: int,
        vocab_size: int,
        suppressed: tuple[int, ...],
        sampling: Int[Array, " S"],
        shaping: Int[Array, " H"],
    ):
        self.variant: Variant = variant
        self.vocab_size = vocab_size
        self.suppressed = suppressed
        if variant != "greedy":
            self.batch = SamplingBatch(**unpack(sampling_fields(rows), sampling))
        if variant == "shaped":
            self.shaping = unpack(shaping_fields(rows, history), shaping)

    def counts(self) -> Any:
        """What each row has said so far, to be carried through the steps; nothing where the variant does not ask."""
        if self.variant != "shaped":
            return ()
        return count_tokens(self.shaping["history"], self.shaping["prompt_lengths"], self.vocab_size)

    def __call__(self, logits: Float[Array, "B V"], counts: Any, step: Int[Array, ""] | int):
        """The tokens `[B]` of the batch's `step`-th draw, and the counts with them."""
        if self.suppressed:
            logits = logits.at[:, jnp.array(self.suppressed)].set(-jnp.inf)
        if self.variant == "greedy":
            return greedy(logits), counts
        batch = dataclasses.replace(self.batch, index=self.batch.index + step)
        if self.variant == "sampled":
            return sample(logits, batch), counts
        drawn = sample(self._without_ends(logits, batch.index), batch, counts)
        return drawn, bump(counts, drawn)

    def _without_ends(self, logits: Float[Array, "B V"], index: Int[Array, " B"]) -> Float[Array, "B V"]:
        """No end id may be drawn before the row has its min_tokens."""
        ends = self.shaping["ends"]
        barred = (ends >= 0) & (index + 1 < self.shaping["min_tokens"])[:, None]
        rows = jnp.arange(logits.shape[0])[:, None]
        return logits.at[rows, jnp.where(barred, ends, self.vocab_size)].set(-jnp.inf, mode="drop")
