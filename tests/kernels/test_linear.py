import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pallas_kernels.core import Unsupported
from pallas_kernels.linear import (
    Columns,
    argmax_linear,
    gated_linear,
    linear,
    norm_linear,
    reference,
    split_linear,
    split_times,
    triton,
    unrounded_linear,
)
from pallas_kernels.linear.shapes import SHAPES
from pallas_kernels.linear.split_times import project_times
from pallas_kernels.linear.tiles import (
    MAX_NORM_ROWS,
    MIN_STEPS,
    PROCESSORS,
    DotTile,
    GemvTile,
    choose_tile,
    sums_heads,
)
from pallas_kernels.norm import Residual, add_rms_norm
from pallas_kernels.norm.reference import summed
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


def assert_close(got, want, units=2.0):
    """By the norm of the difference. float32 sums run in another order: some units in the last place. bfloat16: the
    norm's weight is rounded into the operand and its scale is not, so operands and results differ by a rounding."""
    assert got.dtype == want.dtype
    tolerance = 1e-6 if got.dtype == jnp.float32 else units * 2.0**-8
    got, want = np.asarray(got, np.float32), np.asarray(want, np.float32)
    assert np.linalg.norm(got - want) <= tolerance * np.linalg.norm(want)


@pytest.mark.parametrize(
    ("rows", "dtype"), [(1, "float32"), (3, "bfloat16"), (5, "float32"), (17, "bfloat16"), (64, "bfloat16")]
)
@pytest.mark.parametrize("activation", [None, "gated", "times"])
def test_product_is_the_reference(rows, dtype, activation):
    given = inputs(rows, 24, 96, dtype)
    w = given["w"] if activation == "gated" else given["w"][:24]
    times = Columns(given["times"], 1) if activation == "times" else None
    got = triton.project(given["x"], w, activation, times, interpret=INTERPRET)
    assert_close(got, reference.project(given["x"], w, activation, times), units=0.5)


@pytest.mark.parametrize(("rows", "n", "k"), [(2, 16, 1024), (65, 16, 1024), (104, 32, 1152)])
def test_gate_of_many_rows_in_splits_is_the_reference(rows, n, k):
    rng = np.random.default_rng(rows)
    x, w, wide = (jnp.asarray(rng.normal(size=size), jnp.bfloat16) for size in ((rows, k), (n, k), (rows, 3 * n)))
    times = Columns(wide, 2)
    got = project_times(x, w * 0.05, times, interpret=INTERPRET)
    assert_close(got, reference.project(x, w * 0.05, "times", times), units=0.5)


def test_gate_of_one_row_or_odd_width_is_left_to_others():
    for rows, n, k in [(1, 256, 2560), (129, 256, 2560), (104, 96, 2560), (104, 256, 256)]:
        x, w, times = (jax.ShapeDtypeStruct(size, jnp.bfloat16) for size in ((rows, k), (n, k), (rows, n)))
        with pytest.raises(Unsupported):
            jax.eval_shape(lambda x, w, t: project_times(x, w, Columns(t, 0)), x, w, times)


CASES = [  # parts of the stream, whether it is normed, activation
    ("x", True, None),
    ("xy", True, "gated"),
    ("xyw", False, "times"),
    ("xs", False, None),
    ("xyws", True, "gated"),
]


@pytest.mark.parametrize("tile", [GemvTile(1, 16, programs=4), GemvTile(2, 4, programs=3), GemvTile(4, 2, programs=2)])
@pytest.mark.parametrize(("n", "k", "activation"), [(5, 2112, None), (7, 704, "gated"), (6, 112, None)])
def test_one_row_of_a_depth_that_segments_do_not_divide(n, k, activation, tile):
    rng = np.random.default_rng(k)
    x = jnp.asarray(rng.normal(size=(1, k)), jnp.float32)
    w = jnp.asarray(rng.normal(size=((2 if activation else 1) * n, k)) * k**-0.5, jnp.float32)
    got = triton.project(x, w, activation, None, interpret=INTERPRET, tile=tile)
    np.testing.assert_allclose(got, reference.project(x, w, activation, None), atol=1e-5)


