"""A program of the Hopper kernel: its shared memory, what it knows of its tile, and its copies in and out.

One of its three warpgroups brings queries, keys and values by bulk copies, two compute (`mosaic_softmax`). A program
owns 128 rows, query heads of one KV head times tokens of one sequence, and up to 256 columns of their result: what 64
rows of a warpgroup can sum up in registers. Rows are ordered by head, then token, so that both warpgroups walk through
the same keys. A tile of 64 keys is cut into blocks of `Shape.width` columns, first those of its keys, then those of its
values, and block n of the walk lies in slot n % slots of a ring; a barrier per slot tells when it is full and another
when both warpgroups are done with it.

Shared memory for the tensor cores consists of pieces of 8 rows by 64 columns, and a bulk copy moves 8 rows of one only
if they begin at a multiple of 8: from others on it brings zeros, or drops rows, without a word. So queries come and
results go by cells, `Shape.tokens` packed tokens from a multiple of that on, whatever part of one a sequence owns.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jaxtyping import Array

from pallas_kernels.core import plgpu

ROWS = 64
"""Of a warpgroup: what the tensor cores take."""
COMPUTING = 2
KEYS = 64
"""Of a tile."""
COLUMNS = 256
"""Of the result of a program, at most."""
LOWER, UPPER, SCALARS = range(3)
"""Rows of the facts of a tile [3, 64]: first and last key that each row of a warpgroup sees, and `Tile`."""


@dataclasses.dataclass(frozen=True)
class Shape:
    """What a program knows when it is compiled."""

    group: int
    """Query heads of one KV head."""
    head_dim: int
    page_size: int
    table_width: int
    window: int | None
    dtype: Any
    width: int
    """Columns of a block of the ring."""
    slots: int
    turns: bool
    """Whether the warpgroups take turns: one has the tensor cores while the other is at its softmax."""
    interpret: bool

    @property
    def tokens(self) -> int:
        """Of the program's rows."""
        return COMPUTING * ROWS // self.group

    @property
    def heads(self) -> int:
        """Of a warpgroup's rows."""
        return ROWS // self.tokens

    @property
    def columns(self) -> int:
        """Of a program's result."""
        return min(self.head_dim, COLUMNS)

    @property
    def key_blocks(self) -> int:
        return self.head_dim // self.width

    @property
    def value_blocks(self) -> int:
        return self.columns // self.width

    @property
    def blocks(self) -> int:
        """Of a tile."""
        return self.key_blocks + self.value_blocks

    @property
    def pages(self) -> int:
        """Of a tile."""
        return KEYS // self.page_size

    def scratch(self) -> list[Any]:
        """Queries, ring and facts in shared memory, and the barriers. The result takes the place of the queries."""
        tiled = (plgpu.TilingTransform((8, 64)), plgpu.SwizzleTransform(128))
        queries = plgpu.SMEM((COMPUTING, ROWS, self.head_dim), self.dtype, transforms=tiled)
        # As large as the queries, so that each warpgroup's part stays its own. Of the plain one single rows are copied.
        as_large = (COMPUTING, ROWS * self.head_dim // self.columns, self.columns)
        result, plain = plgpu.SMEM(as_large, self.dtype, transforms=tiled), plgpu.SMEM(as_large, self.dtype)
        ring = plgpu.SMEM((self.slots, KEYS, self.width), self.dtype, transforms=tiled)
        return [
            plgpu.RefUnion(queries, result, plain),
            ring,
            plgpu.SMEM((3, ROWS), jnp.int32),
            plgpu.Barrier(num_arrivals=self.group + 1),
            plgpu.Barrier(num_arrivals=self.pages, num_barriers=self.slots),
            plgpu.Barrier(num_arrivals=COMPUTING, num_barriers=self.slots),
            plgpu.Barrier(num_arrivals=COMPUTING),
        ]


class Tile(NamedTuple):
    """The scalars of a program's tile."""

    sequence: Any
    cell: Any
    """Its tokens are among the packed ones from `cell * Shape.tokens` on."""
    skipped: Any
    """So many of the cell stand before them."""
    count: Any
    """Its tokens."""
    origin: Any
    """The key its walk begins with."""
    begin: Any
    """The first key that any row sees."""
    end: Any
    """One past the last such key."""
    inner: Any
    """Tiles of keys before this one need a mask."""
    outer: Any
    """So do those from this one on."""

    steps: Any
    """Tiles of keys."""
    nobodys: Any
    """Bit t tells that no sequence owns token t of cell i, for tile i; bits 32 on follow."""
    more_nobodys: Any

    @classmethod
    def read(cls, facts: Any) -> Tile:
        """From `mosaic.plan`'s facts of a tile. What is read again needs no register in between."""
        return cls(*(facts[SCALARS, i] for i in range(len(cls._fields))))


def bring(ins: tuple[Any, ...], at: tuple[Array, ...], scratch: tuple[Any, ...], tile: Tile, shape: Shape) -> None:
    """Copies the queries, and every block as soon as its slot is free."""
    q_ref, k_ref, v_ref, table_ref, facts_ref = ins
    number, kv_head, part = at
    (queries, *_), ring, facts, asked, full, free, _ = scratch
    tokens = pl.ds(tile.cell * shape.tokens, shape.tokens)
    for head in range(shape.group):
        warpgroup, place = divmod(head, shape.heads)
        rows = queries.at[warpgroup, pl.ds(place * shape.tokens, shape.tokens)]
        plgpu.copy_gmem_to_smem(q_ref.at[tokens, kv_head * shape.group + head], rows, asked)
    plgpu.copy_gmem_to_smem(facts_ref.at[number], facts, asked)

    def pages_of(step: Array) -> tuple[Array, ...]:
        first = lax.div(tile.origin, shape.page_size) + step * shape.pages
        places = [jnp.minimum(first + i, shape.table_width - 1) for i in range(shape.pages)]
        return tuple(table_ref[tile.sequence, place] for place in places)

    def step(i: Array, pages: tuple[Array, ...]) -> tuple[Array, ...]:
        following = pages_of(i + 1)  # looked up while this tile is on its way
        for n in range(shape.blocks):
            block = shape.blocks * i + n
            slot = lax.rem(block, shape.slots)
            pl.when(block >= shape.slots)(lambda slot=slot: plgpu.barrier_wait(free.at[slot]))
            if n < shape.key_blocks:
                ref, columns = k_ref, pl.ds(n * shape.width, shape.width)
            else:
                ref = v_ref
                columns = pl.ds(part * shape.columns + (n - shape.key_blocks) * shape.width, shape.width)
            for place, page in enumerate(pages):
                rows = pl.ds(place * shape.page_size, shape.page_size)
                plgpu.copy_gmem_to_smem(ref.at[page, kv_head, :, columns], ring.at[slot, rows], full.at[slot])
        return following

    def drain(block: Array, _: None) -> None:
        plgpu.barrier_wait(free.at[lax.rem(block, shape.slots)])

    lax.fori_loop(0, tile.steps, step, pages_of(0 * tile.steps))
    blocks = shape.blocks * tile.steps
    lax.fori_loop(jnp.maximum(blocks - shape.slots, 0), blocks, drain, None)


def store(
    out_ref: Any, at: tuple[Array, ...], scratch: tuple[Any, ...], tile: Tile, sums: list[Array], shape: Shape
) -> None:
    """Writes the rows of a warpgroup over its queries and copies them out, in one piece or token by token."""
    _, kv_head, part = at
    _, result, plain = scratch[0]
    warpgroup = lax.axis_index("warpgroup")
    columns = pl.ds(part * shape.columns, shape.columns)
    first_head = kv_head * shape.group + warpgroup * shape.heads

    def whole() -> None:
        for n, values in enumerate(sums):
            result.at[warpgroup, pl.ds(0, ROWS), pl.ds(n * shape.width, shape.width)][...] = values
        plgpu.commit_smem()
        for head in range(shape.heads):
            rows = result.at[warpgroup, pl.ds(head * shape.tokens, shape.tokens)]
            place = out_ref.at[pl.ds(tile.cell * shape.tokens, shape.tokens), first_head + head, columns]
            plgpu.copy_smem_to_gmem(rows, place)
        plgpu.wait_smem_to_gmem(0)

    def by_token() -> None:
        for n, values in enumerate(sums):
            write_plain(plain.at[warpgroup, pl.ds(0, ROWS), pl.ds(n * shape.width, shape.width)], values)
        plgpu.commit_smem()

        @pl.loop(tile.skipped, tile.skipped + tile.count)
        def _(token: Array) -> None:
            for head in range(shape.heads):
                row = plain.at[warpgroup, head * shape.tokens + token]
                place = out_ref.at[tile.cell * shape.tokens + token, first_head + head, columns]
                plgpu.copy_smem_to_gmem(row, place)

        plgpu.wait_smem_to_gmem(0)

    pl.when(tile.count == shape.tokens)(whole)
    pl.when(tile.count < shape.tokens)(by_token)


def clear_nobodys(out_ref: Any, at: tuple[Array, ...], scratch: tuple[Any, ...], tile: Tile, shape: Shape) -> None:
    """Zeroes the rows of cell `number` that no sequence owns."""
    number, kv_head, part = at
    zero = scratch[0][2].at[0, 0]
    zero[...] = jnp.zeros((shape.columns,), shape.dtype)
    plgpu.commit_smem()
    columns = pl.ds(part * shape.columns, shape.columns)

    @pl.loop(0, shape.tokens)
    def _(token: Array) -> None:
        word = jnp.where(token < 32, tile.nobodys, tile.more_nobodys)

        @pl.when(lax.shift_right_logical(word, lax.rem(token, 32)) & 1 == 1)
        def _() -> None:
            for head in range(shape.group):
                place = out_ref.at[number * shape.tokens + token, kv_head * shape.group + head, columns]
                plgpu.copy_smem_to_gmem(zero, place)

    plgpu.wait_smem_to_gmem(0)


def write_plain(ref: Any, values: Array) -> None:
    """The registers' layout meets conflicts of banks there, which jax 0.12 must be told to allow."""
    if hasattr(plgpu, "store"):
        plgpu.store(ref, values, optimized=False)
    else:
        ref[...] = values
