"""The experts of many rows on Hopper: plan, result (off a GPU the simulator's) and what is compiled for an H200."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pallas_kernels.core import Unsupported
from pallas_kernels.moe import mosaic, reference
from pallas_kernels.moe.mosaic import Tiles, choose
from pallas_kernels.moe.mosaic_product import DEPTH, Tile
from pallas_kernels.moe.places import TILE, most_rows, place
from pallas_kernels.moe.shapes import SHAPES
from pallas_kernels.moe.spread import BLOCK, spread
from tests.kernels.device import INTERPRET, needs_mosaic

E, D, F, K = 6, 128, 64, 2
TILES = Tiles(Tile(16, stages=3), Tile(16, stages=2))


def routing(kind: str, rows: int) -> np.ndarray:
    rng = np.random.default_rng(rows)
    ids = np.stack([rng.permutation(E)[:K] for _ in range(rows)]).astype(np.int32)
    if kind == "skewed":
        ids[:, 0], ids[:, 1] = 1, np.where(ids[:, 1] == 1, 5, ids[:, 1])
    elif kind == "padding":
        ids[rows // 3 :] = -1
    elif kind == "foreign":
        ids = 3 * ids - E
    elif kind == "nobody":
        ids[:] = -1
    return ids


def operands(rows: int, kind: str):
    keys = jax.random.split(jax.random.key(rows), 4)
    u, gate_up, down = (
        jax.random.normal(key, shape, "bfloat16") * shape[-1] ** -0.25
        for key, shape in zip(keys, ((rows, D), (E, 2 * F, D), (E, D, F)), strict=False)
    )
    return u, jax.random.normal(keys[3], (rows, K), "float32"), jnp.asarray(routing(kind, rows)), gate_up, down


@needs_mosaic
@pytest.mark.parametrize("kind", ["skewed", "padding", "foreign", "nobody"])
def test_the_result_is_the_reference(kind):
    u, weights, ids, gate_up, down = operands(186, kind)  # skewed: blocks of one, two and three tiles
    have = mosaic.launch(u, weights, ids, gate_up, down, tiles=TILES, interpret=INTERPRET)
    # Waited for before the reference is dispatched: XLA lets 32 computations of a CPU device be under way. Those that
    # queue behind the simulated kernel count, and so do its eight threads, each of which waits for the others.
    have = np.asarray(have, np.float32)
    want = np.asarray(reference.experts(u, weights, ids, gate_up, down), np.float32)
    assert np.linalg.norm(have - want) <= 2.0**-7 * np.linalg.norm(want)


@pytest.mark.parametrize("kind", ["even", "skewed", "padding", "foreign"])
def test_blocks_are_of_one_expert_and_hold_its_rows(kind):
    ids = routing(kind, 500)
    u = jnp.arange(500, dtype=jnp.float32)[:, None] + jnp.zeros((1, 16))
    places = place(jnp.asarray(ids.reshape(-1)), E, interpret=INTERPRET)
    rows, plan = spread(u, jnp.asarray(ids), places, interpret=INTERPRET)
    plan = [np.asarray(array) for array in plan]
    (total,) = plan.pop()
    held = {e: [] for e in range(E)}
    for expert, first, tiles in zip(*(array[:total] for array in plan), strict=True):
        assert first % TILE == 0 and 1 <= tiles <= BLOCK and first + tiles * TILE <= most_rows(ids.size, E)
        held[expert] += range(first, first + tiles * TILE)
    for e in range(E):
        slots = np.flatnonzero(ids.reshape(-1) == e)
        count = -(-len(slots) // TILE) * TILE
        assert len(held[e]) == count
        np.testing.assert_array_equal(held[e][: len(slots)], np.asarray(places.row)[slots])
        np.testing.assert_array_equal(np.asarray(rows)[held[e][: len(slots)], 0], slots // K)
    everything = sum(held.values(), [])
    assert len(set(everything)) == len(everything)


def test_the_memory_of_a_processor_suffices():
    for tile in choose(SHAPES["26B-A4B"].width, SHAPES["26B-A4B"].features):
        stage, result = 2 * DEPTH * (BLOCK * TILE + 2 * tile.columns), 2 * BLOCK * TILE * tile.columns
        assert tile.columns == 88 and tile.stages * stage + result <= 225 * 1024  # of 227 KB two are Mosaic's own


@needs_mosaic
def test_five_launches_without_spills(tmp_path, monkeypatch):
    pytest.importorskip("jax_plugins.xla_cuda13")
    from g4jax.testing.compile_for_gpu import arg, compile_for_gpu

    monkeypatch.setenv("MOSAIC_GPU_DUMP_TO", str(tmp_path))
    monkeypatch.setenv("MOSAIC_GPU_DUMP_PTXAS", "1")
    num_experts, width, features, k = SHAPES["26B-A4B"]
    gate_up, down = arg((num_experts, 2 * features, width), "bfloat16"), arg((num_experts, width, features), "bfloat16")
    rows = (arg((2048, width), "bfloat16"), arg((2048, k), "float32"), arg((2048, k), "int32"))
    options = {"xla_gpu_fail_ptx_compilation_on_register_spilling": True}
    step = compile_for_gpu(mosaic.experts, *rows, gate_up, down, compiler_options=options)
    assert len(step.launches) == 5
    assert not step.copies_of(gate_up.shape) and not step.copies_of(down.shape)
    reports = [report.read_text() for report in tmp_path.glob("*.ptxas")]
    assert len(reports) == 2 and all("0 bytes spill stores, 0 bytes spill loads" in report for report in reports)


@pytest.mark.parametrize(
    ("rows", "num_experts", "width", "features", "dtype"),
    [
        (1016, 128, 2816, 704, "bfloat16"),
        (2048, 128, 2816, 704, "float32"),
        (2048, 128, 2752, 704, "bfloat16"),
        (2048, 128, 2816, 96, "bfloat16"),
    ],
)
def test_what_it_leaves_to_others(rows, num_experts, width, features, dtype):
    shapes = ((rows, width), dtype), ((rows, 8), "float32"), ((rows, 8), "int32")
    shapes += ((num_experts, 2 * features, width), dtype), ((num_experts, width, features), dtype)
    with pytest.raises(Unsupported):
        jax.eval_shape(mosaic.experts, *(jax.ShapeDtypeStruct(*shape) for shape in shapes))
