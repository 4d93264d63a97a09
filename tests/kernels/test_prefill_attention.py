"""Packed queries against pages: every implementation against a dense float64 softmax, garbage where nobody looks."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pallas_kernels.prefill_attention import prefill_attention, triton
from pallas_kernels.prefill_attention.shapes import PAGE_SIZE, SHAPES
from pallas_kernels.prefill_attention.tiles import cut
from tests.kernels.device import INTERPRET, KERNEL

LENGTHS, CONTEXTS = [5, 0, 19, 1, 12], [5, 0, 41, 8, 12]
"""A whole prompt, an unused row, a piece that continues an earlier context, a single token, another prompt."""
NUM_ROWS, PAD = 44, 3
BLOCKS = triton.Blocks(rows=16, keys=16, warps=4, stages=1)
CASES = [  # num_heads, kv_heads, head_dim, page_size, window, images
    (8, 1, 16, 8, None, False),
    (4, 2, 32, 4, 7, False),
    (3, 3, 16, 16, 10, True),
    (6, 2, 16, 32, None, False),
]


def limits_of(images: bool) -> np.ndarray:
    """A packed row's own position; with images, positions 24..33 and 3..8 of two sequences see to the last one."""
    limits = np.zeros(NUM_ROWS, np.int32)
    row = PAD
    for sequence, (length, context) in enumerate(zip(LENGTHS, CONTEXTS, strict=True)):
        positions = np.arange(context - length, context)
        for begin, end in [(24, 34)] * (sequence == 2) + [(3, 9)] * (sequence == 4) if images else []:
            positions = np.where((positions >= begin) & (positions < end), end - 1, positions)
        limits[row : row + length] = positions
        row += length
    return limits


@functools.cache
def make(n: int, k: int, h: int, z: int, window: int | None, images: bool, dtype: str = "float32"):
    """Operands whose pages hold NaN wherever no query looks, under a shuffled table."""
    rng = np.random.default_rng(n * h + z)
    width = -(-max(CONTEXTS) // z) + 1
    table = 1 + rng.permutation(len(LENGTHS) * width).reshape(len(LENGTHS), width)
    pages = np.full((2, len(LENGTHS) * width + 1, k, z, h), np.nan, np.float32)
    for sequence, (length, context) in enumerate(zip(LENGTHS, CONTEXTS, strict=True)):
        begin = 0 if window is None else max(0, context - length - window + 1)
        for key in range(begin, context):
            pages[:, table[sequence, key // z], :, key % z] = rng.normal(size=(2, k, h))
        table[sequence, : begin // z] = 0  # given back
    starts = PAD + np.cumsum(LENGTHS) - LENGTHS
    integers = (table, starts, LENGTHS, CONTEXTS, limits_of(images))
    floats = (rng.normal(size=(NUM_ROWS, n, h)), *pages)
    return *(jnp.asarray(a, dtype) for a in floats), *(jnp.asarray(a, jnp.int32) for a in integers)


def dense(q, k_pages, v_pages, table, starts, lengths, contexts, limits, window: int | None) -> np.ndarray:
    """Row by row and head by head in float64."""
    q, k_pages, v_pages = (np.asarray(a, np.float64) for a in (q, k_pages, v_pages))
    table, starts, lengths, contexts, limits = (np.asarray(a) for a in (table, starts, lengths, contexts, limits))
    group, z = q.shape[1] // k_pages.shape[1], k_pages.shape[2]
    out = np.zeros(q.shape)
    for sequence, start in enumerate(starts):
        for row in range(start, start + lengths[sequence]):
            position = contexts[sequence] - lengths[sequence] + row - start
            seen = np.arange(0 if window is None else max(0, position - window + 1), limits[row] + 1)
            page = table[sequence, seen // z]
            for head in range(q.shape[1]):
                scores = k_pages[page, head // group, seen % z] @ q[row, head]
                p = np.exp(scores - scores.max())
                out[row, head] = p / p.sum() @ v_pages[page, head // group, seen % z]
    return out.reshape(len(q), -1)


def attend(implementation: str, args, window: int | None):
    """The kernel is called past the api, which would fall back to the reference where the kernel declines."""
    if implementation == "reference":
        return prefill_attention(*args, window=window, implementation="reference")
    return jax.jit(functools.partial(triton.prefill_attention, window=window, interpret=INTERPRET, blocks=BLOCKS))(
        *args
    )


@pytest.mark.parametrize("implementation", ["reference", KERNEL])
@pytest.mark.parametrize("n, k, h, z, window, images", CASES)
def test_each_query_attends_to_what_it_may_see(n, k, h, z, window, images, implementation):
    args = make(n, k, h, z, window, images)
    got = np.asarray(attend(implementation, args, window), np.float64)
    np.testing.assert_allclose(got, dense(*args, window), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("implementation", ["reference", KERNEL])
def test_bfloat16(implementation):
    args = make(4, 2, 32, 4, 7, False, dtype="bfloat16")
    got = np.asarray(attend(implementation, args, 7), np.float64)
    # Rounding the softmax weights and the result to 8 bits: 2^-8 of values up to about 3.
    np.testing.assert_allclose(got, dense(*args, 7), rtol=2**-7, atol=3 * 2**-8)


def test_tiles_cover_every_owned_row_once():
    starts, lengths = np.array([0, 9, 9, 26, 27]), np.array([9, 0, 17, 1, 0])
    tiles = cut(jnp.asarray(starts), jnp.asarray(lengths), 32, 8)
    covered = [(int(s), row) for s, f, c in zip(*tiles, strict=True) for row in range(f, f + c)]
    assert covered == [(s, row) for s, n in enumerate(lengths) for row in range(starts[s], starts[s] + n)]
    assert tiles.first.shape == (32 // 8 + 5,)


def test_a_wrong_number_of_heads_is_refused():
    args = make(4, 2, 32, 4, 7, False)
    with pytest.raises(ValueError, match="multiple"):
        prefill_attention(args[0][:, :3], *args[1:], window=None)


@pytest.mark.parametrize(
    "name, dtype", [("31B-sliding", "bfloat16"), ("31B-full", "bfloat16"), ("E2B-sliding", "float32")]
)
def test_one_launch_beside_the_tiles_and_no_spills(name, dtype):
    pytest.importorskip("jax_plugins.xla_cuda13")
    from g4jax.testing.compile_for_gpu import arg, compile_for_gpu

    shape, rows, sequences = SHAPES[name], 512, 4
    pages = arg((256, shape.num_kv_heads, PAGE_SIZE, shape.head_dim), dtype)
    batch = [arg((sequences, 64), "int32"), *[arg((sequences,), "int32")] * 3, arg((rows,), "int32")]
    step = compile_for_gpu(
        functools.partial(triton.prefill_attention, window=shape.window),
        arg((rows, shape.num_heads, shape.head_dim), dtype),
        pages,
        pages,
        *batch,
        compiler_options={"xla_gpu_fail_ptx_compilation_on_register_spilling": True},
    )
    assert sum(launch.name.startswith("prefill_attention") for launch in step.launches) == 1
    assert len(step.launches) <= 5  # the tiles are the same in every layer: XLA computes them once
    assert not step.copies_of(pages.shape)
