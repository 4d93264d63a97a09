"""One query per sequence against pages: each implementation against a dense float64 softmax, NaN in other slots."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pallas_kernels.core import Implementation
from pallas_kernels.decode_attention import attend_decode, decode_attention, triton
from pallas_kernels.decode_attention.shapes import PAGE_SIZE, SHAPES
from pallas_kernels.decode_attention.tiling import Tiling, choose
from pallas_kernels.qkv import qkv_rope
from tests.kernels.device import INTERPRET, KERNEL

EPS = 1e-6
MAX_KEYS = 96


def lengths_around(page_size: int, window: int | None) -> list[int]:
    """A padding row, and lengths at which a page or the window begins or ends."""
    edges = [0, 1, page_size - 1, page_size, page_size + 1, MAX_KEYS]
    return edges + ([] if window is None else [window - 1, window, window + 1, window + page_size])


@functools.cache
def make(n: int, k: int, h: int, z: int, window: int | None, parts: int = 2, dtype: str = "float32"):
    """Random rows and pages whose every slot outside the visible old keys holds NaN, under a shuffled table."""
    lengths = np.array(lengths_around(z, window))
    rows, width = len(lengths), MAX_KEYS // z
    random = np.random.default_rng(n * h + z)
    table = 1 + random.permutation(rows * width).reshape(rows, width)
    pages = [np.full((rows * width + 2, k, z, h), np.nan, np.float32) for _ in range(2)]
    for row, length in enumerate(lengths):
        for key in range(0 if window is None else max(0, length - window), length):
            for p in pages:
                p[table[row, key // z], :, key % z] = 0
    pages = [p + random.standard_normal(p.shape) for p in pages]
    shapes = (rows, (n + parts * k) * h), (h,), (h,), (rows, h // 2)
    qkv, q_norm, k_norm, angle = (random.standard_normal(s) for s in shapes)
    arrays = [qkv, 0.3 * q_norm, k_norm, np.cos(angle), np.sin(angle), *pages]
    return *(jnp.asarray(a, dtype) for a in arrays), jnp.asarray(table, jnp.int32), jnp.asarray(lengths, jnp.int32)


def dense(q, k_pages, v_pages, table, lengths, window: int | None) -> np.ndarray:
    """softmax(q k^T) v in float64, row by row and head by head."""
    q, k_pages, v_pages = (np.asarray(a, np.float64) for a in (q, k_pages, v_pages))
    rows, n, h = q.shape
    kv_heads, z = k_pages.shape[1:3]
    out = np.zeros((rows, n, h))
    for row, length in enumerate(np.asarray(lengths)):
        seen = np.arange(0 if window is None else max(0, length - window), length)
        if not len(seen):
            continue
        page = np.asarray(table)[row, seen // z]
        for head in range(n):
            kv = head // (n // kv_heads)
            p = np.exp((s := k_pages[page, kv, seen % z] @ q[row, head]) - s.max())
            out[row, head] = p / p.sum() @ v_pages[page, kv, seen % z]
    return out.reshape(rows, n * h)


def with_new_keys(k_pages, v_pages, k, v, table, positions):
    """The pages after the write of every row that is in use, by hand."""
    k_pages, v_pages = np.array(k_pages), np.array(v_pages)
    for row, position in enumerate(np.asarray(positions)):
        if position >= 0:
            slot = np.asarray(table)[row, position // k_pages.shape[2]], slice(None), position % k_pages.shape[2]
            k_pages[slot], v_pages[slot] = k[row], v[row]
    return k_pages, v_pages


CASES = [  # num_heads, kv_heads, head_dim, page_size, window, k_eq_v
    (2, 2, 32, 4, None, False),
    (4, 2, 32, 8, 9, False),
    (8, 2, 64, 32, None, True),
    (8, 1, 32, 16, 33, False),
    (2, 1, 512, 16, 24, True),
]


@pytest.mark.parametrize("implementation", ["reference", KERNEL])
@pytest.mark.parametrize("n, k, h, z, window, k_eq_v", CASES)
def test_attend_decode(n, k, h, z, window, k_eq_v, implementation: Implementation):
    *args, k_pages, v_pages, table, lengths = make(n, k, h, z, window, 1 if k_eq_v else 2)
    positions = lengths - 1
    q, new_k, new_v = jax.jit(functools.partial(qkv_rope, num_heads=n, k_eq_v=k_eq_v, eps=EPS))(*args)
    pages = with_new_keys(k_pages, v_pages, new_k, new_v, table, positions)
    settings = {"num_heads": n, "k_eq_v": k_eq_v, "window": window, "eps": EPS, "implementation": implementation}
    step = jax.jit(functools.partial(attend_decode, **settings))
    out, *written = step(*args, k_pages, v_pages, table, positions)
    np.testing.assert_allclose(out, dense(q, *pages, table, lengths, window), rtol=1e-5, atol=2e-5)
    for have, want in zip(written, pages, strict=True):  # page 0 is the null page
        np.testing.assert_allclose(have[1:], want[1:], rtol=1e-5, atol=1e-5, equal_nan=True)


@pytest.mark.parametrize("implementation", ["reference", KERNEL])
@pytest.mark.parametrize("n, k, h, z, window, k_eq_v", CASES[3:4])
def test_decode_attention(n, k, h, z, window, k_eq_v, implementation: Implementation):
    qkv, *_, k_pages, v_pages, table, lengths = make(n, k, h, z, window)
    q = 0.3 * qkv[:, : n * h].reshape(-1, n, h)
    step = jax.jit(functools.partial(decode_attention, window=window, implementation=implementation))
    out = step(q, k_pages, v_pages, table, lengths)
    np.testing.assert_allclose(out, dense(q, k_pages, v_pages, table, lengths, window), rtol=1e-5, atol=2e-5)


def test_a_layer_that_shares_its_keys_only_reads():
    qkv, q_norm, _, cos, sin, k_pages, v_pages, table, lengths = make(4, 2, 32, 8, 9)
    qkv = qkv[:, : 4 * 32]
    q, _, _ = qkv_rope(qkv, q_norm, None, cos, sin, num_heads=4, eps=EPS)
    out, same_k, same_v = attend_decode(
        qkv, q_norm, None, cos, sin, k_pages, v_pages, table, lengths - 1,
        num_heads=4, k_eq_v=False, window=9, eps=EPS, implementation=KERNEL,
    )  # fmt: skip
    np.testing.assert_array_equal(same_k, k_pages)
    np.testing.assert_array_equal(same_v, v_pages)
    np.testing.assert_allclose(out, dense(q, k_pages, v_pages, table, lengths, 9), rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("owns_keys", [True, False])
def test_splits_of_the_rows_are_added_up(owns_keys):
    qkv, q_norm, k_norm, cos, sin, *cache, lengths = make(4, 2, 32, 8, 9)
    qkv, k_norm = (qkv, k_norm) if owns_keys else (qkv[:, : 4 * 32], None)
    part = jnp.asarray(np.random.default_rng(1).standard_normal(qkv.shape), jnp.float32)
    settings = {"num_heads": 4, "k_eq_v": False, "window": 9, "eps": EPS, "implementation": KERNEL}
    have, want = (
        attend_decode(rows, q_norm, k_norm, cos, sin, *cache, lengths - 1, **settings)
        for rows in (jnp.stack([part, qkv - part]), qkv)
    )
    np.testing.assert_allclose(have[0], want[0], rtol=1e-5, atol=2e-5)
    for one, other in zip(have[1:], want[1:], strict=True):  # page 0 is the null page
        np.testing.assert_allclose(one[1:], other[1:], rtol=1e-5, atol=2e-5, equal_nan=True)


@pytest.mark.parametrize("keys, splits, least", [(16, 1, 1), (16, 40, 2)])
def test_the_result_does_not_depend_on_the_tiling(keys, splits, least):
    qkv, *_, k_pages, v_pages, table, lengths = make(8, 1, 32, 16, 33)
    q = 0.3 * qkv[:, : 8 * 32].reshape(-1, 8, 32)
    tiling = Tiling(keys, splits, least, num_warps=4, num_stages=2)
    out = triton.decode_attention(q, k_pages, v_pages, table, lengths, window=33, interpret=INTERPRET, tiling=tiling)
    np.testing.assert_allclose(out, dense(q, k_pages, v_pages, table, lengths, 33), rtol=1e-5, atol=2e-5)


def test_bfloat16():
    args = make(4, 2, 32, 8, 9, 2, "bfloat16")
    settings = {"num_heads": 4, "k_eq_v": False, "window": 9, "eps": EPS}
    have, want = (
        jax.jit(functools.partial(attend_decode, **settings, implementation=name))(*args[:-1], args[-1] - 1)[0]
        for name in (KERNEL, "reference")
    )
    have, want = have.astype(jnp.float32), want.astype(jnp.float32)
    # Weights and partial results are rounded to 8 bits before they meet values of up to 4.
    np.testing.assert_allclose(have, want, rtol=2**-6, atol=4 * 2**-8)


@pytest.mark.parametrize("shape, rows", [(s, 1) for s in SHAPES] + [(SHAPES[0], 100), (SHAPES[-1], 100)])
def test_launches_copies_and_spills_on_a_gpu(shape, rows):
    pytest.importorskip("jax_plugins.xla_cuda13")
    from g4jax.testing.compile_for_gpu import arg, compile_for_gpu

    h, width = shape.head_dim, 131072 // PAGE_SIZE
    pages = arg((30000, shape.kv_heads, PAGE_SIZE, h), "bfloat16")
    half, norm = arg((rows, h // 2), "bfloat16"), arg((h,), "bfloat16")
    settings = {"num_heads": shape.num_heads, "k_eq_v": shape.k_eq_v, "window": shape.window, "eps": EPS}
    step = compile_for_gpu(
        lambda *args: triton.attend_decode(*args, **settings, interpret=False),
        *(arg((rows, shape.columns), "bfloat16"), norm, norm, half, half),
        *(pages, pages, arg((rows, width), "int32"), arg((rows,), "int32")),
        donate_argnums=(5, 6),
        compiler_options={"xla_gpu_fail_ptx_compilation_on_register_spilling": True},
    )
    splits = choose(rows, shape.kv_heads, h, 2, width * PAGE_SIZE, shape.window).splits
    assert [launch.kind for launch in step.launches] == ["kCustomKernel"] * (1 if splits == 1 else 2)
    assert not step.copies_of(pages.shape)
