"""From logits to tokens on the device: penalties, what is drawn then, and log probabilities."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from pallas_kernels.core import Implementation
from pallas_kernels.draw import Rules, largest

Counts = tuple[Bool[Array, "B V"], Int[Array, "B V"]]
"""(the prompt holds the token, how often the output does)"""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SamplingBatch(Rules):
    """Sampling parameters, one per row, as in `SamplingParams`."""

    repetition_penalty: Float[Array, " B"]
    presence_penalty: Float[Array, " B"]
    frequency_penalty: Float[Array, " B"]


def greedy(logits: Float[Array, "B V"]) -> Int[Array, " B"]:
    """The likeliest token, the lower id where two are equal."""
    return jnp.argmax(logits, axis=-1).astype(jnp.int32)


def penalize(logits: Float[Array, "B V"], batch: SamplingBatch, counts: Counts) -> Float[Array, "B V"]:
    """Repetition penalty over prompt and output, then frequency and presence penalty over the output."""
    prompt_seen, output_counts = counts
    spoken = output_counts > 0
    repetition = batch.repetition_penalty[:, None]
    repeated = jnp.where(logits > 0, logits / repetition, logits * repetition)
    logits = jnp.where(prompt_seen | spoken, repeated, logits)
    return logits - batch.frequency_penalty[:, None] * output_counts - batch.presence_penalty[:, None] * spoken


def no_counts(rows: int, vocab_size: int) -> Counts:
    """Of rows that have said nothing."""
    return jnp.zeros((rows, vocab_size), bool), jnp.zeros((rows, vocab_size), jnp.int32)


def count_tokens(counts: Counts, history: Int[Array, "B H"], prompt_lengths: Int[Array, " B"]) -> Counts:
    """The counts with each row's tokens so far; `history` is prompt and output, -1 behind them."""
    prompt_seen, output_counts = counts
    rows, vocab_size = jnp.arange(history.shape[0])[:, None], output_counts.shape[1]
    is_prompt = jnp.arange(history.shape[1]) < prompt_lengths[:, None]
    ids = jnp.where(history < 0, vocab_size, history)
    prompt_seen = prompt_seen.at[rows, jnp.where(is_prompt, ids, vocab_size)].set(True, mode="drop")
    return prompt_seen, output_counts.at[rows, jnp.where(is_prompt, vocab_size, ids)].add(1, mode="drop")


def bump(counts: Counts, tokens: Int[Array, " B"]) -> Counts:
    """The counts with one more output token per row; -1 is none."""
    prompt_seen, output_counts = counts
    rows, vocab_size = jnp.arange(tokens.shape[0]), output_counts.shape[1]
    return prompt_seen, output_counts.at[rows, jnp.where(tokens < 0, vocab_size, tokens)].add(1, mode="drop")


def logprobs_of(
    logits: Float[Array, "B V"], tokens: Int[Array, " B"], top: int, implementation: Implementation | None = None
) -> tuple[Float[Array, " B"], Int[Array, "B top"], Float[Array, "B top"]]:
    """Log probabilities (natural) of `tokens`, and the ids and log probabilities of the `top` likeliest."""
    ids, values = largest(logits, top, implementation=implementation)
    best = jnp.max(logits, axis=-1)
    total = jnp.log(jnp.sum(jnp.exp(logits - best[:, None]), axis=-1))
    chosen = jnp.take_along_axis(logits, tokens[:, None], axis=1)[:, 0]
    return chosen - best - total, ids, values - best[:, None] - total[:, None]
