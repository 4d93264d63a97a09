"""The grouped product of the experts on Hopper: rows sorted by expert, times the weight of their expert.

A program of four warpgroups makes 2 n columns for a block of up to three tiles of 64 rows: one warpgroup copies tiles
of rows and of the weight into a ring of stages, the others multiply a tile of rows each, if the block has so many. The
programs of a cluster make neighbouring columns and copy the rows once between them. Programs go on from block to block,
so that copies are under way while results are written; all columns of a block are made at about the same time, so its
rows come from memory once, and so do the weights of an expert with several blocks.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.experimental import pallas as pl
from jaxtyping import Float

from pallas_kernels.core import plgpu
from pallas_kernels.linear.tiles import PROCESSORS
from pallas_kernels.moe.places import TILE
from pallas_kernels.moe.spread import BLOCK, Plan

CLUSTER = 2
DEPTH = 64
"""Columns of a tile of the ring: 128 bytes, the widest swizzle."""
COPYING = BLOCK
"""The warpgroup that does, after those that multiply."""


class Tile(NamedTuple):
    """A program makes two halves of `columns` columns with `stages` tiles in flight."""

    columns: int
    stages: int


class Work(NamedTuple):
    """Where a program's `turn`-th piece of work lies."""

    expert: Any
    row: Any
    tiles: Any
    part: Any
    """Of the columns."""


class Layout(NamedTuple):
    """What a program knows when it is compiled."""

    tile: Tile
    gated: bool
    features: int
    """Of gate, and of up, if `gated`; else of the result."""
    steps: int
    workers: int

    @property
    def parts(self) -> int:
        """Of the columns, that a cluster makes at a time."""
        return self.features // self.tile.columns // (1 if self.gated else 2) // CLUSTER

    def halves(self, part: Array) -> tuple[Array, Array]:
        """The first rows of the weight that the two halves read."""
        n = self.tile.columns
        first = part * n if self.gated else part * 2 * n
        return first, first + (self.features if self.gated else n)


