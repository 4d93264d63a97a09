"""Prefill attention in plain jax.numpy, tile by tile so that memory stays bounded."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from pallas_kernels.prefill_attention.tiles import cut

BLOCK = 64


def prefill_attention(
    q: Float[Array, "T N H"],
    k_pages: Float[Array, "P K Z H"],
    v_pages: Float[Array, "P K Z H"],
    table: Int[Array, "R M"],
    starts: Int[Array, " R"],
    lengths: Int[Array, " R"],
    contexts: Int[Array, " R"],
    limits: Int[Array, " T"],
    *,
    window: int | None,
) -> Float[Array, "T N*H"]:
    """See `api.prefill_attention`. Holds the keys of one sequence and the scores of one tile at a time."""
    num_rows = q.shape[0]
    block = min(BLOCK, num_rows)
    tiles = cut(starts, lengths, num_rows, block)

    def attend_tile(tile):
        sequence, first, count = tile
        rows = first + jnp.arange(block)
        position = contexts[sequence] - lengths[sequence] + rows - starts[sequence]
        visible = _visible(position, limits[rows], contexts[sequence], table.shape[1] * k_pages.shape[2], window)
        visible &= (jnp.arange(block) < count)[:, None]
        return attend(q[rows], _keys(k_pages, table[sequence]), _keys(v_pages, table[sequence]), visible)

    def skip(_):
        return jnp.zeros((block, *q.shape[1:]), q.dtype)

    out = lax.map(lambda tile: lax.cond(tile.count > 0, attend_tile, skip, tile), tiles)
    rows = tiles.first[:, None] + jnp.arange(block)
    rows = jnp.where(jnp.arange(block) < tiles.count[:, None], rows, num_rows)
    packed = jnp.zeros_like(q).at[rows.reshape(-1)].set(out.reshape(-1, *q.shape[1:]), mode="drop")
    return packed.reshape(num_rows, -1)


def attend(
    q: Float[Array, "T N H"], k: Float[Array, "S K H"], v: Float[Array, "S K H"], visible: Bool[Array, "T S"]
) -> Float[Array, "T N H"]:
    """softmax(q kᵀ) v in float32; a query that sees no key gives zeros, and a key seen by no query may be NaN."""
    grouped = q.astype(jnp.float32).reshape(q.shape[0], k.shape[1], -1, q.shape[2])
    scores = jnp.einsum("tkgh,skh->kgts", grouped, k.astype(jnp.float32), precision=lax.Precision.HIGHEST)
    weights = jax.nn.softmax(jnp.where(visible, scores, -1e30), axis=-1) * visible
    values = jnp.where(visible.any(axis=0)[:, None, None], v.astype(jnp.float32), 0)
    out = jnp.einsum("kgts,skh->tkgh", weights, values, precision=lax.Precision.HIGHEST)
    return out.reshape(q.shape).astype(q.dtype)


def _keys(pages: Float[Array, "P K Z H"], table: Int[Array, " M"]) -> Float[Array, "S K H"]:
    chosen = pages[table].swapaxes(1, 2)
    return chosen.reshape(-1, *chosen.shape[2:])


def _visible(
    position: Int[Array, " T"], limit: Int[Array, " T"], context: Int[Array, ""], num_keys: int, window: int | None
) -> Bool[Array, "T S"]:
    key = jnp.arange(num_keys)
    visible = (key <= limit[:, None]) & (key < context)
    return visible if window is None else visible & (key > position[:, None] - window)
