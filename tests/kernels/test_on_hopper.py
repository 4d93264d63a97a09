"""The kernels of large batches on a Hopper GPU itself, at the sizes of the released models, against plain float32.

    JAX_PLATFORMS=cuda python -m pytest tests/kernels/test_on_hopper.py

Every case takes the function under test, so that it can be tried with another one where there is no such GPU.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pallas_kernels.core import Implementation, on_hopper
from pallas_kernels.decode_attention import attend_decode, decode_attention
from pallas_kernels.decode_attention import reference as decode_reference
from pallas_kernels.decode_attention.reference import slot_of
from pallas_kernels.decode_attention.shapes import PAGE_SIZE, Shape
from pallas_kernels.decode_attention.shapes import SHAPES as DECODE_SHAPES
from pallas_kernels.linear import Columns, argmax_linear, gated_linear, norm_linear, split_linear
from pallas_kernels.linear import reference as linear_reference
from pallas_kernels.linear.shapes import SHAPES as PRODUCTS
from pallas_kernels.linear.shapes import Shape as Product
from pallas_kernels.moe import experts
from pallas_kernels.moe import reference as moe_reference
from pallas_kernels.moe.shapes import SHAPES as EXPERTS
from pallas_kernels.norm import Residual
from pallas_kernels.norm.reference import summed
from pallas_kernels.prefill_attention import prefill_attention
from pallas_kernels.prefill_attention import reference as prefill_reference
from pallas_kernels.prefill_attention.shapes import SHAPES as PREFILL_SHAPES
from pallas_kernels.qkv.reference import qkv_rope_write

if not on_hopper():
    pytest.skip("needs a Hopper GPU, and a jax that has its kernels", allow_module_level=True)

from tests.kernels.test_linear import EPS, inputs
from tests.kernels.test_mosaic_linear import LARGE, operands
from tests.kernels.test_mosaic_prefill_attention import make as make_pieces

Op = Callable[..., Any]
"""Takes arrays by position and constants by name."""

ROUNDING = 2.0**-8
"""By so much at most bfloat16 changes a number, relative to it."""
MOSAIC, SPLIT_TIMES = "mosaic_gpu", 'name = "split_times"'
"""What a program holds that one of Mosaic's kernels is in, or Triton's sum of the per-layer gate."""

EXCESS = "xla_allow_excess_precision"
"""Of XLA: it leaves out roundings between two operations that it makes one."""

ROWS = 104
TOGETHER = 26
"""Rows of one call of the reference."""
WIDTH = 64
"""Pages of a row."""
PIECES = ((0, 0), (911, 911), (1, 700), (600, 6000), (31, 31), (500, 500))
"""Of prompts, with their contexts: with `make_pieces`' rows of nobody a launch of 2,048 tokens."""
PREFILLED = [name for name, shape in PREFILL_SHAPES.items() if shape.window is None or shape.num_kv_heads > 1]
"""A window of one KV head is left to Triton."""
BOTH_WAYS = ("26B-A4B-sliding", "31B-sliding")
IMAGE = 280
"""Tokens of it."""
GATES = {shape.model: shape.k for shape in PRODUCTS if shape.name == "per_layer_gate"}
LAYERS = {"E2B": 35, "E4B": 42}
HEADS = [shape for shape in PRODUCTS if shape.name == "head"]
SPLIT = [shape for shape in PRODUCTS if shape.model == "E4B" and shape.summed and shape.k >= 2048]


def native(op: Op, holds: str) -> Op:
    """`op` on the GPU, once its program is seen to hold the kernel: the api takes another without a word."""

    def run(*arrays: Any, **constants: Any) -> Any:
        program = jax.jit(functools.partial(op, **constants, implementation="triton")).lower(*arrays)
        assert holds in program.as_text(), "another kernel was chosen"
        return program.compile()(*arrays)

    return run


def normal(seed: int, *size: int) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), size, jnp.bfloat16)


def wide(arrays: Any) -> Any:
    return jax.tree.map(lambda a: a.astype(jnp.float32) if a.dtype == jnp.bfloat16 else a, arrays)


