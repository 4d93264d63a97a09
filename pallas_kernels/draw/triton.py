"""The draw, one Pallas kernel (Triton) after the best lines are known: one program per row.

The 64 best lines of a row hold its 64 best tokens. So where top_k is 64 or less, which is how the checkpoints ask to be
sampled, a program looks at 8,192 tokens, which lie in its registers, and not at the 262,144; the same where no top_k is
set and the threshold turns out to lie among those. The gaps of other rows are kept in memory and read once for every
two binary digits of a threshold.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plt
from jaxtyping import Array, Float, Int

from pallas_kernels.core import Unsupported, launcher
from pallas_kernels.draw import threefry
from pallas_kernels.draw.lines import ANY, LINES, PIECE, best_lines, check_lines, columns_of, line_maxima, load_logits
from pallas_kernels.draw.reference import Rules, capped, farthest, gap_below, gumbel_of

MAX_BARRED = 8
"""Each is a comparison of every element."""
WARPS = 16


class RowRules(NamedTuple):
    """The rules of one row, in a kernel."""

    temperature: Any
    top_k: Any
    top_p: Any
    min_p: Any
    seed: Any
    index: Any


Fold = Callable[[Callable[..., Any], Any], Any]
"""`fold(step, carry)`: the carry after `carry = step(carry, gaps, columns)` for every piece of a row."""


@launcher("cap", "barred", "interpret")
def draw(
    logits: Float[Array, "B V"],
    rules: Rules,
    *,
    cap: float | None = None,
    barred: tuple[int, ...] = (),
    interpret: bool = False,
) -> Int[Array, " B"]:
    """See `api.draw`. Raises Unsupported for what is not its own."""
    rows, size = logits.shape
    check_lines(logits)
    if len(barred) > MAX_BARRED:
        raise Unsupported(f"{len(barred)} tokens barred")
    maxima = line_maxima(logits, barred)
    fields = [getattr(rules, name) for name in RowRules._fields]
    token, _ = pl.pallas_call(
        functools.partial(_draw_kernel, cap=cap, barred=barred, interpret=interpret),
        grid=(rows,),
        in_specs=[ANY] * (4 + len(fields)),
        out_specs=[ANY, ANY],
        out_shape=[jax.ShapeDtypeStruct((rows,), jnp.int32), jax.ShapeDtypeStruct((rows, size), jnp.float32)],
        compiler_params=plt.CompilerParams(num_warps=WARPS, num_stages=1),
        interpret=interpret,
        name="draw",
    )(logits, *best_lines(maxima, interpret=interpret), *fields)
    return token


def _draw_kernel(
    logits_ref: Any,
    lines_ref: Any,
    top_ref: Any,
    next_ref: Any,
    *refs: Any,
    cap: float | None,
    barred: tuple[int, ...],
    interpret: bool,
) -> None:
    *rule_refs, out_ref, gaps_ref = refs
    index = pl.program_id(0)
    rules = RowRules(*(plt.load(ref.at[index]) for ref in rule_refs))
    row = Row(logits_ref, gaps_ref, index, capped(plt.load(top_ref.at[index]), cap), rules.temperature, cap, barred)
    in_lines = (rules.temperature <= 0) | ((rules.top_k > 0) & (rules.top_k <= LINES))
    mass_of_all = row.keep_gaps(~in_lines)
    if not interpret:
        plt.debug_barrier()  # Threads read what others have kept.
    column = columns_of(lines_ref, index)
    gap = row.gaps(column)

    def fold_lines(step: Callable[..., Any], carry: Any) -> Any:
        return step(carry, gap, column)

    last = _last_kept(fold_lines, rules, jnp.where(in_lines, -1.0, mass_of_all), digit_bits=1)
    # Without top-k the threshold is that of all tokens if it comes before the best token of the lines not looked at.
    not_seen = _bits(row.gap(capped(plt.load(next_ref.at[index]), cap)))
    token = lax.cond(
        in_lines | ((rules.top_k <= 0) & (last < not_seen)),
        lambda: _drawn(fold_lines, rules, last),
        lambda: _drawn(row.fold_kept, rules, _last_kept(row.fold_kept, rules, jnp.float32(-1), digit_bits=2)),
    )
    plt.store(out_ref.at[index], token)


class Row(NamedTuple):
    """In the kernel: a row and the gaps of its tokens, how far they lie below `top`; see `reference.gap_below`."""

    logits_ref: Any
    gaps_ref: Any
    index: Any
    top: Any
    temperature: Any
    cap: float | None
    barred: tuple[int, ...]

    def gap(self, logits: Array) -> Array:
        return gap_below(self.top, logits, self.temperature)

    def gaps(self, column: Array) -> Array:
        """Of tokens; inf past the end."""
        x = load_logits(self.logits_ref, self.index, column, self.cap)
        return self.gap(
            functools.reduce(lambda left, token: jnp.where(column == token, -jnp.inf, left), self.barred, x)
        )

    def keep_gaps(self, is_on: Array) -> Array:
        """Writes those of all tokens to memory, where it `is_on`; their mass."""

        def keep(piece: Array, mass: Array) -> Array:
            column = self._columns(piece)
            gap = self.gaps(column)
            plt.store(self.gaps_ref.at[self.index, column], gap, mask=column < self._size)
            return mass + jnp.exp(-gap)

        pieces = jnp.where(is_on, jnp.int32(self._pieces), jnp.int32(0))
        return jnp.sum(lax.fori_loop(jnp.int32(0), pieces, keep, jnp.zeros(PIECE, jnp.float32)))

    def fold_kept(self, step: Callable[..., Any], carry: Any) -> Any:
        """A `Fold` over what was kept."""

        def one(piece: Array, carry: Any) -> Any:
            column = self._columns(piece)
            gap = plt.load(self.gaps_ref.at[self.index, column], mask=column < self._size, other=jnp.inf)
            return step(carry, gap, column)

        return lax.fori_loop(0, self._pieces, one, carry)

    def _columns(self, piece: Array) -> Array:
        return piece * PIECE + lax.iota(jnp.int32, PIECE)

    @property
    def _size(self) -> int:
        return self.logits_ref.shape[1]

    @property
    def _pieces(self) -> int:
        return pl.cdiv(self._size, PIECE)


def _last_kept(fold: Fold, rules: RowRules, mass_of_all: Array, digit_bits: int) -> Array:
    """The bits of the largest gap that top-k, then top-p, then min-p leave. mass_of_all: -1 for that of the fold."""
    by_k = _search(fold, jnp.ones_like, rules.top_k.astype(jnp.float32), rules.top_k > 0, digit_bits)

    def mass(gap: Array) -> Array:
        return jnp.where(_bits(gap) <= by_k, jnp.exp(-gap), 0.0)

    left = jnp.sum(fold(lambda total, gap, _: total + mass(gap), jnp.zeros(PIECE, jnp.float32)))
    left = jnp.where(mass_of_all < 0, left, mass_of_all)
    by_p = _search(fold, mass, rules.top_p * left, rules.top_p < 1, digit_bits)
    return jnp.minimum(jnp.minimum(by_k, by_p), farthest(rules.min_p))


def _drawn(fold: Fold, rules: RowRules, last: Array) -> Array:
    """The token, among those of a gap of at most `last`."""
    key = threefry.fold_in(rules.seed, rules.index.astype(jnp.uint32))
    is_greedy = rules.temperature <= 0

    def better(best: tuple[Array, Array], gap: Array, column: Array) -> tuple[Array, Array]:
        noise = jnp.where(is_greedy, 0.0, gumbel_of(threefry.bits(key, column.astype(jnp.uint32))))
        score = jnp.where(_bits(gap) <= last, noise - gap, -jnp.inf)
        is_better = (score > best[0]) | (best[1] < 0)
        return jnp.where(is_better, score, best[0]), jnp.where(is_better, column, best[1])

    score, column = fold(better, (jnp.full(PIECE, -jnp.inf), jnp.full(PIECE, -1)))
    return jnp.min(jnp.where(score == jnp.max(score), column, jnp.iinfo(jnp.int32).max))


def _search(fold: Fold, weight: Callable[[Array], Array], limit: Array, is_on: Array, digit_bits: int) -> Array:
    """The largest t such that the tokens better than t weigh less than `limit` together; see `reference`.

    Where it is not `is_on`, the largest there is.
    """
    digits = range(1, 2**digit_bits)

    def one_digit(step: Array, found: Array) -> Array:
        shift = jnp.uint32(32 - digit_bits) - jnp.uint32(digit_bits) * step.astype(jnp.uint32)
        tried = [found | (jnp.uint32(digit) << shift) for digit in digits]

        def add(totals: tuple[Array, ...], gap: Array, _: Array) -> tuple[Array, ...]:
            weights, bits = weight(gap), _bits(gap)
            return tuple(total + jnp.where(bits < t, weights, 0.0) for total, t in zip(totals, tried, strict=True))

        totals = fold(add, (jnp.zeros(PIECE, jnp.float32),) * len(digits))
        digit = sum(((jnp.sum(total) < limit).astype(jnp.uint32) for total in totals), jnp.uint32(0))
        return found | (digit << shift)

    first = jnp.where(is_on, jnp.uint32(0), jnp.uint32(0xFFFFFFFF))
    steps = jnp.where(is_on, jnp.int32(32 // digit_bits), jnp.int32(0))
    return lax.fori_loop(jnp.int32(0), steps, one_digit, first)


def _bits(gap: Array) -> Array:
    return lax.bitcast_convert_type(gap, jnp.uint32)
