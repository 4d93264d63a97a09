"""The Hopper kernel of prefill attention: Triton's cases and larger heads, run by Mosaic GPU's simulator."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import pallas as pl

from pallas_kernels.core import Unsupported, has_mosaic, plgpu
from pallas_kernels.prefill_attention.shapes import PAGE_SIZE, SHAPES
from pallas_kernels.prefill_attention.tiles import cut
from tests.kernels.test_prefill_attention import dense

if not has_mosaic():
    pytest.skip("this jax has no such kernels", allow_module_level=True)

from pallas_kernels.prefill_attention import mosaic
from pallas_kernels.prefill_attention.mosaic import Ring
from pallas_kernels.prefill_attention.mosaic_program import COMPUTING, ROWS
from tests.kernels.device import simulates_mosaic

PAD = 3
SPAN = 5
"""Tokens of an image."""


def make(group: int, kv_heads: int, head_dim: int, window: int | None, pieces: list[tuple[int, int]], images: bool):
    """Packed pieces (length, context) with rows of nobody around them; what no row sees is NaN."""
    random = np.random.default_rng(group + head_dim)
    lengths, contexts = np.array(pieces).T
    starts = PAD + np.cumsum(lengths) - lengths
    num_rows, width = -(-(PAD + lengths.sum() + 1) // 8) * 8, -(-contexts.max() // PAGE_SIZE) + 1
    table = 1 + random.permutation(len(pieces) * width).reshape(len(pieces), width)
    pages = np.full((2, 1 + table.size, kv_heads, PAGE_SIZE, head_dim), np.nan, np.float32)
    limits = np.zeros(num_rows, np.int32)
    for r, (start, length, context) in enumerate(zip(starts, lengths, contexts, strict=True)):
        positions = np.arange(context - length, context)
        last = positions // SPAN * SPAN + SPAN - 1 if images else positions
        limits[start : start + length] = np.minimum(last, context - 1)
        begin = 0 if window is None else max(0, context - length - window + 1)
        for key in range(begin, context):
            pages[:, table[r, key // PAGE_SIZE], :, key % PAGE_SIZE] = random.normal(size=(2, kv_heads, head_dim))
        table[r, : begin // PAGE_SIZE] = 0  # given back
    q = 0.5 * random.normal(size=(num_rows, group * kv_heads, head_dim))
    integers = (table, starts, lengths, contexts, limits)
    return *(jnp.asarray(a, jnp.bfloat16) for a in (q, *pages)), *(jnp.asarray(a, jnp.int32) for a in integers)


@pytest.fixture
def copies_as_on_a_device(monkeypatch):
    """Bulk copies of tiled memory take rows and columns from multiples of 8 on; the simulator takes any."""

    def rounded(ref):
        *others, last = ref.transforms
        places = [pl.ds(i.start // 8 * 8, i.size) if isinstance(i, pl.Slice) else i for i in last.indices]
        return dataclasses.replace(ref, transforms=(*others, dataclasses.replace(last, indices=tuple(places))))

    bring, take = plgpu.copy_gmem_to_smem, plgpu.copy_smem_to_gmem
    monkeypatch.setattr(plgpu, "copy_gmem_to_smem", lambda src, dst, barrier: bring(rounded(src), dst, barrier))
    monkeypatch.setattr(plgpu, "copy_smem_to_gmem", lambda src, dst: take(src, rounded(dst)))


@simulates_mosaic
@pytest.mark.usefixtures("copies_as_on_a_device")
@pytest.mark.parametrize(
    ("group", "kv_heads", "head_dim", "window", "pieces", "images", "ring"),
    [
        (8, 1, 64, None, [(0, 0), (29, 80)], False, Ring(64, 3, True)),
        (2, 2, 64, 70, [(40, 130)], True, Ring(64, 3, False)),
        (4, 1, 512, None, [(3, 3), (6, 97)], True, Ring(128, 6, True)),
    ],
)
def test_the_result_is_that_of_a_dense_softmax(group, kv_heads, head_dim, window, pieces, images, ring):
    args = make(group, kv_heads, head_dim, window, pieces, images)
    facts = mosaic.plan(*args[4:], window=window, tokens=COMPUTING * ROWS // group, page_size=PAGE_SIZE)
    have = mosaic.launch(*args[:4], facts, window=window, ring=ring, interpret=True)
    # Weights and results are rounded to 8 bits, and values are up to 4.
    np.testing.assert_allclose(np.asarray(have, np.float64), dense(*args, window), rtol=2**-6, atol=4 * 2**-8)


def test_tiles_on_a_grid_cover_every_owned_row_once():
    random, block, num_rows = np.random.default_rng(0), 16, 192
    tiles_of = jax.jit(functools.partial(cut, num_rows=num_rows, block=block, on_grid=True))
    for _ in range(20):
        lengths, gaps = random.integers(0, 40, 4), random.integers(0, 9, 4)
        starts = np.cumsum(lengths + gaps) - lengths
        tiles = [tile for tile in zip(*map(np.asarray, tiles_of(starts, lengths)), strict=True) if tile[2]]
        covered = [(sequence, first + i) for sequence, first, count in tiles for i in range(count)]
        assert covered == [(s, starts[s] + i) for s, length in enumerate(lengths) for i in range(length)]
        assert all(first // block == (first + count - 1) // block for _, first, count in tiles)


@pytest.mark.parametrize("name", ["26B-A4B-sliding", "E2B-full"])
def test_one_launch_beside_the_plan_and_no_spills(name, tmp_path, monkeypatch):
    pytest.importorskip("jax_plugins.xla_cuda13")
    from g4jax.testing.compile_for_gpu import arg, compile_for_gpu

    monkeypatch.setenv("MOSAIC_GPU_DUMP_TO", str(tmp_path))
    monkeypatch.setenv("MOSAIC_GPU_DUMP_PTXAS", "1")
    shape, rows, sequences = SHAPES[name], mosaic.MIN_TOKENS, 4
    pages = arg((256, shape.num_kv_heads, PAGE_SIZE, shape.head_dim), "bfloat16")
    step = compile_for_gpu(
        functools.partial(mosaic.prefill_attention, window=shape.window),
        arg((rows, shape.num_heads, shape.head_dim), "bfloat16"),
        *(pages, pages, arg((sequences, 64), "int32")),
        *([arg((sequences,), "int32")] * 3),
        arg((rows,), "int32"),
    )
    assert sum("fusion" not in launch.name for launch in step.launches) == 1
    assert not step.copies_of(pages.shape)
    (report,) = tmp_path.glob("*.ptxas")
    assert "0 bytes spill stores, 0 bytes spill loads" in report.read_text()


def test_what_it_leaves_to_others():
    rows = mosaic.MIN_TOKENS
    q, pages = jnp.zeros((rows, 8, 256), jnp.bfloat16), jnp.zeros((4, 1, PAGE_SIZE, 256), jnp.bfloat16)
    single, odd = jnp.zeros((rows, 1, 256), jnp.bfloat16), pages[:, :, :20]
    cases = [
        (q.astype(jnp.float32), pages.astype(jnp.float32), None),
        (single, pages, None),
        (q, odd, None),
        (q[:1280], pages, None),
        (q, pages, 512),
    ]
    for queries, keys, window in cases:
        integers = [jnp.zeros(s, jnp.int32) for s in ((2, 8), (2,), (2,), (2,), (len(queries),))]
        with pytest.raises(Unsupported):
            jax.eval_shape(functools.partial(mosaic.prefill_attention, window=window), queries, keys, keys, *integers)