def assert_close(have: jax.Array, want: jax.Array, roundings: int) -> None:
    """By the norm of the difference along the last axis: a wrong row hides behind no other, and zeros are zeros.

    `roundings`: of a result on its way, each independent of the others. A NaN is close to nothing, not even to another.
    """
    assert have.dtype == jnp.bfloat16
    got, expected = np.asarray(have, np.float32), np.asarray(want, np.float32)
    error, size = np.linalg.norm(got - expected, axis=-1), np.linalg.norm(expected, axis=-1)
    close = error <= roundings**0.5 * ROUNDING * size
    assert np.all(close), f"{np.sum(~close)} of {close.size}, the first at {np.argwhere(~close)[0]}"


def lengths_of(rows: int, window: int | None) -> np.ndarray:
    """A padding row, the edges of a page and of a window, and usual lengths."""
    edge = window or 512
    edges = [0, 1, PAGE_SIZE, edge, edge + 1]
    return np.array(edges + np.random.default_rng(rows).integers(700, 2001, rows - len(edges)).tolist())


def paged(shape: Shape, lengths: np.ndarray, missing: int = 0) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The pages and the table of rows whose last `missing` keys are not written yet; what no row sees is NaN."""
    rows, window = len(lengths), shape.window
    table = 1 + np.random.default_rng(rows).permutation(rows * WIDTH).reshape(rows, WIDTH)
    first = np.zeros_like(lengths) if window is None else np.maximum(lengths - window, 0)
    key, begin, end = np.arange(WIDTH * PAGE_SIZE), first[:, None], (lengths - missing)[:, None]
    seen = np.zeros((1 + table.size, PAGE_SIZE), bool)
    seen[table] = ((key >= begin) & (key < end)).reshape(rows, WIDTH, PAGE_SIZE)
    table[np.arange(WIDTH) < begin // PAGE_SIZE] = 0  # given back
    visible, size = jnp.asarray(seen)[:, None, :, None], (len(seen), shape.kv_heads, PAGE_SIZE, shape.head_dim)
    fill = jax.jit(lambda seed: jnp.where(visible, jax.random.normal(seed, size, jnp.bfloat16), jnp.nan))
    return fill(jax.random.key(1)), fill(jax.random.key(2)), jnp.asarray(table, jnp.int32)


def assert_attended(out: jax.Array, args: tuple[jax.Array, ...], window: int | None) -> None:
    """Head by head; rounded are the softmax weights, the results of a row's splits, and the result."""
    attend = jax.jit(functools.partial(decode_reference.decode_attention, window=window))
    q, k_pages, v_pages, table, lengths = wide(args)
    # A few rows at a time: their keys are gathered, and what several tests share of a GPU is little.
    parts = [slice(at, at + TOGETHER) for at in range(0, len(q), TOGETHER)]
    want = jnp.concatenate([attend(q[own], k_pages, v_pages, table[own], lengths[own]) for own in parts])
    assert_close(out.reshape(q.shape), want.reshape(q.shape), roundings=3)


def check_decode_attention(op: Op, shape: Shape, rows: int = ROWS) -> None:
    lengths = lengths_of(rows, shape.window)
    q = 0.3 * normal(0, rows, shape.num_heads, shape.head_dim)
    args = (q, *paged(shape, lengths), jnp.asarray(lengths, jnp.int32))
    assert_attended(op(*args, window=shape.window), args, shape.window)


