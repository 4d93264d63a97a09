"""Router and experts: every implementation against float64, uneven routing and foreign experts included."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pallas_kernels.core import Unsupported
from pallas_kernels.moe import experts, gemv, route, triton
from pallas_kernels.moe.combine import combine
from pallas_kernels.moe.groups import group
from pallas_kernels.moe.shapes import SHAPES
from tests.kernels.device import INTERPRET, KERNEL

E, D, F, K = 16, 64, 48, 3


@functools.cache
def make(rows: int, routing: str, num_experts: int = E, dtype: str = "float32"):
    """u, weights, ids, gate_up, down."""
    rng = np.random.default_rng(rows)
    ids = np.stack([rng.permutation(num_experts)[:K] for _ in range(rows)])
    if routing == "one":
        ids[:] = [5, 2, 9]
    elif routing == "skewed":
        ids[:, 0] = num_experts - 1
    elif routing == "foreign":
        ids -= num_experts // 2
        ids[0] = [-1, num_experts, 2**30]
    elif routing == "partly foreign":
        ids[:] = [-1, 5, 2**30]
    shapes = ((rows, D), (num_experts, 2 * F, D), (num_experts, D, F))
    u, gate_up, down = (jnp.asarray(rng.normal(size=s) * s[-1] ** -0.25, dtype) for s in shapes)
    return u, jnp.asarray(rng.normal(size=ids.shape), jnp.float32), jnp.asarray(ids, jnp.int32), gate_up, down


def dense(u, weights, ids, gate_up, down) -> np.ndarray:
    """Slot by slot in float64."""
    u, weights, gate_up, down = (np.asarray(a, np.float64) for a in (u, weights, gate_up, down))
    out = np.zeros(u.shape)
    for row, chosen in enumerate(np.asarray(ids)):
        for weight, e in zip(weights[row], chosen, strict=True):
            if 0 <= e < len(down):
                gate, up = np.split(gate_up[e] @ u[row], 2)
                gelu = 0.5 * gate * (1 + np.tanh(np.sqrt(2 / np.pi) * (gate + 0.044715 * gate**3)))
                out[row] += weight * (down[e] @ (gelu * up))
    return out


def run(implementation: str, args) -> np.ndarray:
    """The kernel is called past the api, which would fall back to the reference where the kernel declines."""
    if implementation == "reference":
        return np.asarray(experts(*args, implementation="reference"), np.float64)
    return np.asarray(jax.jit(functools.partial(triton.experts, interpret=INTERPRET))(*args), np.float64)


@pytest.mark.parametrize("rows", [1, 33])
@pytest.mark.parametrize("routing", ["even", "one", "skewed", "foreign"])
def test_reference(rows, routing):
    args = make(rows, routing)
    np.testing.assert_allclose(run("reference", args), dense(*args), rtol=1e-4, atol=1e-4)


def test_reference_of_few_experts():
    args = make(5, "foreign", num_experts=4)
    np.testing.assert_allclose(run("reference", args), dense(*args), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "rows, routing",
    [(1, "even"), (1, "foreign"), (1, "partly foreign"), (3, "foreign"), (5, "skewed"), (33, "one"), (33, "foreign")],
)
def test_kernels(rows, routing):
    args = make(rows, routing)
    np.testing.assert_allclose(run(KERNEL, args), dense(*args), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("implementation", ["reference", KERNEL])
@pytest.mark.parametrize("rows", [1, 3, 33])
def test_bfloat16(rows, implementation):
    args = make(rows, "even", dtype="bfloat16")
    expected = dense(*args)
    # Two roundings to 8 bits (the activation, the result of a slot), of sums of F terms, against the largest result.
    np.testing.assert_allclose(run(implementation, args), expected, atol=2**-7 * np.abs(expected).max())


def test_many_tokens_an_expert_are_shared_out():
    args = make(200, "skewed", num_experts=4, dtype="bfloat16")
    first, _ = triton.grouped_blocks(D, F, 200 * K / 4, jnp.dtype("bfloat16"))
    assert first.chunks > 1 and first.tokens > 16
    expected = dense(*args)
    np.testing.assert_allclose(run(KERNEL, args), expected, atol=2**-7 * np.abs(expected).max())


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("which", [0, 1])
def test_one_of_the_products_of_a_row_in_registers(which, dtype):
    args = make(1, "partly foreign", dtype=dtype)
    first, second = triton.slotwise_blocks(D, F, K, jnp.dtype(dtype))
    registers = gemv.choose(D, F, K, jnp.dtype(dtype))
    tiles = (registers[0], second) if which == 0 else (first, registers[1])
    have = jax.jit(functools.partial(triton.experts, tiles=tiles, interpret=INTERPRET))(*args)
    expected = dense(*args)
    np.testing.assert_allclose(np.asarray(have, np.float64), expected, atol=2**-7 * max(np.abs(expected).max(), 1))


def test_which_rows_go_to_registers():
    num_experts, width, features, k = SHAPES["26B-A4B"]
    kinds = [triton.choose(width, features, num_experts, rows, k, jnp.dtype("bfloat16")) for rows in (1, 2, 4, 5)]
    assert [isinstance(first, gemv.Warps) for first, _ in kinds] == [True, False, False, False]
    for sizes, dtype in (((width, features), "float32"), ((8192, features), "bfloat16"), ((2824, 704), "bfloat16")):
        with pytest.raises(Unsupported):
            gemv.choose(*sizes, k, jnp.dtype(dtype))
    assert not isinstance(triton.choose(width, features, num_experts, 1, k, jnp.dtype("float32"))[0], gemv.Warps)


def test_the_weighted_sum_reads_only_what_is_here():
    rng = np.random.default_rng(0)
    ids, weights = rng.integers(-1, 5, (7, K)), rng.normal(size=(7, K))
    here = (ids >= 0) & (ids < 4)
    results = np.where(here[..., None], rng.normal(size=(7, K, 48)), np.nan)
    args = (jnp.asarray(results.reshape(-1, 48), jnp.float32), jnp.asarray(weights, jnp.float32), jnp.asarray(ids))
    have = combine(*args, 4, interpret=INTERPRET)
    expected = np.sum(np.where(here[..., None], results * weights[..., None], 0), axis=1)
    np.testing.assert_allclose(have, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("num_slots", [5, 1500, 20000])
def test_slots_are_sorted_by_expert_and_foreign_ones_left_out(num_slots):
    ids = np.random.default_rng(0).integers(-2, 9, num_slots).astype(np.int32)
    order, start, count = (np.asarray(a) for a in jax.jit(lambda i: group(i, 7, interpret=INTERPRET))(ids))
    for e in range(7):
        np.testing.assert_array_equal(order[start[e] : start[e] + count[e]], np.flatnonzero(ids == e))


@pytest.mark.parametrize("implementation", ["reference", KERNEL])
@pytest.mark.parametrize("num_experts, k", [(128, 8), (6, 3)])
def test_route(num_experts, k, implementation):
    rng = np.random.default_rng(k)
    logits = rng.integers(-3, 4, (9, num_experts)) + rng.integers(0, 2, (9, 1)) * rng.normal(size=(9, num_experts))
    scale = rng.normal(size=num_experts).astype(np.float32)
    kernel = functools.partial(triton.route, interpret=INTERPRET) if implementation == KERNEL else route
    weights, ids = jax.jit(functools.partial(kernel, k=k, factor=0.5))(logits.astype(np.float32), scale)
    expected = np.argsort(-logits.astype(np.float32), axis=1, kind="stable")[:, :k]  # the lower id first
    p = np.exp(0.5 * np.take_along_axis(logits, expected, 1))
    np.testing.assert_array_equal(ids, expected)
    np.testing.assert_allclose(weights, p / p.sum(1, keepdims=True) * scale[expected], rtol=1e-5)


@pytest.mark.parametrize("implementation", ["reference", KERNEL])
def test_padding_is_sent_nowhere(implementation):
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(5, 16)), jnp.bfloat16)
    padding = jnp.array([False, True, False, False, True])
    weights, ids = route(logits, jnp.ones(16), k=2, implementation=implementation)
    some_weights, some_ids = route(logits, jnp.ones(16), padding, k=2, implementation=implementation)
    np.testing.assert_array_equal(some_ids, jnp.where(padding[:, None], -1, ids))
    np.testing.assert_array_equal(some_weights, weights)


def test_more_choices_than_experts_are_refused():
    with pytest.raises(ValueError, match="fewer"):
        route(jnp.zeros((1, 4)), jnp.ones(4), k=5)


@pytest.mark.parametrize(
    "rows, launches, dtype", [(1, 2, "bfloat16"), (64, 4, "bfloat16"), (2048, 4, "bfloat16"), (16, 4, "float32")]
)
def test_few_launches_without_spilling(rows, launches, dtype):
    pytest.importorskip("jax_plugins.xla_cuda13")
    from g4jax.testing.compile_for_gpu import arg, compile_for_gpu

    num_experts, width, features, k = SHAPES["26B-A4B"]
    gate_up, down = arg((num_experts, 2 * features, width), dtype), arg((num_experts, width, features), dtype)
    u, weights, ids = arg((rows, width), dtype), arg((rows, k), "float32"), arg((rows, k), "int32")
    options = {"xla_gpu_fail_ptx_compilation_on_register_spilling": True}
    step = compile_for_gpu(triton.experts, u, weights, ids, gate_up, down, compiler_options=options)
    assert len(step.launches) <= launches
    assert not step.copies_of(gate_up.shape) and not step.copies_of(down.shape)


def test_routing_is_one_launch():
    pytest.importorskip("jax_plugins.xla_cuda13")
    from g4jax.testing.compile_for_gpu import arg, compile_for_gpu

    step = compile_for_gpu(functools.partial(triton.route, k=8), arg((64, 128), "bfloat16"), arg((128,), "bfloat16"))
    assert len(step.launches) == 1
