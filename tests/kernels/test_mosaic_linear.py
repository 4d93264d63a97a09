"""The Hopper kernel of the gated product, run by Mosaic GPU's simulator and compiled for an H200."""

import jax
import numpy as np
import pytest

from pallas_kernels.core import Unsupported
from pallas_kernels.linear import mosaic, reference
from pallas_kernels.linear.mosaic import CLUSTER, DEPTH, GatedTile, choose
from pallas_kernels.linear.shapes import SHAPES
from pallas_kernels.linear.tiles import PROCESSORS
from tests.kernels.device import needs_mosaic, simulates_mosaic

LARGE = [s for s in SHAPES if s.activation == "gated" and s.n * s.k >= mosaic.MIN_ELEMENTS]


def operands(rows: int, f: int, k: int, dtype: str = "bfloat16"):
    x = jax.random.normal(jax.random.key(rows), (rows, k), dtype)
    return x, 0.2 * jax.random.normal(jax.random.key(f), (2 * f, k), dtype)


@simulates_mosaic
@pytest.mark.parametrize(
    ("rows", "f", "k", "tile"),
    [
        (128, 64, 256, GatedTile(16, stages=3)),
        (104, 40, 320, GatedTile(16, stages=2)),  # the last program has a half, its peer nothing
        (72, 72, 64, GatedTile(16, stages=3)),  # fewer steps than stages
    ],
)
def test_the_product_is_the_reference(rows, f, k, tile):
    x, w = operands(rows, f, k)
    have = np.asarray(mosaic.launch(x, w, tile=tile, interpret=True), np.float32)  # first: see test_mosaic_moe
    want = np.asarray(reference.project(x, w, "gated", None), np.float32)
    assert np.linalg.norm(have - want) <= 2.0**-9 * np.linalg.norm(want)


@pytest.mark.parametrize("f", [2112, 6144, 10240, 12288, 21504])
def test_every_processor_is_busy_alike_and_its_memory_suffices(f):
    tile = choose(f)
    programs = CLUSTER * -(-f // (tile.features * CLUSTER))
    assert 0.92 <= programs / PROCESSORS / -(-programs // PROCESSORS) <= 1
    stage, result = 2 * DEPTH * (128 + 2 * tile.features), 2 * 128 * tile.features
    assert tile.stages * stage + result <= 225 * 1024  # of 227 KB two are Mosaic's own


@needs_mosaic
@pytest.mark.parametrize("shape", LARGE, ids=lambda s: s.model)
def test_it_is_one_launch_without_spills(shape, tmp_path, monkeypatch):
    pytest.importorskip("jax_plugins.xla_cuda13")
    from g4jax.testing.compile_for_gpu import arg, compile_for_gpu

    monkeypatch.setenv("MOSAIC_GPU_DUMP_TO", str(tmp_path))
    monkeypatch.setenv("MOSAIC_GPU_DUMP_PTXAS", "1")
    step = compile_for_gpu(mosaic.gated, arg((128, shape.k), "bfloat16"), arg((2 * shape.n, shape.k), "bfloat16"))
    assert len(step.launches) == 1 and "mosaic_gpu" in step.hlo
    (report,) = tmp_path.glob("*.ptxas")
    assert "0 bytes spill stores, 0 bytes spill loads" in report.read_text()


@pytest.mark.parametrize(
    ("rows", "f", "k", "dtype"),
    [
        (128, 10240, 2560, "float32"),
        (64, 10240, 2560, "bfloat16"),
        (136, 10240, 2560, "bfloat16"),
        (100, 10240, 2560, "bfloat16"),
        (128, 6144, 1536, "bfloat16"),
    ],
)
def test_what_it_leaves_to_others(rows, f, k, dtype):
    shapes = jax.ShapeDtypeStruct((rows, k), dtype), jax.ShapeDtypeStruct((2 * f, k), dtype)
    with pytest.raises(Unsupported):
        jax.eval_shape(mosaic.gated, *shapes)
