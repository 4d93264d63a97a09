"""What is done to logits on the device before a token is drawn, and log probabilities."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from pallas_kernels.core import Implementation
from pallas_kernels.draw import Rules, largest


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


def penalize(logits: Float[Array, "B V"], batch: SamplingBatch, said: Int[Array, "B V"]) -> Float[Array, "B V"]:
    """Repetition penalty over prompt and output, then frequency and presence penalty over the output.

    said: twice how often a row's output has the token, one more where its prompt does.
    """
    count, repetition = said // 2, batch.repetition_penalty[:, None]
    repeated = jnp.where(logits > 0, logits / repetition, logits * repetition)
    logits = jnp.where(said > 0, repeated, logits)
    return logits - batch.frequency_penalty[:, None] * count - batch.presence_penalty[:, None] * (count > 0)


def with_counts(said: Int[Array, "B V"], tokens: Int[Array, "B C"], counts: Int[Array, "B C"]) -> Int[Array, "B V"]:
    """With the counts of these tokens, those of a row all different; -1 is none."""
    rows, vocab_size = jnp.arange(said.shape[0])[:, None], said.shape[1]
    return said.at[rows, jnp.where(tokens < 0, vocab_size, tokens)].set(counts, mode="drop")


def bump(said: Int[Array, "B V"], tokens: Int[Array, " B"]) -> Int[Array, "B V"]:
    """With one more output token per row."""
    return said.at[jnp.arange(tokens.shape[0]), tokens].add(2)


def logprobs_of(
    logits: Float[Array, "B V"], tokens: Int[Array, " B"], top: int, implementation: Implementation | None = None
) -> tuple[Float[Array, " B"], Int[Array, "B top"], Float[Array, "B top"]]:
    """Log probabilities (natural) of `tokens`, and the ids and log probabilities of the `top` likeliest."""
    ids, values = largest(logits, top, implementation=implementation)
    best = jnp.max(logits, axis=-1)
    total = jnp.log(jnp.sum(jnp.exp(logits - best[:, None]), axis=-1))
    chosen = jnp.take_along_axis(logits, tokens[:, None], axis=1)[:, 0]
    return chosen - best - total, ids, values - best[:, None] - total[:, None]
