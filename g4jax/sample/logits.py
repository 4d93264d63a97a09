"""From logits to tokens on the device: penalties, temperature, top-k, top-p, min-p, and the draw.

The vocabulary is never sorted. What top-k, top-p and min-p keep is always "every token at most so far below the best
one", and the bits of a float that is not negative order like the float: so each filter is a search for a 32-bit
threshold, exact, four bits a pass. A row's draw depends on its logits, its seed and its index alone, not on the batch.
"""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Shaped, UInt32

Counts = tuple[Bool[Array, "B V"], Int[Array, "B V"]]
"""(the prompt holds the token, how often the output does)"""

_LINE = 1024
"""Tokens summed by one block of threads."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SamplingBatch:
    """Sampling parameters, one per row, as in `SamplingParams`. temperature 0: greedy. top_k 0 or below: off.

    index: the place in the output of the token to be drawn; with `seed` it makes the row's random key.
    """

    temperature: Float[Array, " B"]
    top_k: Int[Array, " B"]
    top_p: Float[Array, " B"]
    min_p: Float[Array, " B"]
    seed: UInt32[Array, " B"]
    index: Int[Array, " B"]
    repetition_penalty: Float[Array, " B"]
    presence_penalty: Float[Array, " B"]
    frequency_penalty: Float[Array, " B"]


def greedy(logits: Float[Array, "B V"]) -> Int[Array, " B"]:
    """The likeliest token, the lower id where two are equal."""
    return jnp.argmax(logits, axis=-1).astype(jnp.int32)


def sample(logits: Float[Array, "B V"], batch: SamplingBatch, counts: Counts | None = None) -> Int[Array, " B"]:
    """One token per row. In order: penalties (if `counts` are given), temperature, top-k, top-p, min-p, Gumbel-max.

    The order and the rules are those of transformers and vLLM, but tokens that tie with the last one kept are kept too.
    Logits may be -inf (never drawn); NaN counts as -inf.
    """
    logits = jnp.where(jnp.isnan(logits), -jnp.inf, logits).astype(jnp.float32)
    if counts is not None:
        logits = penalize(logits, batch, counts)
    best = greedy(logits)
    gap = _gap_below_best(logits, batch.temperature)
    score = jnp.where(_kept(gap, batch), _gumbel(batch.seed, batch.index, logits.shape[-1]) - gap, -jnp.inf)
    return jnp.where(batch.temperature > 0, greedy(score), best)


def penalize(logits: Float[Array, "B V"], batch: SamplingBatch, counts: Counts) -> Float[Array, "B V"]:
    """Repetition penalty over prompt and output, then frequency and presence penalty over the output."""
    prompt_seen, output_counts = counts
    spoken = output_counts > 0
    repetition = batch.repetition_penalty[:, None]
    repeated = jnp.where(logits > 0, logits / repetition, logits * repetition)
    logits = jnp.where(prompt_seen | spoken, repeated, logits)
    return logits - batch.frequency_penalty[:, None] * output_counts - batch.presence_penalty[:, None] * spoken


def count_tokens(history: Int[Array, "B H"], prompt_lengths: Int[Array, " B"], vocab_size: int) -> Counts:
    """Counts of each row's tokens so far; `history` is prompt and output, -1 behind them."""
    rows = jnp.arange(history.shape[0])[:, None]
    is_prompt = jnp.arange(history.shape[1]) < prompt_lengths[:, None]
    ids = jnp.where(history < 0, vocab_size, history)
    nothing = jnp.zeros((history.shape[0], vocab_size), jnp.int32)
    in_prompt = nothing.at[rows, ids].add(is_prompt.astype(jnp.int32), mode="drop")
    in_output = nothing.at[rows, ids].add(1 - is_prompt.astype(jnp.int32), mode="drop")
    return in_prompt > 0, in_output


def bump(counts: Counts, tokens: Int[Array, " B"]) -> Counts:
    """The counts with one more output token per row; -1 is none."""
    prompt_seen, output_counts = counts
    rows, vocab_size = jnp.arange(tokens.shape[0]), output_counts.shape[1]
    return prompt_seen, output_counts.at[rows, jnp.where(tokens < 0, vocab_size, tokens)].add(1, mode="drop")


def logprobs_of(
    logits: Float[Array, "B V"], tokens: Int[Array, " B"], top: int
) -> tuple[Float[Array, " B"], Int[Array, "B top"], Float[Array, "B top"]]:
    """Log probabilities (natural) of `tokens`, and the ids and log probabilities of the `top` likeliest."""
    logprobs = jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)
    rows, column = jnp.arange(logits.shape[0]), jnp.arange(logits.shape[1], dtype=jnp.int32)

    # Nothing is written in place, neither what is found nor over it: XLA would copy on a stream of its own.
    def next_best(step, carry):
        (value, token), ids, values = carry
        is_later = (logprobs < value[:, None]) | ((logprobs == value[:, None]) & (column > token[:, None]))
        token = greedy(jnp.where(is_later, logprobs, -jnp.inf))
        value, is_place = logprobs[rows, token], jnp.arange(top) == step
        ids, values = jnp.where(is_place, token[:, None], ids), jnp.where(is_place, value[:, None], values)
        return (value, token), ids, values

    first = jnp.full(rows.shape, jnp.inf), jnp.full(rows.shape, -1, jnp.int32)
    shape = (len(rows), top)
    _, ids, values = lax.fori_loop(0, top, next_best, (first, jnp.zeros(shape, jnp.int32), jnp.zeros(shape)))
    return logprobs[rows, tokens], ids, values


