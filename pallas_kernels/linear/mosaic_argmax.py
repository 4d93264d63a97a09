"""The largest of very many columns for 65 to 128 rows on Hopper: the head, where only the best token is asked for.

Two programs of a cluster take turns of 256 columns each, as many as there are for all processors: what one copies for
its next turn comes while it looks for the largest of this one. As in `mosaic.py` one warpgroup copies, the others
multiply 64 rows each, and a tile of x is copied once for both programs. The product itself is never written: 104 rows
of 262,144 logits are 109 MB, written and read again.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.experimental import pallas as pl
from jaxtyping import Float, Int

from pallas_kernels.core import Unsupported, launcher, plgpu
from pallas_kernels.linear.mosaic import CLUSTER, DEPTH, HALF, multiply, ring
from pallas_kernels.linear.tiles import PROCESSORS

COLUMNS = 256
"""Of a turn: the most that one product of the tensor cores takes."""
STAGES = 4
MAX_BARRED = 8
"""Each is a comparison of every element."""
MIN_ELEMENTS = 2**27
"""A smaller weight is not worth a kernel of its own."""
EXACT = 2**24
"""Columns are counted in float32: the device finds the largest of no other kind."""
MATRIX = plgpu.Layout.WGMMA
VECTOR = MATRIX.reduce(1)
LOWEST = -jnp.inf


def argmax(
    x: Float[Array, "R K"], w: Float[Array, "V K"], barred: Int[Array, " B"]
) -> tuple[Int[Array, " R"], Float[Array, " R"]]:
    """See `api.argmax_linear`; raises Unsupported for what is not its own."""
    (rows, k), v = x.shape, len(w)
    if not x.dtype == w.dtype == jnp.bfloat16:
        raise Unsupported(f"{x.dtype} times {w.dtype}")
    if not HALF < rows <= 2 * HALF or rows % 8 or k % DEPTH or not v < EXACT or len(barred) > MAX_BARRED:
        raise Unsupported(f"{rows} rows, {v} columns of depth {k}, {len(barred)} of them barred")
    if v * k < MIN_ELEMENTS:
        raise Unsupported(f"{v} columns of depth {k} are left to XLA")
    return best_of(*launch(x, w, barred, programs=PROCESSORS), rows, v)


def best_of(
    value: Float[Array, "P 128"], column: Float[Array, "P 128"], rows: int, columns: int
) -> tuple[Int[Array, " R"], Float[Array, " R"]]:
    """Of all programs; some column even of a row of NaN, in which none is the largest."""
    found = value[:, :rows], column[:, :rows]
    largest, first = lax.reduce(found, (LOWEST, float(EXACT)), _larger, (0,))
    return jnp.minimum(first, columns - 1).astype(jnp.int32), largest


def _larger(one: tuple[Array, Array], other: tuple[Array, Array]) -> tuple[Array, Array]:
    """Of (value, column); the first column of equal values."""
    is_one = (one[0] > other[0]) | ((one[0] == other[0]) & (one[1] < other[1]))
    return jnp.where(is_one, one[0], other[0]), jnp.where(is_one, one[1], other[1])


@launcher("programs", "interpret")
def launch(
    x: Float[Array, "R K"],
    w: Float[Array, "V K"],
    barred: Int[Array, " B"],
    *,
    programs: int,
    interpret: bool = False,
) -> tuple[Float[Array, "P 128"], Float[Array, "P 128"]]:
    """Each program's largest value of every row, and its column."""
    out = jax.ShapeDtypeStruct((programs, 2 * HALF), jnp.float32)
    return plgpu.kernel(
        functools.partial(_kernel, clusters=programs // CLUSTER),
        out_type=(out, out),
        scratch_types=(
            ring(STAGES, 2 * HALF, x.dtype),
            ring(STAGES, COLUMNS, x.dtype),
            plgpu.SMEM((2, 2, HALF), jnp.float32),
            plgpu.Barrier(num_arrivals=2, num_barriers=STAGES),
            plgpu.ClusterBarrier(num_arrivals=2, num_barriers=STAGES, collective_axes=("peer",)),
        ),
        grid=(1, programs // CLUSTER),  # an axis of one: a copy may reach past x only from a traced row
        grid_names=("rows", "cluster"),
        cluster=(CLUSTER,),
        cluster_names=("peer",),
        num_threads=3,
        thread_name="group",
        interpret=plgpu.InterpretGPUParams() if interpret else None,
        kernel_name="argmax_linear",
    )(x, w, jnp.append(barred, -1))  # at least one


def _kernel(
    x: Any,
    w: Any,
    barred: Any,
    best: Any,
    where: Any,
    x_tiles: Any,
    w_tiles: Any,
    found: Any,
    filled: Any,
    read: Any,
    *,
    clusters: int,
) -> None:
    """x [R, K], w [V, K], best and where [P, 128]. Copies read zeros outside of an array."""
    steps, columns = x.shape[1] // DEPTH, w.shape[0]
    cluster, peer, group = (lax.axis_index(name) for name in ("cluster", "peer", "group"))
    turns = lax.div(pl.cdiv(columns, CLUSTER * COLUMNS) - cluster + (clusters - 1), clusters)

    def column_of(turn: Array) -> Array:
        return ((turn * clusters + cluster) * CLUSTER + peer) * COLUMNS

    @pl.when(group == 2)
    def _copy() -> None:
        plgpu.set_max_registers(40, action="decrease")
        rows = pl.ds(lax.axis_index("rows") * 2 * HALF, 2 * HALF)

        @pl.loop(0, turns * steps)
        def _(step: Array) -> None:
            slot, depth = lax.rem(step, STAGES), pl.ds(lax.rem(step, steps) * DEPTH, DEPTH)
            pl.when(step >= STAGES)(lambda: plgpu.barrier_wait(read.at[slot]))
            plgpu.copy_gmem_to_smem(x.at[rows, depth], x_tiles.at[slot], filled.at[slot], collective_axes="peer")
            tile = w.at[pl.ds(column_of(lax.div(step, steps)), COLUMNS), depth]
            plgpu.copy_gmem_to_smem(tile, w_tiles.at[slot], filled.at[slot])

        # The peer arrives at this program's barriers to its end, so it must not be gone before.
        @pl.loop(jnp.maximum(turns * steps - STAGES, 0), turns * steps)
        def _(step: Array) -> None:
            plgpu.barrier_wait(read.at[lax.rem(step, STAGES)])

    @pl.when(group < 2)
    def _multiply() -> None:
        plgpu.set_max_registers(232, action="increase")

        def turn(index: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
            product = functools.partial(multiply, x_tiles, w_tiles, filled, read, index * steps, steps)
            values = pl.run_scoped(product, plgpu.ACC((HALF, COLUMNS), jnp.float32))
            column = column_of(index) + plgpu.broadcasted_iota(jnp.int32, (HALF, COLUMNS), 1, layout=MATRIX)
            allowed = column < columns
            for place in range(barred.shape[0] - 1):
                allowed &= column != barred[place]
            values = jnp.where(allowed, values, LOWEST)
            largest = jnp.max(values, axis=1)
            is_largest = values == lax.broadcast_in_dim(largest, values.shape, [0])
            first = -jnp.max(jnp.where(is_largest, -column.astype(jnp.float32), LOWEST), axis=1)
            is_better = largest > carry[0]
            return jnp.where(is_better, largest, carry[0]), jnp.where(is_better, first, carry[1])

        nothing = (plgpu.layout_cast(jnp.full((HALF,), value, jnp.float32), VECTOR) for value in (LOWEST, EXACT))
        for place, result in enumerate(lax.fori_loop(0, turns, turn, tuple(nothing))):
            found[place, group] = result
        plgpu.commit_smem()
        program = cluster * CLUSTER + peer
        for place, out in enumerate((best, where)):
            plgpu.copy_smem_to_gmem(found.at[place, group], out.at[program, pl.ds(group * HALF, HALF)])
        plgpu.wait_smem_to_gmem(0)