def grouped(
    x: Float[Array, "P K"], w: Float[Array, "E M K"], plan: Plan, *, tile: Tile, gated: bool, interpret: bool = False
) -> Float[Array, "P N"]:
    """x w_e^T of the rows of every block; `gated`: gelu of the first half of the columns times the second."""
    (rows, depth), (_, features, _) = x.shape, w.shape
    features = features // 2 if gated else features
    layout = Layout(tile, gated, features, depth // DEPTH, 2 if interpret else PROCESSORS // CLUSTER)

    def ring(rows: int) -> Any:
        transforms = (plgpu.TilingTransform((8, DEPTH)), plgpu.SwizzleTransform(2 * DEPTH))
        return plgpu.SMEM((tile.stages, rows, DEPTH), x.dtype, transforms=transforms)

    return plgpu.kernel(
        functools.partial(_kernel, layout=layout),
        out_type=jax.ShapeDtypeStruct((rows, features), x.dtype),
        scratch_types=(
            ring(BLOCK * TILE),
            ring(2 * tile.columns),
            plgpu.SMEM((BLOCK, TILE, tile.columns), x.dtype),
            plgpu.Barrier(num_arrivals=3, num_barriers=tile.stages),
            plgpu.ClusterBarrier(num_arrivals=BLOCK, num_barriers=tile.stages, collective_axes=("peer",)),
        ),
        grid=(layout.workers,),
        grid_names=("worker",),
        cluster=(CLUSTER,),
        cluster_names=("peer",),
        num_threads=BLOCK + 1,
        thread_name="group",
        interpret=plgpu.InterpretGPUParams() if interpret else None,
        compiler_params=plgpu.CompilerParams(approx_math=True, lowering_semantics=plgpu.LoweringSemantics.Lane),
        kernel_name="moe_gate_up" if gated else "moe_down",
    )(x, w, *plan)


def _kernel(
    x: Any, w: Any, expert: Any, first: Any, tiles: Any, total: Any, out: Any, *scratch: Any, layout: Layout
) -> None:
    """x [P, K], w [E, M, K], out [P, N], and the plan's arrays."""
    plan = Plan(expert, first, tiles, total)
    group, worker = lax.axis_index("group"), lax.axis_index("worker")
    turns = lax.div(plan.total[0] * layout.parts - worker + layout.workers - 1, layout.workers)

    def work(turn: Array) -> Work:
        """Past the last one that stands in again."""
        number = worker + jnp.minimum(turn, turns - 1) * layout.workers
        block, part = lax.div(number, layout.parts), lax.rem(number, layout.parts)
        part = part * CLUSTER + lax.axis_index("peer")
        return Work(plan.expert[block], plan.first[block], plan.tiles[block], part)

    @pl.when((group == COPYING) & (turns > 0))
    def _() -> None:
        plgpu.set_max_registers(32, action="decrease")
        _copy(x, w, scratch, work, turns, layout)

    @pl.when((group < COPYING) & (turns > 0))
    def _() -> None:
        plgpu.set_max_registers(160, action="increase")

        def step(turn: Array, now: Work) -> Work:
            following = work(turn + 1)  # looked up while this one is multiplied
            pl.when(group < now.tiles)(lambda: _multiply(out, scratch, now, turn, layout))
            pl.when(group >= now.tiles)(lambda: _pass(scratch, turn, layout))
            return following

        lax.fori_loop(0, turns, step, work(0 * turns))
        plgpu.wait_smem_to_gmem(0)


def _copy(x: Any, w: Any, scratch: tuple[Any, ...], work: Any, turns: Array, layout: Layout) -> None:
    x_ring, w_ring, _, filled, read = scratch
    stages, steps, n = layout.tile.stages, layout.steps, layout.tile.columns

    def turn(i: Array, now: Work) -> Work:
        following = work(i + 1)

        @pl.loop(0, steps)
        def _(step: Array) -> None:
            number = i * steps + step
            slot, depth = lax.rem(number, stages), pl.ds(step * DEPTH, DEPTH)
            pl.when(number >= stages)(lambda: plgpu.barrier_wait(read.at[slot]))
            for half, start in enumerate(layout.halves(now.part)):
                source, part = w.at[now.expert, pl.ds(start, n), depth], w_ring.at[slot, pl.ds(half * n, n)]
                plgpu.copy_gmem_to_smem(source, part, filled.at[slot])
            for count in range(1, BLOCK + 1):
                rows = x.at[pl.ds(now.row, count * TILE), depth], x_ring.at[slot, pl.ds(0, count * TILE)]
                copy = functools.partial(plgpu.copy_gmem_to_smem, *rows, filled.at[slot], collective_axes="peer")
                pl.when(now.tiles == count)(copy)

        return following

    lax.fori_loop(0, turns, turn, work(0 * turns))

    # The peer arrives at this program's barriers to its end, so it must not be gone before.
    @pl.loop(jnp.maximum(turns * steps - stages, 0), turns * steps)
    def _(number: Array) -> None:
        plgpu.barrier_wait(read.at[lax.rem(number, stages)])


def _pass(scratch: tuple[Any, ...], turn: Array, layout: Layout) -> None:
    """A warpgroup without rows only keeps step with the ring."""
    filled, read = scratch[3:]

    @pl.loop(0, layout.steps)
    def _(step: Array) -> None:
        slot = lax.rem(turn * layout.steps + step, layout.tile.stages)
        plgpu.barrier_wait(filled.at[slot])
        plgpu.commit_smem()  # its warps wait for each other, as a product would make them
        plgpu.barrier_arrive(read.at[slot])


def _multiply(out: Any, scratch: tuple[Any, ...], now: Work, turn: Array, layout: Layout) -> None:
    n, group = layout.tile.columns, lax.axis_index("group")
    sums = plgpu.ACC((TILE, 2 * n), jnp.float32)
    products = pl.run_scoped(functools.partial(_products, scratch, turn, layout), sums)
    result, row = scratch[2].at[group], now.row + group * TILE

    def store(values: Array, column: Array) -> None:
        plgpu.wait_smem_to_gmem(0, wait_read_only=True)
        result[...] = values.astype(out.dtype)
        plgpu.commit_smem()
        plgpu.copy_smem_to_gmem(result, out.at[pl.ds(row, TILE), pl.ds(column, n)])

    first, second = products[:, :n], products[:, n:]
    if layout.gated:
        store(jax.nn.gelu(first, approximate=True) * second, now.part * n)
    else:
        for values, column in zip((first, second), layout.halves(now.part), strict=True):
            store(values, column)


def _products(scratch: tuple[Any, ...], turn: Array, layout: Layout, sums: Any) -> Float[Array, "R M"]:
    """Of the warpgroup's rows with both halves."""
    x_ring, w_ring, _, filled, read = scratch
    rows, stages, begin = pl.ds(lax.axis_index("group") * TILE, TILE), layout.tile.stages, turn * layout.steps

    @pl.loop(0, layout.steps)
    def _(step: Array) -> None:
        slot = lax.rem(begin + step, stages)
        plgpu.barrier_wait(filled.at[slot])
        plgpu.wgmma(sums, x_ring.at[slot, rows], w_ring.at[slot].transpose((1, 0)))
        plgpu.wgmma_wait(1)  # all but this step's: the tiles of the one before are read
        pl.when(step > 0)(lambda: plgpu.barrier_arrive(read.at[lax.rem(begin + step - 1, stages)]))

    total = sums[...]
    plgpu.barrier_arrive(read.at[lax.rem(begin + layout.steps - 1, stages)])
    return total
