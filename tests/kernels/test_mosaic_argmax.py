"""The Hopper kernel of the best column, run by Mosaic GPU's simulator and compiled for an H200."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pallas_kernels.core import Unsupported
from pallas_kernels.linear import mosaic_argmax, reference
from pallas_kernels.linear.shapes import SHAPES
from tests.kernels.device import needs_mosaic, simulates_mosaic

HEADS = [shape for shape in SHAPES if shape.name == "head"]


@simulates_mosaic
@pytest.mark.parametrize(
    ("rows", "columns", "k", "programs", "barred"),
    [
        (104, 1200, 192, 4, [3, 700, -5, 5000]),  # the second turn has a part of a tile for one, nothing for its peer
        (72, 520, 64, 2, []),  # fewer steps in a turn than stages
        (128, 512, 320, 4, [0]),  # a cluster without work
    ],
)
def test_the_column_is_that_of_the_reference(rows, columns, k, programs, barred):
    x = jax.random.normal(jax.random.key(rows), (rows, k), jnp.bfloat16)
    w = jax.random.normal(jax.random.key(k), (columns, k), jnp.bfloat16)
    w = w.at[-1].set(w[columns // 2])  # equal values: the first counts
    found = mosaic_argmax.launch(x, w, jnp.array(barred, jnp.int32), programs=programs, interpret=True)
    column, value = mosaic_argmax.best_of(*found, rows, columns)
    want, largest = reference.argmax_linear(x, w, jnp.array(barred, jnp.int32))
    np.testing.assert_array_equal(column, want)
    np.testing.assert_allclose(value, largest, rtol=1e-5)


@simulates_mosaic
def test_a_row_of_nan_gets_a_column_and_leaves_the_others_alone():
    x = jax.random.normal(jax.random.key(0), (72, 64), jnp.bfloat16).at[5].set(jnp.nan)
    w = jax.random.normal(jax.random.key(1), (520, 64), jnp.bfloat16)
    nothing = jnp.zeros(0, jnp.int32)
    found = mosaic_argmax.launch(x, w, nothing, programs=2, interpret=True)
    column, _ = mosaic_argmax.best_of(*found, 72, 520)
    want, _ = reference.argmax_linear(x, w, nothing)
    others = np.arange(72) != 5
    np.testing.assert_array_equal(column[others], want[others])
    assert 0 <= column[5] < 520


@needs_mosaic
@pytest.mark.parametrize("shape", HEADS, ids=lambda s: s.model)
def test_it_is_one_launch_and_a_reduction_without_spills(shape, tmp_path, monkeypatch):
    pytest.importorskip("jax_plugins.xla_cuda13")
    from g4jax.testing.compile_for_gpu import arg, compile_for_gpu

    monkeypatch.setenv("MOSAIC_GPU_DUMP_TO", str(tmp_path))
    monkeypatch.setenv("MOSAIC_GPU_DUMP_PTXAS", "1")
    x, w = arg((104, shape.k), "bfloat16"), arg((shape.n, shape.k), "bfloat16")
    step = compile_for_gpu(lambda x, w: mosaic_argmax.argmax(x, w, jnp.array([7, 9]))[0], x, w)
    assert len(step.launches) <= 3 and "mosaic_gpu" in step.hlo
    (report,) = tmp_path.glob("*.ptxas")
    assert "0 bytes spill stores, 0 bytes spill loads" in report.read_text()


@pytest.mark.parametrize(
    ("rows", "columns", "k", "barred", "dtype"),
    [
        (104, 262144, 2560, 2, "float32"),
        (64, 262144, 2560, 2, "bfloat16"),
        (100, 262144, 2560, 2, "bfloat16"),
        (136, 262144, 2560, 2, "bfloat16"),
        (104, 262144, 2560, 9, "bfloat16"),
        (104, 8192, 2560, 2, "bfloat16"),
        (104, 2**24, 64, 2, "bfloat16"),
    ],
)
def test_what_it_leaves_to_others(rows, columns, k, barred, dtype):
    shapes = (jax.ShapeDtypeStruct(size, dtype) for size in ((rows, k), (columns, k)))
    with pytest.raises(Unsupported):
        jax.eval_shape(mosaic_argmax.argmax, *shapes, jax.ShapeDtypeStruct((barred,), "int32"))
