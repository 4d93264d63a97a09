"""The Hopper kernel of decode attention: the same cases as Triton's, run by Mosaic GPU's simulator."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pallas_kernels.core import Unsupported, has_mosaic
from pallas_kernels.decode_attention import attend_decode
from pallas_kernels.decode_attention.shapes import PAGE_SIZE, SHAPES
from pallas_kernels.decode_attention.tiling import Tiling
from tests.kernels.test_decode_attention import dense

if not has_mosaic():
    pytest.skip("this jax has no such kernels", allow_module_level=True)

from pallas_kernels.decode_attention import mosaic
from tests.kernels.device import simulates_mosaic

WIDTH = 8


def make(heads: int, kv_heads: int, head_dim: int, window: int | None, lengths: list[int]):
    """bfloat16 rows and pages; what no row sees is NaN, and so are the pages that no row has."""
    random = np.random.default_rng(heads + head_dim)
    pages = np.full((2, 1 + len(lengths) * WIDTH, kv_heads, PAGE_SIZE, head_dim), np.nan, np.float32)
    table = 1 + random.permutation(len(lengths) * WIDTH).reshape(len(lengths), WIDTH)
    for row, length in enumerate(lengths):
        for key in range(0 if window is None else max(0, length - window), length):
            where = (slice(None), table[row, key // PAGE_SIZE], slice(None), key % PAGE_SIZE)
            pages[where] = random.standard_normal((2, kv_heads, head_dim))
    q = 0.3 * random.standard_normal((len(lengths), heads, head_dim))
    k, v = jnp.asarray(pages, jnp.bfloat16)
    return jnp.asarray(q, jnp.bfloat16), k, v, jnp.asarray(table, jnp.int32), jnp.asarray(lengths, jnp.int32)


@simulates_mosaic
@pytest.mark.parametrize(
    ("heads", "kv_heads", "head_dim", "window", "lengths", "splits"),
    [
        (8, 1, 128, None, [0, 1, 64, 65, 250], 2),
        (8, 2, 128, 40, [33, 100, 128], 1),
        (16, 8, 64, 64, [31, 130], 2),
        (8, 2, 512, None, [97], 1),
    ],
)
def test_the_result_is_that_of_a_dense_softmax(heads, kv_heads, head_dim, window, lengths, splits):
    args = make(heads, kv_heads, head_dim, window, lengths)
    tiling = Tiling(64, splits, 1, 4, 1)
    have = mosaic.launch(*args, window=window, tiling=tiling, slots=3, interpret=True)
    # Weights and results are rounded to 8 bits, and values are up to 4.
    np.testing.assert_allclose(np.asarray(have, np.float32), dense(*args, window), rtol=2**-6, atol=4 * 2**-8)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: f"{s.model} {s.kind}")
def test_launches_spills_and_copies_on_a_gpu(shape, tmp_path, monkeypatch):
    """Norm, RoPE and write; attention; the splits of a layer without a window; the slots of new keys, once a step."""
    pytest.importorskip("jax_plugins.xla_cuda13")
    from g4jax.testing.compile_for_gpu import arg, compile_for_gpu

    monkeypatch.setenv("MOSAIC_GPU_DUMP_TO", str(tmp_path))
    monkeypatch.setenv("MOSAIC_GPU_DUMP_PTXAS", "1")
    rows, h = 100, shape.head_dim
    pages = arg((1000, shape.kv_heads, PAGE_SIZE, h), "bfloat16")
    half, norm = arg((rows, h // 2), "bfloat16"), arg((h,), "bfloat16")
    settings = {"num_heads": shape.num_heads, "k_eq_v": shape.k_eq_v, "window": shape.window, "eps": 1e-6}
    step = compile_for_gpu(
        lambda *args: attend_decode(*args, **settings, implementation="triton"),
        *(arg((rows, shape.columns), "bfloat16"), norm, norm, half, half),
        *(pages, pages, arg((rows, 64), "int32"), arg((rows,), "int32")),
        donate_argnums=(5, 6),
    )
    names = [launch.name for launch in step.launches]
    assert sum("fusion" not in name for name in names) == (2 if shape.window is not None else 3), names
    assert sum("fusion" in name for name in names) <= 2, names
    assert not step.copies_of(pages.shape)
    (report,) = tmp_path.glob("*.ptxas")
    assert "0 bytes spill stores, 0 bytes spill loads" in report.read_text()


def test_what_it_leaves_to_others():
    q, pages = jnp.zeros((100, 8, 256), jnp.bfloat16), jnp.zeros((4, 1, PAGE_SIZE, 256), jnp.bfloat16)
    table, lengths = jnp.zeros((100, 8), jnp.int32), jnp.zeros((100,), jnp.int32)
    for rows, dtype in ((8, jnp.bfloat16), (100, jnp.float32)):
        cut = (q[:rows].astype(dtype), *[pages.astype(dtype)] * 2, table[:rows], lengths[:rows])
        with pytest.raises(Unsupported):
            jax.eval_shape(lambda *args: mosaic.decode_attention(*args, window=None), *cut)