@pytest.mark.parametrize("tile", [None, GEMV], ids=["chosen", "gemv"])
@pytest.mark.parametrize(("parts", "normed", "activation"), CASES)
def test_norm_in_the_product_is_the_reference(tile, parts, normed, activation):
    dtype = jnp.float32 if parts in ("xy", "xyw") else jnp.bfloat16
    given = inputs(1, 20, 48, dtype)
    names = {"x": "x", "y": "y", "w": "weight", "s": "scale"}
    residual = Residual(**{names[part]: given[names[part]] for part in parts})
    then = given["then"] if normed else None
    w = given["w"] if activation == "gated" else given["w"][:20]
    times = Columns(given["times"], 1) if activation == "times" else None
    x, out = triton.norm_linear(residual, then, w, activation, times, eps=EPS, interpret=INTERPRET, tile=tile)
    options = {"activation": activation, "times": times, "eps": EPS}
    want_x, want = norm_linear(residual, then, w, implementation="reference", **options)
    np.testing.assert_allclose(np.asarray(x, np.float32), np.asarray(want_x, np.float32), rtol=1e-6, atol=1e-6)
    assert_close(out, want)


def test_more_rows_take_two_launches():
    given = inputs(2, 16, 32, jnp.float32)
    residual = Residual(given["x"], given["y"], given["weight"])
    with pytest.raises(NotImplementedError):
        triton.norm_linear(residual, given["then"], given["w"], None, None, eps=EPS)
    got = norm_linear(residual, given["then"], given["w"], eps=EPS, implementation=KERNEL)
    want = norm_linear(residual, given["then"], given["w"], eps=EPS, implementation="reference")
    assert_close(got[0], want[0])
    assert_close(got[1], want[1])


@pytest.mark.parametrize("rows", [5, 17, 100])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("k", [96, 112], ids=["even splits", "uneven splits"])
def test_splits_sum_to_the_product(rows, dtype, k):
    given = inputs(rows, 24, k, dtype)
    tile = DotTile(16, 16, splits=3)
    got = triton.project(given["x"], given["w"], None, None, interpret=INTERPRET, tile=tile)
    assert got.shape == (3, rows, 48)
    assert got.dtype == jnp.float32
    assert_close(summed(got, dtype), reference.linear(given["x"], given["w"]), units=0.5)


@pytest.mark.parametrize(("rows", "splits"), [(1, 0), (2, 4), (17, 8), (100, 5), (129, 0)])
def test_narrow_products_are_split_for_the_norm(rows, splits):
    """Not where every program of the next product would sum them, and not above the kernels' rows."""
    given = inputs(rows, 24, 2048, jnp.bfloat16)
    w = given["w"][:24] * 2048**-0.5
    y = split_linear(given["x"], w, implementation=KERNEL)
    assert y.shape == ((splits,) if splits else ()) + (rows, 24)
    assert split_linear(given["x"], w, implementation="reference").shape == (rows, 24)
    stream, weight, scale, then = given["x"][:, :24], given["weight"][:24], given["scale"], given["then"][:24]
    got = add_rms_norm(Residual(stream, y, weight, scale), (then,), eps=EPS, implementation=KERNEL)
    whole = Residual(stream, linear(given["x"], w, implementation="reference"), weight, scale)
    want = add_rms_norm(whole, (then,), eps=EPS, implementation="reference")
    jax.tree.map(assert_close, got, want)


def test_splits_before_one_row_take_two_launches():
    given = inputs(1, 16, 32, jnp.bfloat16)
    parts = jax.random.normal(jax.random.key(1), (4, 1, 32))
    residual = Residual(given["x"], parts, given["weight"])
    with pytest.raises(NotImplementedError):
        triton.norm_linear(residual, given["then"], given["w"], None, None, eps=EPS)
    got = norm_linear(residual, given["then"], given["w"], eps=EPS, implementation=KERNEL)
    want = norm_linear(residual, given["then"], given["w"], eps=EPS, implementation="reference")
    jax.tree.map(assert_close, got, want)


