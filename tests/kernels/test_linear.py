import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pallas_kernels.linear import Columns, gated_linear, linear, norm_linear, reference, triton
from pallas_kernels.linear.shapes import SHAPES
from pallas_kernels.linear.tiles import DotTile, GemvTile, choose_tile
from pallas_kernels.norm import Residual
from tests.kernels.device import INTERPRET, KERNEL

EPS = 1e-6
GEMV = GemvTile(rows=4, segments=2, warps=4, programs=3)


def inputs(rows, n, k, dtype):
    shapes = {"x": (rows, k), "y": (rows, k), "weight": (k,), "scale": (1,), "then": (k,), "w": (2 * n, k)}
    shapes["times"] = (rows, 2 * n)
    keys = jax.random.split(jax.random.key(rows), len(shapes))
    given = {
        name: jax.random.normal(key, shape, dtype) for key, (name, shape) in zip(keys, shapes.items(), strict=True)
    }
    return given | {"w": given["w"] * 0.2}


def assert_close(got, want, units=2):
    """By the norm of the difference. float32 sums run in another order: some units in the last place. bfloat16: the
    norm's weight is rounded into the operand and its scale is not, so operands and results differ by a rounding."""
    assert got.dtype == want.dtype
    tolerance = 1e-6 if got.dtype == jnp.float32 else units * 2.0**-8
    got, want = np.asarray(got, np.float32), np.asarray(want, np.float32)
    assert np.linalg.norm(got - want) <= tolerance * np.linalg.norm(want)


