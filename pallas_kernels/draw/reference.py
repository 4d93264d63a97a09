"""The draw in plain jax.numpy.

The vocabulary is never sorted. What top-k, top-p and min-p keep is always "every token at most so far below the best
one", and the bits of a float that is not negative order like the float: so each filter is a search for a 32-bit
threshold, exact, a few bits a pass. A row's draw depends on its logits, its seed and its index alone, not on the batch.
"""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, UInt32


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Rules:
    """How each row is drawn, as in `SamplingParams`. temperature 0: greedy. top_k 0 or below: off.

    index: the place in the output of the token to be drawn; with `seed` it makes the row's random key.
    """

    temperature: Float[Array, " B"]
    top_k: Int[Array, " B"]
    top_p: Float[Array, " B"]
    min_p: Float[Array, " B"]
    seed: UInt32[Array, " B"]
    index: Int[Array, " B"]


def draw(
    logits: Float[Array, "B V"], rules: Rules, *, cap: float | None = None, barred: tuple[int, ...] = ()
) -> Int[Array, " B"]:
    """See `api.draw`."""
    logits = capped(logits, cap)
    if barred:
        logits = logits.at[:, jnp.array(barred)].set(-jnp.inf)
    logits = jnp.where(jnp.isnan(logits), -jnp.inf, logits).astype(jnp.float32)
    gap = _gap_below_best(logits, rules.temperature)
    score = jnp.where(_kept(gap, rules), gumbel(rules.seed, rules.index, logits.shape[-1]) - gap, -jnp.inf)
    return jnp.argmax(jnp.where(rules.temperature[:, None] > 0, score, logits), axis=-1).astype(jnp.int32)


def capped(logits: Float[Array, "*shape"], cap: float | None) -> Float[Array, "*shape"]:
    """`cap * tanh(logits / cap)`."""
    return logits if cap is None else cap * jnp.tanh(logits / cap)


def _gap_below_best(logits: Float[Array, "B V"], temperature: Float[Array, " B"]) -> Float[Array, "B V"]:
    """How far each logit lies below its row's largest, over the temperature: 0 and up, inf for -inf."""
    return gap_below(jnp.max(logits, axis=-1, keepdims=True), logits, temperature[:, None])


def gap_below(
    top: Float[Array, "*#shape"], logits: Float[Array, "*#shape"], temperature: Float[Array, "*#shape"]
) -> Float[Array, "*#shape"]:
    """The same below a known largest."""
    top = jnp.clip(top, jnp.finfo(jnp.float32).min, jnp.finfo(jnp.float32).max)
    # A temperature of 0, or one that is flushed to it, must not make 0 / 0 of the best token.
    return jnp.abs(jnp.maximum(top - logits, 0.0) / jnp.maximum(temperature, 1e-6))


def _kept(gap: Float[Array, "B V"], rules: Rules) -> Bool[Array, "B V"]:
    """Which tokens top-k, then top-p, then min-p leave; always the best one."""
    bits, mass = lax.bitcast_convert_type(gap, jnp.uint32), jnp.exp(-gap)
    by_k = _search(bits, None, jnp.where(rules.top_k > 0, rules.top_k.astype(jnp.float32), jnp.inf))
    left = jnp.sum(jnp.where(bits <= by_k[:, None], mass, 0.0), axis=-1)
    by_p = _search(bits, mass, jnp.where(rules.top_p < 1, rules.top_p * left, jnp.inf))
    return bits <= jnp.minimum(jnp.minimum(by_k, by_p), farthest(rules.min_p))[:, None]


def farthest(min_p: Float[Array, "*shape"]) -> UInt32[Array, "*shape"]:
    """The bits of the largest gap that min-p leaves."""
    return lax.bitcast_convert_type(jnp.abs(jnp.log(min_p)), jnp.uint32)


def _search(
    bits: UInt32[Array, "B V"], mass: Float[Array, "B V"] | None, limit: Float[Array, " B"]
) -> UInt32[Array, " B"]:
    """The largest t such that the tokens better than t (bits < t) weigh less than `limit` together, or 0.

    A token weighs its `mass`, or 1.
    """
    weight = jnp.float32(1) if mass is None else mass

    def one_bit(step, found):
        tried = found | (jnp.uint32(1) << (31 - step).astype(jnp.uint32))
        below = jnp.sum(jnp.where(bits < tried[:, None], weight, 0.0), axis=-1)
        return jnp.where(below < limit, tried, found)

    return lax.fori_loop(0, 32, one_bit, jnp.zeros(bits.shape[0], jnp.uint32))


def gumbel(seed: UInt32[Array, " B"], index: Int[Array, " B"], vocab_size: int) -> Float[Array, "B V"]:
    """Gumbel noise of the key (seed, index) of each row."""
    return jax.vmap(partial(_gumbel_row, vocab_size=vocab_size))(seed, index)


def _gumbel_row(seed: UInt32[Array, ""], index: Int[Array, ""], *, vocab_size: int) -> Float[Array, " V"]:
    key = jax.random.fold_in(jax.random.key(seed, impl="threefry2x32"), index)
    return gumbel_of(jax.random.bits(key, (vocab_size,), jnp.uint32))


def gumbel_of(bits: UInt32[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Gumbel noise from random bits."""
    # jax.random.gumbel knows 2^23 values: of a large vocabulary's tail, tokens below 1e-7, it would draw far too few.
    # Here the small values, those that win, keep all 32 bits.
    uniform = (bits.astype(jnp.float32) + 0.5) * 2.0**-32
    return -jnp.log(-jnp.log1p(-jnp.minimum(uniform, 1 - 2.0**-24)))


def largest(logits: Float[Array, "B V"], count: int) -> tuple[Int[Array, "B N"], Float[Array, "B N"]]:
    """See `api.largest`."""
    column = jnp.arange(logits.shape[1], dtype=jnp.int32)
    logits = jnp.where(jnp.isnan(logits), -jnp.inf, logits)

    # Nothing is written in place, neither what is found nor over it: XLA would copy on a stream of its own.
    def next_best(step, carry):
        (value, token), ids, values = carry
        is_later = (logits < value[:, None]) | ((logits == value[:, None]) & (column > token[:, None]))
        token = jnp.argmax(jnp.where(is_later, logits, -jnp.inf), axis=-1).astype(jnp.int32)
        value, is_place = jnp.take_along_axis(logits, token[:, None], axis=1)[:, 0], jnp.arange(count) == step
        ids, values = jnp.where(is_place, token[:, None], ids), jnp.where(is_place, value[:, None], values)
        return (value, token), ids, values

    rows = len(logits)
    first = jnp.full(rows, jnp.inf), jnp.full(rows, -1, jnp.int32)
    nothing = jnp.zeros((rows, count), jnp.int32), jnp.zeros((rows, count))
    return lax.fori_loop(0, count, next_best, (first, *nothing))[1:]