def check_attend_decode(op: Op, shape: Shape, rows: int = ROWS, *, splits: bool = False) -> None:
    h, lengths = shape.head_dim, lengths_of(rows, shape.window)
    *pages, table = paged(shape, lengths, missing=1)
    angle = normal(5, rows, h // 2)
    parts = normal(0, 3, rows, shape.columns).astype(jnp.float32) if splits else normal(0, rows, shape.columns)
    own = (0.3 * normal(3, h), normal(4, h), jnp.cos(angle), jnp.sin(angle))
    positions = jnp.asarray(lengths - 1, jnp.int32)
    settings = {"num_heads": shape.num_heads, "k_eq_v": shape.k_eq_v, "eps": EPS}
    out, *written = op(parts, *own, *pages, table, positions, window=shape.window, **settings)
    page, slot = slot_of(positions, table, PAGE_SIZE)
    # In bfloat16, since attention takes what was rounded to it, and with the rounding between norm and rotation, which
    # XLA leaves out of its own accord.
    prepare = jax.jit(functools.partial(qkv_rope_write, **settings), compiler_options={EXCESS: False})
    q, *expected = prepare(summed(parts, jnp.bfloat16), *own, *pages, page, slot)
    assert_attended(out, (q, *expected, table, positions + 1), shape.window)
    used = positions >= 0
    for have, want in zip(written, expected, strict=True):
        # Both round after the norm and after the rotation, after sums in another order.
        assert_close(have[page, :, slot][used], want[page, :, slot][used], roundings=2)
        others = (p.at[page, :, slot].set(0).at[0].set(0) for p in (have, want))  # page 0 is the null page
        assert jnp.array_equal(*others, equal_nan=True), "other slots are not what they were"


def check_gated_linear(op: Op, shape: Product, rows: int) -> None:
    x, w = operands(rows, shape.n, shape.k)
    have = op(x, w)
    want = jax.jit(lambda x, w: linear_reference.project(x, w, "gated", None))(*wide((x, w)))
    assert_close(have, want, roundings=4)  # gate, up, gelu, their product


def per_layer_gate(
    residual: Residual, w: jax.Array, times: Columns, *, implementation: Implementation
) -> tuple[jax.Array, jax.Array]:
    settings: dict[str, Any] = {"activation": "times", "times": times, "eps": EPS}
    return norm_linear(residual, None, w, **settings, implementation=implementation)


def check_per_layer_gate(op: Op, model: str, rows: int) -> None:
    given = inputs(rows, 256, GATES[model], jnp.bfloat16)
    residual = Residual(given["x"], given["y"], given["weight"], given["scale"])
    times = Columns(normal(1, rows, LAYERS[model] * 256), jnp.int32(LAYERS[model] - 2))
    args = (residual, given["w"][:256], times)
    stream, out = op(*args)
    want_stream, want = jax.jit(functools.partial(per_layer_gate, implementation="reference"))(*wide(args))
    assert_close(stream, want_stream, roundings=3)  # the norm, the sum, its scale
    assert_close(out, want, roundings=6)  # those of the stream, the product, gelu, the result


def check_argmax_linear(op: Op, shape: Product, rows: int) -> None:
    x, w = normal(0, rows, shape.k), 0.02 * normal(1, shape.n, shape.k)
    logits = jax.jit(linear_reference.unrounded_linear)(*wide((x, w)))
    barred = jnp.argmax(logits[:3], axis=1).astype(jnp.int32)  # the best of three rows
    column, value = op(x, w, barred)
    want = jnp.max(logits.at[:, barred].set(-jnp.inf), axis=1)
    assert not jnp.isin(column, barred).any()
    # Sums of exact products in another order: far less than one part in 2**16 of the largest.
    for have in (value, logits[jnp.arange(rows), column]):
        assert jnp.all(jnp.abs(have - want) <= 2.0**-16 * jnp.abs(want))


def check_split_linear(op: Op, shape: Product, rows: int) -> None:
    given = inputs(rows, shape.n // 2, shape.k, jnp.bfloat16)
    x, w = given["x"], given["w"]
    have = summed(op(x, w), jnp.bfloat16)
    want = jax.jit(linear_reference.linear)(*wide((x, w)))
    assert_close(have, want, roundings=1)


def with_image(args: tuple[jax.Array, ...], piece: int, skipped: int) -> tuple[jax.Array, ...]:
    """The tokens of a piece after `skipped` of them are an image: each sees the last one."""
    *others, starts, lengths, contexts, limits = args
    begin = int(starts[piece]) + skipped
    return *others, starts, lengths, contexts, limits.at[begin : begin + IMAGE].set(limits[begin + IMAGE - 1])


def check_prefill_attention(op: Op, name: str, pieces: tuple[tuple[int, int], ...] = PIECES) -> None:
    heads, kv_heads, head_dim, window = PREFILL_SHAPES[name]
    args = make_pieces(heads // kv_heads, kv_heads, head_dim, window, list(pieces), images=False)
    if name in BOTH_WAYS:
        args = with_image(args, piece=3, skipped=100)
    have = op(*args, window=window)
    want = jax.jit(functools.partial(prefill_reference.prefill_attention, window=window))(*wide(args))
    by_head = args[0].shape
    assert_close(have.reshape(by_head), want.reshape(by_head), roundings=2)  # softmax weights, the result


def routing(kind: str, rows: int, num_experts: int, k: int) -> np.ndarray:
    """Skewed: some experts are chosen by nearly all rows, many by none."""
    liking = np.linspace(0, 16, num_experts) if kind == "skewed" else 0
    chances = np.random.default_rng(rows).gumbel(size=(rows, num_experts)) + liking
    ids = np.argsort(-chances, axis=1)[:, :k]
    if kind == "padding":
        ids[2 * rows // 3 :] = -1
    return ids


def check_experts(op: Op, kind: str, rows: int) -> None:
    num_experts, width, features, k = EXPERTS["26B-A4B"]
    gate_up = width**-0.5 * normal(1, num_experts, 2 * features, width)
    down = features**-0.5 * normal(2, num_experts, width, features)
    weights = jax.nn.softmax(normal(3, rows, k).astype(jnp.float32))
    u, ids = normal(4, rows, width), jnp.asarray(routing(kind, rows, num_experts, k), jnp.int32)
    have = op(u, weights, ids, gate_up, down)
    want = jax.jit(moe_reference.experts)(wide(u), weights, ids, gate_up, down)  # widens each row's experts
    assert_close(have, want, roundings=3)  # gelu times up, a slot's result, the sum of the slots


@pytest.mark.parametrize("shape", DECODE_SHAPES, ids=lambda s: f"{s.model} {s.kind}")
def test_a_hundred_rows_attend_as_a_dense_softmax(shape):
    check_decode_attention(native(decode_attention, MOSAIC), shape)


@pytest.mark.parametrize("shape", DECODE_SHAPES, ids=lambda s: f"{s.model} {s.kind}")
def test_a_hundred_rows_write_their_keys_and_attend_to_them(shape):
    check_attend_decode(native(attend_decode, MOSAIC), shape)


@pytest.mark.parametrize("shape", DECODE_SHAPES[:4], ids=lambda s: f"{s.model} {s.kind}")
def test_rows_in_splits_are_summed_before_they_attend(shape):
    check_attend_decode(native(attend_decode, MOSAIC), shape, splits=True)


@pytest.mark.parametrize("rows", [72, 104, 128])
@pytest.mark.parametrize("shape", LARGE, ids=lambda s: s.model)
def test_the_gated_product_is_that_of_float32(shape, rows):
    check_gated_linear(native(gated_linear, MOSAIC), shape, rows)


@pytest.mark.parametrize("rows", [72, 104, 128])
@pytest.mark.parametrize("model", GATES)
def test_the_per_layer_gate_in_splits_is_that_of_float32(model, rows):
    check_per_layer_gate(native(per_layer_gate, SPLIT_TIMES), model, rows)


@pytest.mark.parametrize("rows", [72, 104, 128])
@pytest.mark.parametrize("shape", HEADS, ids=lambda s: s.model)
def test_the_best_token_is_that_of_float32(shape, rows):
    check_argmax_linear(native(argmax_linear, MOSAIC), shape, rows)


@pytest.mark.parametrize("shape", SPLIT, ids=lambda s: s.name)
def test_splits_sum_to_the_product_of_float32(shape):
    # Of so many rows a program of this name makes splits alone.
    check_split_linear(native(split_linear, 'name = "plain_linear"'), shape, ROWS)


@pytest.mark.parametrize("name", PREFILLED)
def test_ragged_prompts_attend_as_a_dense_softmax(name):
    check_prefill_attention(native(prefill_attention, MOSAIC), name)


@pytest.mark.parametrize("rows", [1280, 2048])
@pytest.mark.parametrize("kind", ["even", "skewed", "padding"])
def test_every_row_gets_the_experts_it_chose(kind, rows):
    check_experts(native(experts, MOSAIC), kind, rows)
