"""How a batch's tokens are drawn, inside a step."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from g4jax.engine.draw_inputs import RICH, DrawInputs, Variant, draw_fields
from g4jax.engine.packing import unpack
from g4jax.engine.report import Report, nothing_reported, packed_report
from g4jax.models.text import TextModel
from g4jax.sample.logits import SamplingBatch, bump, greedy, logprobs_of, penalize
from g4jax.sample.params import MAX_LOGPROBS
from pallas_kernels.core import Implementation, resolve
from pallas_kernels.draw import Rules, capped, draw

Said = Any
"""How often each row has said each token, [B, V] as of `penalize`, carried through the steps; () for a plain batch."""


class Drawing:
    """Draws tokens from the logits of `rows` rows. `suppressed` ones never; `implementation`: of the kernels."""

    def __init__(
        self,
        variant: Variant,
        rows: int,
        vocab_size: int,
        suppressed: tuple[int, ...],
        inputs: DrawInputs,
        implementation: Implementation | None = None,
    ):
        self.variant: Variant = variant
        self.implementation: Implementation | None = implementation
        self.vocab_size = vocab_size
        self.suppressed = suppressed
        fields = draw_fields(variant, rows, vocab_size)
        if variant != "greedy":
            self.batch = SamplingBatch(**unpack(fields.sampling, inputs.sampling))
        if variant in RICH:
            self.shaping = unpack(fields.shaping, inputs.shaping)
            self.bias = unpack(fields.bias, inputs.bias)
        if variant == "guided":
            self.forbidden = _bits(unpack(fields.mask, inputs.mask)["forbidden"], vocab_size)

    def __call__(
        self, logits: Float[Array, "B V"], said: Said, step: Int[Array, ""] | int, *, cap: float | None = None
    ) -> tuple[Int[Array, " B"], Report, Said]:
        """The tokens of the batch's `step`-th draw, what is told of them, and what was said with them.

        cap: of logits that are not capped yet.
        """
        if self.variant == "greedy":
            return greedy(self._unsuppressed(logits)), (), said
        batch = dataclasses.replace(self.batch, index=self.batch.index + step)
        if self.variant == "sampled":
            return self._drawn(logits, batch, cap, self.suppressed), (), said
        raw = capped(logits, cap)
        logits = self._biased(self._unsuppressed(raw))
        if self.variant == "guided":
            logits = jnp.where(self.forbidden, -jnp.inf, logits)
        logits = self._without_ends(logits, batch.index)
        drawn = self._drawn(penalize(logits, batch, said), batch)
        return drawn, self._report(raw, drawn), bump(said, drawn)

    def of_states(
        self, model: TextModel, h: Float[Array, "B D"], said: Said, step: Int[Array, ""] | int
    ) -> tuple[Int[Array, " B"], Report, Said]:
        """The same from final-normed hidden states: where only the best token counts, no logits are made."""
        if self.variant == "greedy":
            return model.best_token(h, self.suppressed), (), said
        return self(model.uncapped_logits(h), said, step, cap=model.softcap)

    def no_report(self, rows: int) -> Report:
        """The shape of a report, for the carry of a loop."""
        return nothing_reported(rows) if self.variant in RICH else ()

    def _report(self, logits: Float[Array, "B V"], drawn: Int[Array, " B"]) -> Report:
        """Of the model's own distribution, before anything that the request does to it."""

        def told() -> Report:
            return packed_report(*logprobs_of(logits, drawn, MAX_LOGPROBS, self.implementation))

        # The kernels are cheaper than a conditional, of which the host would have to know how it ends.
        if resolve(self.implementation) != "reference":
            return told()
        return lax.cond(jnp.any(self.shaping["reported"] > 0), told, lambda: self.no_report(drawn.shape[0]))

    def _drawn(
        self, logits: Float[Array, "B V"], rules: Rules, cap: float | None = None, barred: tuple[int, ...] = ()
    ) -> Int[Array, " B"]:
        return draw(logits, rules, cap=cap, barred=barred, implementation=self.implementation)

    def _unsuppressed(self, logits: Float[Array, "B V"]) -> Float[Array, "B V"]:
        return logits.at[:, jnp.array(self.suppressed)].set(-jnp.inf) if self.suppressed else logits

    def _biased(self, logits: Float[Array, "B V"]) -> Float[Array, "B V"]:
        ids = self.bias["bias_ids"]
        rows = jnp.arange(logits.shape[0])[:, None]
        return logits.at[rows, jnp.where(ids < 0, self.vocab_size, ids)].add(self.bias["bias_values"], mode="drop")

    def _without_ends(self, logits: Float[Array, "B V"], index: Int[Array, " B"]) -> Float[Array, "B V"]:
        """No end id may be drawn before the row has its min_tokens, unless a guide allows nothing else."""
        ends = self.shaping["ends"]
        barred = (ends >= 0) & (index + 1 < self.shaping["min_tokens"])[:, None]
        rows = jnp.arange(logits.shape[0])[:, None]
        without = logits.at[rows, jnp.where(barred, ends, self.vocab_size)].set(-jnp.inf, mode="drop")
        return jnp.where(jnp.max(without, axis=-1, keepdims=True) > -jnp.inf, without, logits)


def _bits(words: jax.Array, vocab_size: int) -> Bool[Array, "B V"]:
    """uint32 [B, ceil(V / 32)] -> whether bit i % 32 of word i // 32 is set."""
    bits = (words[:, :, None] >> jnp.arange(32, dtype=jnp.uint32)) & 1
    return bits.reshape(words.shape[0], -1)[:, :vocab_size] > 0