def _gap_below_best(logits: Float[Array, "B V"], temperature: Float[Array, " B"]) -> Float[Array, "B V"]:
    """How far each logit lies below its row's largest, over the temperature: 0 and up, inf for -inf."""
    top = jnp.clip(jnp.max(logits, axis=-1, keepdims=True), jnp.finfo(jnp.float32).min, jnp.finfo(jnp.float32).max)
    # A temperature of 0, or one that is flushed to it, must not make 0 / 0 of the best token.
    return jnp.abs(jnp.maximum(top - logits, 0.0) / jnp.maximum(temperature, 1e-6)[:, None])


def _kept(gap: Float[Array, "B V"], batch: SamplingBatch) -> Bool[Array, "B V"]:
    """Which tokens top-k, then top-p, then min-p leave; always the best one."""
    bits, mass = lax.bitcast_convert_type(gap, jnp.uint32), jnp.exp(-gap)
    by_k = _search(bits, None, jnp.where(batch.top_k > 0, batch.top_k.astype(jnp.float32), jnp.inf))
    left = jnp.sum(jnp.where(bits <= by_k[:, None], mass, 0.0), axis=-1)
    by_p = _search(bits, mass, jnp.where(batch.top_p < 1, batch.top_p * left, jnp.inf))
    by_min_p = lax.bitcast_convert_type(jnp.abs(jnp.log(batch.min_p)), jnp.uint32)
    return bits <= jnp.minimum(jnp.minimum(by_k, by_p), by_min_p)[:, None]


def _search(
    bits: UInt32[Array, "B V"], mass: Float[Array, "B V"] | None, limit: Float[Array, " B"]
) -> UInt32[Array, " B"]:
    """The largest t such that the tokens better than t (bits < t) weigh less than `limit` together, or 0.

    A token weighs its `mass`, or 1. A few binary digits of t are found per pass over the vocabulary.
    """
    # A GPU pays for launches: many thresholds a pass. A CPU pays for comparisons: one.
    digit_bits = 1 if jax.default_backend() == "cpu" else 4
    lines = _in_lines(bits, fill=2**32 - 1)
    weight = jnp.float32(1) if mass is None else _in_lines(mass, fill=0)

    def one_digit(step, found):
        shift = (32 - digit_bits * (step + 1)).astype(jnp.uint32)
        tried = [found | (jnp.uint32(digit) << shift) for digit in range(1, 2**digit_bits)]
        # Line by line, and all in one reduction: XLA would make a kernel or two of each sum.
        parts = tuple(jnp.where(lines < t[:, None, None], weight, 0.0) for t in tried)
        sums = lax.reduce(parts, (jnp.float32(0),) * len(parts), _add, dimensions=(2,))
        below = jnp.sum(jnp.stack(sums), axis=-1)
        return found | (jnp.sum(below < limit, axis=0, dtype=jnp.uint32) << shift)

    return lax.fori_loop(0, 32 // digit_bits, one_digit, jnp.zeros(bits.shape[0], jnp.uint32))


def _add(xs: tuple[Array, ...], ys: tuple[Array, ...]) -> tuple[Array, ...]:
    return tuple(x + y for x, y in zip(xs, ys, strict=True))


def _in_lines(x: Shaped[Array, "B V"], fill: int) -> Shaped[Array, "B C W"]:
    """Each row folded into lines of _LINE tokens, `fill` behind the last."""
    width = min(_LINE, x.shape[1])
    x = jnp.pad(x, ((0, 0), (0, -x.shape[1] % width)), constant_values=x.dtype.type(fill))
    return x.reshape(x.shape[0], -1, width)


def _gumbel(seed: UInt32[Array, " B"], index: Int[Array, " B"], vocab_size: int) -> Float[Array, "B V"]:
    """Gumbel noise of the key (seed, index) of each row."""
    return jax.vmap(partial(_gumbel_row, vocab_size=vocab_size))(seed, index)


def _gumbel_row(seed: UInt32[Array, ""], index: Int[Array, ""], *, vocab_size: int) -> Float[Array, " V"]:
    key = jax.random.fold_in(jax.random.key(seed, impl="threefry2x32"), index)
    # jax.random.gumbel knows 2^23 values: of a large vocabulary's tail, tokens below 1e-7, it would draw far too few.
    # Here the small values, those that win, keep all 32 bits.
    uniform = (jax.random.bits(key, (vocab_size,), jnp.uint32).astype(jnp.float32) + 0.5) * 2.0**-32
    return -jnp.log(-jnp.log1p(-jnp.minimum(uniform, 1 - 2.0**-24)))
