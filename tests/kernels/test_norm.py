import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pallas_kernels.norm import Residual, add_rms_norm, reference, rms_norm, triton
from pallas_kernels.norm.shapes import HIDDEN_SIZES
from tests.kernels.device import INTERPRET, KERNEL

EPS = 1e-6


def inputs(rows, width, dtype):
    shapes = {"x": (rows, width), "y": (rows, width), "weight": (width,), "scale": (1,), "a": (width,), "b": (width,)}
    keys = jax.random.split(jax.random.key(rows * width), len(shapes))
    return {name: jax.random.normal(key, shape, dtype) for key, (name, shape) in zip(keys, shapes.items(), strict=True)}


def assert_same(got, want, ulps, terms=1):
    """Within `ulps` units in the last place: the order of a sum may turn a rounding, nothing else differs. A sum of so
    many `terms` of size one may be a small one."""
    for g, w in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert g.dtype == w.dtype
        rtol = ulps * float(jnp.finfo(w.dtype).eps)
        atol = terms * rtol / 8
        np.testing.assert_allclose(np.asarray(g, np.float32), np.asarray(w, np.float32), rtol=rtol, atol=atol)


@pytest.mark.parametrize("parts", ["x", "xy", "xyw", "xs", "xyws"])
@pytest.mark.parametrize(("rows", "width", "dtype"), [(1, 96, "float32"), (5, 100, "bfloat16"), (3, 256, "bfloat16")])
def test_kernel_is_the_reference(parts, rows, width, dtype):
    given = inputs(rows, width, dtype)
    names = {"x": "x", "y": "y", "w": "weight", "s": "scale"}
    residual = Residual(**{names[part]: given[names[part]] for part in parts})
    then = (given["a"], given["b"])[: len(parts) % 3]
    got = triton.add_rms_norm(residual, then, eps=EPS, interpret=INTERPRET)
    assert_same(got, reference.add_rms_norm(residual, then, eps=EPS), 8 if dtype == "float32" else 1)


@pytest.mark.parametrize("parts", ["xy", "xyw", "xys", "xyws"])
@pytest.mark.parametrize(("rows", "width", "dtype"), [(5, 96, "float32"), (17, 100, "bfloat16"), (100, 64, "bfloat16")])
def test_splits_are_summed_and_rounded(parts, rows, width, dtype):
    given = inputs(rows, width, dtype)
    splits = jax.random.normal(jax.random.key(7), (3, rows, width), jnp.float32)
    names = {"x": "x", "y": "y", "w": "weight", "s": "scale"}
    whole = Residual(**{names[part]: given[names[part]] for part in parts})._replace(y=splits.sum(0).astype(dtype))
    then = (given["a"], given["b"])[: len(parts) % 3]
    want = reference.add_rms_norm(whole, then, eps=EPS)
    split = whole._replace(y=splits)
    got = triton.add_rms_norm(split, then, eps=EPS, interpret=INTERPRET)
    assert_same(got, want, 8 if dtype == "float32" else 1, terms=4)
    assert_same(reference.add_rms_norm(split, then, eps=EPS), want, 8 if dtype == "float32" else 0, terms=4)


@pytest.mark.parametrize(("rows", "width", "dtype"), [(1, 96, "float32"), (5, 100, "bfloat16")])
def test_sum_of_norms_is_the_reference(rows, width, dtype):
    given = inputs(rows, width, dtype)
    args = (given["x"], given["y"]), (given["a"], given["b"])
    got = triton.sum_rms_norm(*args, eps=EPS, interpret=INTERPRET)
    assert_same(got, reference.sum_rms_norm(*args, eps=EPS), 8 if dtype == "float32" else 1, terms=2)


def test_steps_round_as_the_model_does():
    """Norm, sum and scale are each rounded to the stream's dtype, not only the last."""
    given = inputs(17, 64, jnp.bfloat16)
    x, (h,) = add_rms_norm(Residual(given["x"], given["y"], given["weight"], given["scale"]), (given["a"],), eps=EPS)
    want = (given["x"] + rms_norm(given["y"], given["weight"], eps=EPS)) * given["scale"]
    np.testing.assert_array_equal(np.asarray(x, np.float32), np.asarray(want, np.float32))
    np.testing.assert_array_equal(
        np.asarray(h, np.float32), np.asarray(rms_norm(want, given["a"], eps=EPS), np.float32)
    )


def test_rms_norm_against_its_equation():
    x, weight = np.array([[3.0, 4.0]], np.float32), np.array([2.0, 0.5], np.float32)
    want = x / np.sqrt(12.5 + 0.5) * weight
    np.testing.assert_allclose(rms_norm(jnp.asarray(x), jnp.asarray(weight), eps=0.5), want, rtol=1e-6)


def test_stream_that_is_already_computed_is_handed_back():
    x = jnp.ones((2, 32))
    np.testing.assert_array_equal(triton.add_rms_norm(Residual(x), (), eps=EPS)[0], x)


def test_rows_too_long_for_the_kernel_fall_back():
    x = jnp.ones((1, triton.MAX_WIDTH + 2))
    _, (h,) = add_rms_norm(Residual(x), (x[0],), eps=EPS, implementation=KERNEL)
    np.testing.assert_allclose(h, 1.0, rtol=1e-5)


@pytest.mark.parametrize("width", sorted(HIDDEN_SIZES.values()))
@pytest.mark.parametrize("splits", [None, 3, 6, 11])
def test_one_launch_without_spilling(width, splits):
    pytest.importorskip("jax_cuda13_plugin")
    from g4jax.testing.compile_for_gpu import arg, compile_for_gpu

    rows, vector = arg((8, width), "bfloat16"), arg((width,), "bfloat16")

    def run(x, y, weight, scale, then):
        return add_rms_norm(Residual(x, y, weight, scale), (then, weight), eps=EPS, implementation="triton")

    options = {"xla_gpu_fail_ptx_compilation_on_register_spilling": True}
    y = rows if splits is None else arg((splits, 8, width), "float32")
    step = compile_for_gpu(run, rows, y, vector, arg((1,), "bfloat16"), vector, compiler_options=options)
    assert [launch.kind for launch in step.launches] == ["kCustomKernel"]