@pytest.mark.parametrize(("rows", "dtype"), [(1, "float32"), (3, "bfloat16"), (5, "float32"), (17, "bfloat16")])
@pytest.mark.parametrize("activation", [None, "gated", "times"])
def test_product_is_the_reference(rows, dtype, activation):
    given = inputs(rows, 24, 96, dtype)
    w = given["w"] if activation == "gated" else given["w"][:24]
    times = Columns(given["times"], given["times"].shape[1] // 3) if activation == "times" else None
    got = triton.project(given["x"], w, activation, times, interpret=INTERPRET)
    assert_close(got, reference.project(given["x"], w, activation, times), units=0.5)


CASES = [  # parts of the stream, whether it is normed, activation
    ("x", True, None),
    ("xy", True, "gated"),
    ("xyw", False, "times"),
    ("xs", False, None),
    ("xyws", True, "gated"),
]


@pytest.mark.parametrize(("rows", "tile"), [(1, None), (1, GEMV), (3, None)], ids=["one row", "gemv", "three rows"])
@pytest.mark.parametrize(("parts", "normed", "activation"), CASES)
def test_norm_in_the_product_is_the_reference(rows, tile, parts, normed, activation):
    dtype = jnp.float32 if parts in ("xy", "xyw") else jnp.bfloat16
    given = inputs(rows, 20, 48, dtype)
    names = {"x": "x", "y": "y", "w": "weight", "s": "scale"}
    residual = Residual(**{names[part]: given[names[part]] for part in parts})
    then = given["then"] if normed else None
    w = given["w"] if activation == "gated" else given["w"][:20]
    times = Columns(given["times"], given["times"].shape[1] // 3) if activation == "times" else None
    x, out = triton.norm_linear(residual, then, w, activation, times, eps=EPS, interpret=INTERPRET, tile=tile)
    options = {"activation": activation, "times": times, "eps": EPS}
    want_x, want = norm_linear(residual, then, w, implementation="reference", **options)
    np.testing.assert_allclose(np.asarray(x, np.float32), np.asarray(want_x, np.float32), rtol=1e-6, atol=1e-6)
    assert_close(out, want)


def test_more_rows_take_two_launches():
    given = inputs(5, 16, 32, jnp.float32)
    residual = Residual(given["x"], given["y"], given["weight"])
    with pytest.raises(NotImplementedError):
        triton.norm_linear(residual, given["then"], given["w"], None, None, eps=EPS)
    got = norm_linear(residual, given["then"], given["w"], eps=EPS, implementation=KERNEL)
    want = norm_linear(residual, given["then"], given["w"], eps=EPS, implementation="reference")
    assert_close(got[0], want[0])
    assert_close(got[1], want[1])


def test_products_against_numpy():
    given = inputs(2, 4, 32, jnp.float32)
    full = np.asarray(given["x"], np.float64) @ np.asarray(given["w"], np.float64).T
    gate, up = full[:, :4], full[:, 4:]
    gelu = 0.5 * gate * (1 + np.tanh(np.sqrt(2 / np.pi) * (gate + 0.044715 * gate**3)))
    np.testing.assert_allclose(linear(given["x"], given["w"]), full, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(gated_linear(given["x"], given["w"]), gelu * up, rtol=1e-4, atol=1e-5)


def test_depths_no_tile_divides_fall_back():
    x, w = jnp.ones((1, 24)), jnp.ones((3, 24))
    with pytest.raises(NotImplementedError):
        triton.project(x, w, None, None)
    np.testing.assert_allclose(linear(x, w, implementation=KERNEL), 24.0)


def test_times_belongs_to_its_activation():
    x = jnp.ones((1, 32))
    with pytest.raises(ValueError, match="times"):
        norm_linear(Residual(x), None, x, activation="times", eps=EPS)


def distinct_kernels():
    """One shape of every kernel the released models use: same tile, depth and activation is the same kernel."""
    kernels = {}
    for shape in SHAPES:
        for rows in (1, 4, 64):
            gated = shape.activation == "gated"
            tile = choose_tile(shape.n, shape.k, rows=rows, gated=gated, normed=shape.normed, wide=False)
            kernels.setdefault((rows, shape.activation, shape.normed, shape.then, tile), (shape, rows))
    return list(kernels.values())


@pytest.mark.parametrize(("shape", "rows"), distinct_kernels(), ids=str)
def test_few_launches_without_spilling(shape, rows):
    pytest.importorskip("jax_cuda13_plugin")
    from g4jax.testing.compile_for_gpu import arg, compile_for_gpu

    def array(*dims):
        return arg(dims, "bfloat16")

    def run(x, y, weight, scale, then, w, times):
        if not shape.normed:
            return linear(x, w, implementation="triton")
        options = {
            "times": Columns(times, 0) if shape.activation == "times" else None,
            "eps": EPS,
            "implementation": "triton",
        }
        then = then if shape.then else None
        return norm_linear(Residual(x, y, weight, scale), then, w, activation=shape.activation, **options)

    stream, vector = array(rows, shape.k), array(shape.k)
    arrays = (stream, stream, vector, array(1), vector, array(*shape.weight), array(rows, shape.n))
    options = {"xla_gpu_fail_ptx_compilation_on_register_spilling": True}
    step = compile_for_gpu(run, *arrays, compiler_options=options)
    one_launch = not shape.normed or rows <= triton.MAX_NORM_ROWS
    assert [launch.kind for launch in step.launches] == ["kCustomKernel"] * (1 if one_launch else 2)


@pytest.mark.parametrize("gated", [False, True])
def test_float32_compiles_without_spilling(gated):
    pytest.importorskip("jax_cuda13_plugin")
    from g4jax.testing.compile_for_gpu import arg, compile_for_gpu

    x, w = arg((3, 256), "float32"), arg((512, 256), "float32")
    op = gated_linear if gated else linear
    options = {"xla_gpu_fail_ptx_compilation_on_register_spilling": True}
    step = compile_for_gpu(lambda x, w: op(x, w, implementation="triton"), x, w, compiler_options=options)
    assert [launch.kind for launch in step.launches] == ["kCustomKernel"]


def test_every_depth_of_a_model_has_a_tile():
    for shape in SHAPES:
        gated = shape.activation == "gated"
        tile = choose_tile(shape.n, shape.k, rows=8, gated=gated, normed=shape.normed, wide=False)
        assert isinstance(tile, DotTile)
        assert shape.k % tile.depth == 0
        assert tile.depth >= 32