@pytest.mark.parametrize("rows", [1, 5, 33, 65])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_logits_keep_what_was_summed(rows, dtype):
    given = inputs(rows, 24, 64, dtype)
    got = unrounded_linear(given["x"], given["w"], implementation=KERNEL)
    assert got.dtype == jnp.float32
    want = np.asarray(given["x"], np.float64) @ np.asarray(given["w"], np.float64).T
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(
        unrounded_linear(given["x"], given["w"], implementation="reference"), want, rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("implementation", ["reference", KERNEL])
@pytest.mark.parametrize("barred", [[], [0, 5, 47, -1, 48]])
def test_the_best_column_is_none_of_the_barred(barred, implementation):
    given = inputs(5, 24, 64, "float32")
    column, value = argmax_linear(given["x"], given["w"], jnp.array(barred, jnp.int32), implementation=implementation)
    product = np.asarray(given["x"], np.float64) @ np.asarray(given["w"], np.float64).T
    product[:, [c for c in barred if 0 <= c < 48]] = -np.inf
    np.testing.assert_array_equal(column, product.argmax(1))
    np.testing.assert_allclose(value, product.max(1), rtol=1e-5)


@pytest.mark.parametrize(("rows", "splits"), [(16, 0), (64, 8), (100, 5)])
def test_the_product_of_a_norm_is_split_where_its_reader_may_sum(rows, splits):
    given = inputs(rows, 24, 2048, jnp.bfloat16)
    residual, w = Residual(given["x"], given["y"], given["weight"], given["scale"]), given["w"] * 2048**-0.5
    _, got = norm_linear(residual, given["then"], w, split=True, eps=EPS, implementation=KERNEL)
    assert got.shape == ((splits,) if splits else ()) + (rows, 48)
    _, want = norm_linear(residual, given["then"], w, eps=EPS, implementation="reference")
    assert_close(summed(got, jnp.bfloat16), want)
    with pytest.raises(ValueError, match="split"):
        norm_linear(residual, given["then"], w, activation="gated", split=True, eps=EPS)


def test_no_activation_of_splits():
    x = jnp.ones((1, 32))
    with pytest.raises(ValueError, match="splits"):
        triton.project(x, x, "gated", None, tile=DotTile(16, 16, splits=2))


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


def tile_of(shape, rows):
    gated, normed = shape.activation == "gated", shape.normed and rows <= MAX_NORM_ROWS
    if shape.activation == "times" and not normed:
        return split_times.choose_tile(shape.n, shape.k, rows=rows, wide=False)
    split = shape.summed and (not shape.normed or sums_heads(shape.k, rows))
    return choose_tile(shape.n, shape.k, rows=rows, gated=gated, normed=normed, wide=False, split=split)


def distinct_kernels():
    """One shape of every kernel the released models use: same tile, depth and activation is the same kernel. XLA's own
    products are left out."""
    kernels = {}
    for shape in SHAPES:
        for rows in (1, 4, 8, 64, 128):
            tile = tile_of(shape, rows)
            kernels.setdefault((rows, shape.activation, shape.normed, shape.then, shape.summed, tile), (shape, rows))
    return [case for (*_, tile), case in kernels.items() if tile is not None]


@pytest.mark.parametrize(("shape", "rows"), distinct_kernels(), ids=str)
def test_few_launches_without_spilling(shape, rows):
    """A product of the stream with the norm before it, another with the norm that reads its result."""
    pytest.importorskip("jax_cuda13_plugin")
    from g4jax.testing.compile_for_gpu import arg, compile_for_gpu

    def array(*dims):
        return arg(dims, "bfloat16")

    def of_stream(x, y, weight, scale, then, w, times):
        options = {"times": Columns(times, 0) if shape.activation == "times" else None, "eps": EPS}
        residual, then = Residual(x, y, weight, scale), then if shape.then else None
        options |= {"activation": shape.activation, "split": shape.summed}
        return norm_linear(residual, then, w, implementation="triton", **options)

    def to_stream(x, stream, weight, scale, w):
        y = (split_linear if shape.summed else linear)(x, w, implementation="triton")
        return add_rms_norm(Residual(stream, y, weight, scale), (weight,), eps=EPS, implementation="triton")

    x, result, w = array(rows, shape.k), array(rows, shape.n), array(*shape.weight)
    options = {"xla_gpu_fail_ptx_compilation_on_register_spilling": True}
    if shape.normed:
        vector = array(shape.k)
        step = compile_for_gpu(of_stream, x, x, vector, array(1), vector, w, result, compiler_options=options)
    else:
        step = compile_for_gpu(to_stream, x, result, array(shape.n), array(1), w, compiler_options=options)
    several = 3 if shape.activation == "times" else 2
    count = 1 if shape.normed and rows <= MAX_NORM_ROWS else several
    assert [launch.kind for launch in step.launches] == ["kCustomKernel"] * count


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
        tile = tile_of(shape, 8)
        assert isinstance(tile, DotTile)
        assert shape.k % tile.depth == 0
        assert tile.depth >= 32


@pytest.mark.parametrize("rows", [5, 8, 16, 17, 64, 65, 128])
def test_splits_are_long_and_their_sums_small(rows):
    deep = [shape for shape in SHAPES if shape.summed and not shape.normed and shape.k >= 2048]
    for shape, tile in [(shape, tile_of(shape, rows)) for shape in deep]:
        assert isinstance(tile, DotTile)
        programs = -(-shape.n // tile.rows) * tile.splits
        assert PROCESSORS // 2 < programs <= 2 * PROCESSORS
        assert shape.k // tile.depth // tile.splits >= MIN_STEPS
        assert tile.splits == 1 or tile.splits * rows * 4 * 2 <= shape.k * 2
