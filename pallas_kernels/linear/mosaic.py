"""The large gated product of 65 to 128 rows on Hopper, bound by reading its weight once.

A program makes `features` columns of the result: it reads as many rows of both halves of w, and all of x. One of its
three warpgroups copies tiles into a ring of stages, the others multiply 64 rows of x each. The two programs of a
cluster copy every tile of x once between them: what all of them read of it would otherwise be as much as w.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.experimental import pallas as pl
from jaxtyping import Float

from pallas_kernels.core import Unsupported, launcher, plgpu
from pallas_kernels.linear.reference import activate
from pallas_kernels.linear.tiles import PROCESSORS

HALF = 64
"""Rows of a warpgroup: what the tensor cores take."""
CLUSTER = 2
DEPTH = 64
"""Columns of a tile: 128 bytes, the widest swizzle."""
MAX_FEATURES = 88
"""Gate and up of so many are one product of the tensor cores, which takes 256 columns at most, and four stages fit."""
STAGES = 4
"""Tiles in flight; a fifth fits and made the products of E4B and 31B 7 % slower."""
MIN_ELEMENTS = 5 * 2**22
"""Of gate and of up, each: E2B's are smaller, and XLA's own product is as fast there."""


class GatedTile(NamedTuple):
    """A program makes `features` columns with `stages` tiles in flight."""

    features: int
    stages: int


def choose(f: int) -> GatedTile:
    """The features that give every processor one program, or as many programs as all others."""
    turns = 1
    while (features := 8 * pl.cdiv(f, 8 * turns * PROCESSORS)) > MAX_FEATURES:
        turns += 1
    return GatedTile(features, STAGES)


def gated(x: Float[Array, "R K"], w: Float[Array, "M K"]) -> Float[Array, "R F"]:
    """`gelu(x @ w[:F].T) * (x @ w[F:].T)` with w [2F, K]; raises Unsupported for what is not its own."""
    (rows, k), f = x.shape, w.shape[0] // 2
    if not x.dtype == w.dtype == jnp.bfloat16:
        raise Unsupported(f"{x.dtype} times {w.dtype}")
    if not HALF < rows <= 2 * HALF or rows % 8 or f % 8 or k % DEPTH:
        raise Unsupported(f"{rows} rows, {f} features of depth {k}")
    if f * k < MIN_ELEMENTS:
        raise Unsupported(f"{f} features of depth {k} are left to XLA")
    return launch(x, w, tile=choose(f))


@launcher("tile", "interpret")
def launch(
    x: Float[Array, "R K"], w: Float[Array, "M K"], *, tile: GatedTile, interpret: bool = False
) -> Float[Array, "R F"]:
    (rows, k), f = x.shape, w.shape[0] // 2
    return plgpu.kernel(
        functools.partial(_kernel, tile=tile),
        out_type=jax.ShapeDtypeStruct((rows, f), x.dtype),
        scratch_types=(
            ring(tile.stages, 2 * HALF, x.dtype),
            ring(tile.stages, 2 * tile.features, x.dtype),
            plgpu.SMEM((2, HALF, tile.features), x.dtype),
            plgpu.Barrier(num_arrivals=3, num_barriers=tile.stages),
            plgpu.ClusterBarrier(num_arrivals=2, num_barriers=tile.stages, collective_axes=("peer",)),
        ),
        grid=(1, pl.cdiv(f, tile.features * CLUSTER)),  # an axis of one: a copy may reach past x only from a traced row
        grid_names=("rows", "block"),
        cluster=(CLUSTER,),
        cluster_names=("peer",),
        num_threads=3,
        thread_name="group",
        interpret=plgpu.InterpretGPUParams() if interpret else None,
        kernel_name="gated_linear",
    )(x, w.reshape(2, f, k))


def _kernel(
    x: Any, w: Any, out: Any, x_tiles: Any, w_tiles: Any, result: Any, filled: Any, read: Any, *, tile: GatedTile
) -> None:
    """x [R, K], w [2, F, K], out [R, F]. Copies read zeros outside of an array, and write nothing there."""
    steps, n = x.shape[1] // DEPTH, tile.features
    group, feature = lax.axis_index("group"), (lax.axis_index("block") * CLUSTER + lax.axis_index("peer")) * n

    @pl.when(group == 2)
    def _copy() -> None:
        plgpu.set_max_registers(40, action="decrease")
        rows = pl.ds(lax.axis_index("rows") * 2 * HALF, 2 * HALF)

        @pl.loop(0, steps)
        def _(step: Array) -> None:
            slot, depth = lax.rem(step, tile.stages), pl.ds(step * DEPTH, DEPTH)
            pl.when(step >= tile.stages)(lambda: plgpu.barrier_wait(read.at[slot]))
            plgpu.copy_gmem_to_smem(x.at[rows, depth], x_tiles.at[slot], filled.at[slot], collective_axes="peer")
            for half in range(2):
                source, part = w.at[half, pl.ds(feature, n), depth], w_tiles.at[slot, pl.ds(half * n, n)]
                plgpu.copy_gmem_to_smem(source, part, filled.at[slot])

        # The peer arrives at this program's barriers to its end, so it must not be gone before.
        @pl.loop(max(0, steps - tile.stages), steps)
        def _(step: Array) -> None:
            plgpu.barrier_wait(read.at[lax.rem(step, tile.stages)])

    @pl.when(group < 2)
    def _multiply() -> None:
        plgpu.set_max_registers(232, action="increase")
        sums = plgpu.ACC((HALF, 2 * n), jnp.float32)
        products = pl.run_scoped(functools.partial(multiply, x_tiles, w_tiles, filled, read, 0, steps), sums)
        result[group] = activate([part.astype(out.dtype) for part in (products[:, :n], products[:, n:])], None)
        plgpu.commit_smem()
        # The minima change nothing but what Mosaic can know: its tiles of the result must divide `out`.
        row, column = jnp.minimum(group * HALF, out.shape[0]), jnp.minimum(feature, out.shape[1])
        plgpu.copy_smem_to_gmem(result.at[group], out.at[pl.ds(row, HALF), pl.ds(column, n)])
        plgpu.wait_smem_to_gmem(0)


def ring(stages: int, rows: int, dtype: Any) -> Any:
    """Shared memory for so many tiles of [rows, DEPTH], as the tensor cores take them."""
    transforms = (plgpu.TilingTransform((8, DEPTH)), plgpu.SwizzleTransform(2 * DEPTH))
    return plgpu.SMEM((stages, rows, DEPTH), dtype, transforms=transforms)


def multiply(
    x_tiles: Any, w_tiles: Any, filled: Any, read: Any, first: Array | int, steps: int, sums: Any
) -> Float[Array, "R M"]:
    """The warpgroup's 64 rows of x times all rows of w, over the tiles of `steps` steps from the `first` on."""
    rows, stages = pl.ds(lax.axis_index("group") * HALF, HALF), x_tiles.shape[0]

    @pl.loop(0, steps)
    def _(step: Array) -> None:
        slot = lax.rem(first + step, stages)
        plgpu.barrier_wait(filled.at[slot])
        plgpu.wgmma(sums, x_tiles.at[slot, rows], w_tiles.at[slot].transpose((1, 0)))
        plgpu.wgmma_wait(1)  # all but this step's: the tiles of the one before are read
        pl.when(step > 0)(lambda: plgpu.barrier_arrive(read.at[lax.rem(first + step - 1, stages)]))

    total = sums[...]
    plgpu.barrier_arrive(read.at[(first + steps - 1) % stages])
    return total
