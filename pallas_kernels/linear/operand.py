"""What a product multiplies its weight with: rows as they stand, or the residual stream normed on the way.

The norm's weight goes into the operand and its scale into the result, `(x' * then) @ w.T * rms_scale(x')`, so that one
pass over x' is enough: its squares are summed while it is multiplied.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array, lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plt
from jaxtyping import Float

from pallas_kernels.norm.reference import Residual
from pallas_kernels.norm.triton import combine, load, load_parts

MIN_BATCH = 16
"""The smallest batch of a tensor core product; absent rows repeat the last one."""
ROW_BLOCK = 8192
"""Elements of y that a program holds at once while it sums their squares."""


class Rows(NamedTuple):
    """In a kernel: the rows of `x` [R, K]."""

    x: Any

    @property
    def batch(self) -> int:
        """Columns of the product: rows, and repetitions of the last up to a power of two."""
        return max(MIN_BATCH, pl.next_power_of_2(self.x.shape[0]))

    def start(self, column: Array) -> tuple[()]:
        return ()

    def chunk(self, column: Array, following: Array, state: tuple[()]) -> tuple[Float[Array, "B C"], tuple[()]]:
        rows = self.x.shape[0]
        row = jnp.minimum(lax.iota(jnp.int32, self.batch), rows - 1)
        return plt.load(self.x.at[row[:, None], column[None, :]]), state

    def scale(self, state: tuple[()]) -> None:
        return None


class StreamState(NamedTuple):
    y_scale: Float[Array, "B 1"] | None
    squares: Float[Array, "B C"]
    """The squares of x', column by column of a chunk."""
    loaded: tuple[Residual, Any]
    """The next chunk's parts: the compiler loads ahead only what it can copy past the registers."""


class Stream(NamedTuple):
    """In a kernel: the residual stream, normed with the weight `then` if there is one; program 0 writes it to `out`."""

    residual: Residual
    then: Any | None
    out: Any | None
    eps: float
    program: Any = None
    """The program's number, taken outside of loops: the interpreter knows no other place."""

    @property
    def batch(self) -> int:
        return MIN_BATCH

    @property
    def height(self) -> int:
        """Rows computed: a single one is computed once and repeated only for the product."""
        return 1 if self.residual.x.shape[0] == 1 else MIN_BATCH

    def start(self, column: Array) -> StreamState:
        """The state before the first chunk, whose columns are given."""
        loaded = self._load(column)
        y_scale = None if self.residual.y is None else self._y_scale()
        return StreamState(y_scale, jnp.zeros((self.height, column.size), jnp.float32), loaded)

    def chunk(self, column: Array, following: Array, state: StreamState) -> tuple[Float[Array, "B C"], StreamState]:
        """The operand's columns `column`; `following` are those of the next chunk."""
        parts, then = state.loaded
        state = state._replace(loaded=self._load(following))
        x = combine(parts, state.y_scale)
        self._write(x, column)
        h = x if then is None else x * then.astype(jnp.float32)
        h = jnp.broadcast_to(h, (MIN_BATCH, column.size))
        return h.astype(parts.x.dtype), state._replace(squares=state.squares + x * x)

    def scale(self, state: StreamState) -> Float[Array, "1 B"] | None:
        """What the norm leaves to the result."""
        if self.then is None:
            return None
        width = self.residual.x.shape[1]
        return lax.rsqrt(jnp.sum(state.squares, axis=1) * (1.0 / width) + self.eps)[None, :]

    def _load(self, column: Array) -> tuple[Residual, Any]:
        index = self._index(column)
        return load_parts(self.residual, index), load(self.then, index[1:])

    def _index(self, column: Array) -> tuple[Array, Array]:
        row = jnp.minimum(lax.iota(jnp.int32, self.height), self.residual.x.shape[0] - 1)
        return row[:, None], column[None, :]

    def _y_scale(self) -> Float[Array, "B 1"]:
        width = self.residual.x.shape[1]
        block = min(pl.next_power_of_2(width), ROW_BLOCK // self.height)
        total = jnp.zeros((self.height,), jnp.float32)
        for start in range(0, width, block):
            column = start + lax.iota(jnp.int32, block)
            mask = jnp.broadcast_to((column < width)[None, :], (self.height, block))
            y = load(self.residual.y, self._index(column), mask).astype(jnp.float32)
            total += jnp.sum(y * y, axis=1)
        return lax.rsqrt(total * (1.0 / width) + self.eps)[:, None]

    def _write(self, x: Float[Array, "B C"], column: Array) -> None:
        if self.out is None:
            return
        row = lax.broadcasted_iota(jnp.int32, x.shape, 0)
        mask = (row < self.out.shape[0]) & (self.program == 0)
        plt.store(self.out.at[row, jnp.broadcast_to(column[None, :], x.shape)], x.astype(self.out.dtype), mask=mask)
