"""q|k|v rows: norm, RoPE and the write into pages, every implementation against a dense float64 computation."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pallas_kernels.core import Implementation
from pallas_kernels.qkv import qkv_rope, qkv_rope_write
from pallas_kernels.qkv.shapes import PAGE_SIZE, SHAPES
from tests.kernels.device import KERNEL

EPS = 1e-6
PAGE, OFFSET = [3, 3, 1, 0, 6, 0], [0, 3, 2, 1, 3, 2]
CASES = [  # num_heads, kv_heads, head_dim, k_eq_v
    (4, 2, 32, False),
    (6, 1, 64, True),
    (2, 2, 512, False),
]


def make(n: int, k: int, h: int, parts: int, dtype: str = "float32"):
    """qkv, q_norm, k_norm, cos, sin, k_pages, v_pages of six tokens and seven pages of four."""
    random, tokens = np.random.default_rng(n + k), len(PAGE)
    shapes = [(tokens, (n + parts * k) * h), (h,), (h,), (tokens, h // 2), (tokens, h // 2), (7, k, 4, h), (7, k, 4, h)]
    return [jnp.asarray(random.standard_normal(s), dtype) for s in shapes]


def dense(qkv, q_norm, k_norm, cos, sin, n: int, k_eq_v: bool):
    """(q, k, v) in float64."""
    qkv, q_norm, k_norm, cos, sin = (np.asarray(a, np.float64) for a in (qkv, q_norm, k_norm, cos, sin))
    h = q_norm.size
    heads = qkv.reshape(len(qkv), -1, h)
    heads = heads / np.sqrt((heads**2).mean(-1, keepdims=True) + EPS)
    width = (heads.shape[1] - n) // (1 if k_eq_v else 2)
    angle = (cos + 1j * sin)[:, None]

    def rope(x):
        turned = (x[..., : h // 2] + 1j * x[..., h // 2 :]) * angle
        return np.concatenate([turned.real, turned.imag], axis=-1)

    return rope(heads[:, :n] * q_norm), rope(heads[:, n : n + width] * k_norm), heads[:, -width:]


@pytest.mark.parametrize("implementation", ["reference", KERNEL])
@pytest.mark.parametrize("n, k, h, k_eq_v", CASES)
def test_rows_are_normed_rotated_and_written_once(n, k, h, k_eq_v, implementation: Implementation):
    args = make(n, k, h, 1 if k_eq_v else 2)
    q, new_k, new_v = dense(*args[:5], n, k_eq_v)
    expected = [np.array(p, np.float64) for p in args[5:]]
    for token, (page, offset) in enumerate(zip(PAGE, OFFSET, strict=True)):
        expected[0][page, :, offset], expected[1][page, :, offset] = new_k[token], new_v[token]
    settings = {"num_heads": n, "k_eq_v": k_eq_v, "eps": EPS, "implementation": implementation}
    got = jax.jit(functools.partial(qkv_rope_write, **settings))(*args, jnp.array(PAGE), jnp.array(OFFSET))
    for have, want in zip(got, (q, *expected), strict=True):
        np.testing.assert_allclose(np.asarray(have, np.float64), want, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("implementation", ["reference", KERNEL])
@pytest.mark.parametrize("owns_keys", [True, False])
def test_splits_of_the_rows_are_added_up(owns_keys, implementation: Implementation):
    qkv, *others = make(4, 2, 32, 2 if owns_keys else 0, "bfloat16")
    others[1] = others[1] if owns_keys else None
    splits = jnp.asarray(np.random.default_rng(0).standard_normal((3, *qkv.shape)), jnp.float32)
    settings = {"num_heads": 4, "k_eq_v": False, "eps": EPS, "implementation": implementation}
    step = jax.jit(functools.partial(qkv_rope_write, **settings))
    at = jnp.array(PAGE), jnp.array(OFFSET)
    have = step(splits, *others, *at)
    want = step(splits.sum(0).astype(jnp.bfloat16), *others, *at)
    assert have[0].dtype == jnp.bfloat16
    q, pages = (have[0], want[0]), zip(have[1:], want[1:], strict=True)
    for one, other in (q, *((a[1:], b[1:]) for a, b in pages)):  # page 0 is the null page
        one, other = one.astype(jnp.float32), other.astype(jnp.float32)
        np.testing.assert_allclose(one, other, rtol=2**-7, atol=2**-6)  # sums in another order, as below


def test_bfloat16_rounds_where_the_reference_does():
    args = (*make(4, 1, 32, 2, "bfloat16"), jnp.array(PAGE), jnp.array(OFFSET))
    kernel, reference = (
        jax.jit(functools.partial(qkv_rope_write, num_heads=4, k_eq_v=False, eps=EPS, implementation=name))(*args)
        for name in (KERNEL, "reference")
    )
    # A rotation carries a unit in the last place of either element (up to 4 here, so 2^-6) into a small result.
    for have, want in zip(kernel, reference, strict=True):
        np.testing.assert_allclose(np.asarray(have, np.float32), np.asarray(want, np.float32), rtol=2**-7, atol=2**-6)


def test_a_layer_without_keys_of_its_own_writes_nothing():
    args = make(4, 2, 32, 0)
    args[2] = None
    q, k_pages, v_pages = qkv_rope_write(
        *args, jnp.array(PAGE), jnp.array(OFFSET), num_heads=4, k_eq_v=False, eps=EPS, implementation=KERNEL
    )
    want, k, v = qkv_rope(*args[:5], num_heads=4, eps=EPS)
    assert k is None and v is None
    np.testing.assert_array_equal(k_pages, args[5])
    np.testing.assert_array_equal(v_pages, args[6])
    np.testing.assert_allclose(q, want, rtol=1e-5, atol=1e-5)


def test_rows_that_collide_on_the_null_page_leave_the_others_alone():
    args = make(4, 2, 32, 2)
    page, offset = jnp.array([2, 0, 0, 0, 0, 0]), jnp.array([1, 0, 0, 0, 0, 0])
    settings = {"num_heads": 4, "k_eq_v": False, "eps": EPS}
    got, want = (
        jax.jit(functools.partial(qkv_rope_write, **settings, implementation=name))(*args, page, offset)
        for name in (KERNEL, "reference")
    )
    for have, expect in zip(got[1:], want[1:], strict=True):
        np.testing.assert_allclose(have[1:], expect[1:], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: f"{s.model}-{s.kind}")
def test_one_launch_without_copies_or_spills_on_a_gpu(shape):
    pytest.importorskip("jax_plugins.xla_cuda13")
    from g4jax.testing.compile_for_gpu import arg, compile_for_gpu

    tokens, h = 2048, shape.head_dim
    pages = arg((4096, shape.kv_heads, PAGE_SIZE, h), "bfloat16")
    half = arg((tokens, h // 2), "bfloat16")
    step = compile_for_gpu(
        lambda *args: qkv_rope_write(
            *args, num_heads=shape.num_heads, k_eq_v=shape.k_eq_v, eps=EPS, implementation="triton"
        ),
        *(arg((tokens, shape.columns), "bfloat16"), arg((h,), "bfloat16"), arg((h,), "bfloat16"), half, half),
        *(pages, pages, arg((tokens,), "int32"), arg((tokens,), "int32")),
        donate_argnums=(5, 6),
        compiler_options={"xla_gpu_fail_ptx_compilation_on_register_spilling": True},
    )
    assert [launch.kind for launch in step.launches] == ["kCustomKernel"]
    assert not step.copies_of(pages.shape)
