"""What one program does: a running softmax over its share of a row's keys.

The G query heads of a KV head are the *narrow* side of both products, padded to 8: scores are k q^T [keys, G], the
result is v^T p [H, G]. The tiles of keys and values, which are all the traffic, are thus the left operands and go from
the asynchronous copies to the tensor cores. Weights are summed over keys only once, at the end.
"""

import dataclasses
from typing import Any

import jax.numpy as jnp
from jax import lax
from jax.experimental.pallas import triton as plt
from jaxtyping import Array

from pallas_kernels.decode_attention.tiling import Span, Tiling

MASKED = -1e30


@dataclasses.dataclass(frozen=True)
class Shape:
    """What a program knows when it is compiled."""

    rows: int
    num_heads: int
    kv_heads: int
    head_dim: int
    page_size: int
    table_width: int
    window: int | None
    dtype: Any
    tiling: Tiling

    @property
    def group(self) -> int:
        """Query heads of one KV head."""
        return self.num_heads // self.kv_heads

    @property
    def tiles_in_pages(self) -> bool:
        """No tile of keys crosses a page."""
        return self.page_size % self.tiling.keys == 0

    @property
    def padded(self) -> int:
        """`group` as the narrow side of a tensor core's product."""
        return max(8, 1 << (self.group - 1).bit_length())


State = tuple[Array, Array, Array]
"""Maximum [G], weights [keys, G] not summed over the tile's keys yet, result [H, G] not divided by the weights yet."""


def group_heads(kv_head: Array, shape: Shape) -> Array:
    """The query heads of a KV head, the last one repeated up to the padded size."""
    return kv_head * shape.group + jnp.minimum(lax.iota(jnp.int32, shape.padded), shape.group - 1)


def no_key(shape: Shape) -> State:
    weights = jnp.zeros((shape.tiling.keys, shape.padded), jnp.float32)
    result = jnp.zeros((shape.head_dim, shape.padded), jnp.float32)
    return jnp.full((shape.padded,), MASKED, jnp.float32), weights, result


def one_key(q: Array, k: Array, v: Array, present: Array, shape: Shape) -> State:
    """The state after the key `k` [1, H] with value `v` [1, H], or before any if it is not `present`."""
    score = jnp.sum(q.astype(jnp.float32) * k, axis=1)
    key = lax.broadcasted_iota(jnp.int32, (shape.tiling.keys, shape.padded), 0)
    value = jnp.broadcast_to(v.reshape(shape.head_dim, 1), (shape.head_dim, shape.padded))
    return (
        jnp.where(present, score, MASKED),
        jnp.where((key == 0) & present, 1.0, 0.0),
        jnp.where(present, value, 0.0),
    )


def scan_keys(
    state: State,
    q: Array,
    k_ref: Any,
    v_ref: Any,
    table_ref: Any,
    first: Array,
    at: tuple[Array, Array, Array],
    span: Span,
    shape: Shape,
) -> State:
    """Adds the keys of split `at[2]` of row `at[0]`, KV head `at[1]`, the first of which lie in page `first`.

    The page of the next tile is looked up while this tile is on its way, so that the copies never wait for the table.
    """
    keys, page_size = shape.tiling.keys, shape.page_size
    row, kv_head, split = at
    one_page = shape.tiles_in_pages
    column = lax.iota(jnp.int32, shape.head_dim)[None]

    def step(tile: Array, carry: tuple[Array, State]) -> tuple[Array, State]:
        page, (largest, weights, result) = carry
        following = _page_of(tile + 1, table_ref, row, shape)
        key = tile * keys + lax.iota(jnp.int32, keys)
        slot = (tile * keys) % page_size + lax.iota(jnp.int32, keys) if one_page else key % page_size
        where = (page if one_page else page[:, None], kv_head, slot[:, None], column)
        seen = ((key >= span.first) & (key < span.end))[:, None]
        k = plt.load(k_ref.at[where])
        # Values that are not seen are not loaded: 0 * NaN would be NaN.
        v = plt.load(v_ref.at[where], mask=jnp.broadcast_to(seen, k.shape), other=jnp.zeros((), k.dtype))
        scores = jnp.where(seen, product(k, q, 1, 1), MASKED)
        highest = jnp.maximum(largest, jnp.max(scores, axis=0))
        shrink = jnp.exp(largest - highest)[None]
        p = jnp.where(seen, jnp.exp(scores - highest[None]), 0.0)
        result = result * shrink + product(v, p.astype(v.dtype), 0, 0)
        return following, (highest, weights * shrink + p, result)

    start = span.tile + split * span.per_split
    stop = jnp.minimum(start + span.per_split, span.tile + span.tiles)
    return lax.fori_loop(start, stop, step, (first, state))[1]


def first_page(table_ref: Any, at: tuple[Array, Array, Array], span: Span, shape: Shape) -> Array:
    """Where the first tile of split `at[2]` of row `at[0]` lies."""
    return _page_of(span.tile + at[2] * span.per_split, table_ref, at[0], shape)


def _page_of(tile: Array, table_ref: Any, row: Array, shape: Shape) -> Array:
    """The page of a tile, or of each of its keys where tiles cross pages."""
    keys = shape.tiling.keys
    key = tile * keys if shape.tiles_in_pages else tile * keys + lax.iota(jnp.int32, keys)
    return plt.load(table_ref.at[row, jnp.minimum(key // shape.page_size, shape.table_width - 1)])


def product(a: Array, b: Array, a_axis: int, b_axis: int) -> Array:
    precision = lax.Precision.HIGHEST if a.dtype == jnp.float32 else None
    contract = (((a_axis,), (b_axis,)), ((), ()))
    return lax.dot_general(a, b, contract, precision=precision, preferred_element_type=jnp.float32)


def store_result(out: tuple[Any, Any | None], at: tuple[Array, Array, Array], state: State, shape: Shape) -> None:
    """Normalises and writes a program's result, and the logarithm of its weight if there are others to join it with."""
    out_ref, lse_ref = out
    row, kv_head, split = at
    largest, weights, result = state
    total = jnp.maximum(jnp.sum(weights, axis=0), 1e-30)
    member = lax.iota(jnp.int32, shape.padded)
    head = kv_head * shape.group + member
    column = lax.iota(jnp.int32, shape.head_dim)
    mask = jnp.broadcast_to((member < shape.group)[None], result.shape)
    plt.store(
        out_ref.at[row, split, head[None], column[:, None]], (result / total[None]).astype(out_ref.dtype), mask=mask
    )
    if lse_ref is not None:
        plt.store(lse_ref.at[row, split, head], largest + jnp.log(total), mask=member < shape.group)
