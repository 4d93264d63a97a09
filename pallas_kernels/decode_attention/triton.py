"""Split-key paged decode attention with the Pallas Triton backend: one launch, and a second that joins the splits.

A key that is new in this step is never read back: its score and value start the softmax of one program (`one_key`),
which also writes it to its page. So norm, RoPE, cache write and attention are one launch without any order among its
programs.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plt
from jaxtyping import Array, Float, Int

from pallas_kernels.core import Unsupported, launcher
from pallas_kernels.decode_attention.combine import combine
from pallas_kernels.decode_attention.heads import load_heads, load_rotation, load_value, normed, normed_rope
from pallas_kernels.decode_attention.reference import slot_of
from pallas_kernels.decode_attention.scan import (
    Shape,
    State,
    first_page,
    group_heads,
    no_key,
    one_key,
    scan_keys,
    store_result,
)
from pallas_kernels.decode_attention.tiling import Ends, Tiling, choose, span_of
from pallas_kernels.norm.reference import Splits
from pallas_kernels.qkv.triton import check_power_of_two, qkv_rope_write

ANY = pl.BlockSpec(memory_space=pl.ANY)


@launcher("window", "interpret", "tiling")
def decode_attention(
    q: Float[Array, "B N H"],
    k_pages: Float[Array, "P K Z H"],
    v_pages: Float[Array, "P K Z H"],
    table: Int[Array, "B M"],
    lengths: Int[Array, " B"],
    *,
    window: int | None,
    interpret: bool,
    tiling: Tiling | None = None,
) -> Float[Array, "B N*H"]:
    shape = shape_of(q.shape[1], k_pages, table, q.dtype, window, tiling)
    ends = Ends(newest=-1, cached=0)

    def program(ins: tuple, pages: tuple, out: tuple, at: tuple[Array, Array, Array]) -> None:
        q_ref, k_ref, v_ref, table_ref, lengths_ref = ins
        row, kv_head, split = at
        span = span_of(plt.load(lengths_ref.at[row]), ends, window, shape.tiling)

        def attend() -> None:
            heads = group_heads(kv_head, shape)
            queries = plt.load(q_ref.at[row, heads[:, None], lax.iota(jnp.int32, shape.head_dim)[None]])
            first = first_page(table_ref, at, span, shape)
            state = scan_keys(no_key(shape), queries, k_ref, v_ref, table_ref, first, at, span, shape)
            store_result(out, at, state, shape)

        unless_idle(attend, split < span.active, shape)

    inputs = [q, k_pages, v_pages, table, lengths]
    return launch("decode_attention", program, inputs, [], lengths, ends, shape, interpret)[0]


@launcher("num_heads", "k_eq_v", "window", "eps", "interpret", "tiling")
def attend_decode(
    qkv: Splits,
    q_norm: Float[Array, " H"],
    k_norm: Float[Array, " H"] | None,
    cos: Float[Array, "B H//2"],
    sin: Float[Array, "B H//2"],
    k_pages: Float[Array, "P K Z H"],
    v_pages: Float[Array, "P K Z H"],
    table: Int[Array, "B M"],
    positions: Int[Array, " B"],
    *,
    num_heads: int,
    k_eq_v: bool,
    window: int | None,
    eps: float,
    interpret: bool,
    tiling: Tiling | None = None,
) -> tuple[Float[Array, "B {num_heads}*H"], Float[Array, "P K Z H"], Float[Array, "P K Z H"]]:
    if qkv.ndim == 3:  # each program of a row would add up its heads
        page, slot = slot_of(positions, table, k_pages.shape[2])
        settings = {"num_heads": num_heads, "k_eq_v": k_eq_v, "eps": eps, "interpret": interpret}
        q, k_pages, v_pages = qkv_rope_write(qkv, q_norm, k_norm, cos, sin, k_pages, v_pages, page, slot, **settings)
        args = (q, k_pages, v_pages, table, positions + 1)
        return decode_attention(*args, window=window, interpret=interpret, tiling=tiling), k_pages, v_pages
    shape = shape_of(num_heads, k_pages, table, qkv.dtype, window, tiling)
    owns = k_norm is not None
    ends = Ends(newest=0, cached=0 if owns else 1)

    def program(ins: tuple, pages: tuple, out: tuple, at: tuple[Array, Array, Array]) -> None:
        qkv_ref, q_norm_ref, cos_ref, sin_ref, table_ref, positions_ref = ins[:6]
        k_ref, v_ref = pages if owns else ins[6:]
        row, kv_head, split = at
        position = plt.load(positions_ref.at[row])
        span = span_of(position, ends, window, shape.tiling)
        new = num_heads + kv_head + lax.iota(jnp.int32, 1)

        def attend() -> None:
            raw_q = load_heads(qkv_ref, row, group_heads(kv_head, shape), q_norm_ref, shape.head_dim)
            rotation = load_rotation(cos_ref, sin_ref, row, shape.head_dim)
            first = first_page(table_ref, at, span, shape)
            if not owns:
                q = normed_rope(raw_q, rotation, eps).astype(shape.dtype)
                return finish(no_key(shape), q, first)
            raw_k = load_heads(qkv_ref, row, new, ins[6], shape.head_dim)
            raw_v = load_value(qkv_ref, row, new, shape.kv_heads, k_eq_v, shape.head_dim)
            used, mine = jnp.maximum(position, 0), split == span.active - 1
            page = plt.load(table_ref.at[row, used // shape.page_size])
            q = normed_rope(raw_q, rotation, eps).astype(shape.dtype)
            k, v = normed_rope(raw_k, rotation, eps), normed(raw_v, eps)
            write(k_ref, k, page, kv_head, used, mine, shape)
            write(v_ref, v, page, kv_head, used, mine, shape)
            finish(one_key(q, k, v, mine, shape), q, first)

        def finish(state: State, q: Array, first: Array) -> None:
            state = scan_keys(state, q, k_ref, v_ref, table_ref, first, at, span, shape)
            store_result(out, at, state, shape)

        unless_idle(attend, split < span.active, shape)

    inputs = [qkv, q_norm, cos, sin, table, positions]
    if not owns:
        inputs += [k_pages, v_pages]
        return launch("attend_decode", program, inputs, [], positions, ends, shape, interpret)[0], k_pages, v_pages
    inputs += [k_norm]
    out, (k_pages, v_pages) = launch(
        "attend_decode", program, inputs, [k_pages, v_pages], positions, ends, shape, interpret
    )
    return out, k_pages, v_pages


def shape_of(
    num_heads: int, k_pages: Array, table: Array, dtype: Any, window: int | None, tiling: Tiling | None
) -> Shape:
    _, kv_heads, page_size, head_dim = k_pages.shape
    check_power_of_two(head_dim)
    if k_pages.dtype != dtype:
        raise Unsupported(f"a {k_pages.dtype} cache under {dtype} activations")
    rows, width = table.shape
    tiling = tiling or choose(rows, kv_heads, head_dim, k_pages.dtype.itemsize, width * page_size, window)
    return Shape(rows, num_heads, kv_heads, head_dim, page_size, width, window, k_pages.dtype, tiling)


def unless_idle(attend: Callable[[], None], busy: Array, shape: Shape) -> None:
    """Splits without work leave at once; a single split stays to write the zeros of a padding row."""
    if shape.tiling.splits == 1:
        attend()
    else:
        pl.when(busy)(attend)


def write(ref: Any, new: Array, page: Array, kv_head: Array, position: Array, mine: Array, shape: Shape) -> None:
    """Stores the new key or value [1, H] in its slot of the row's page."""
    slot = position % shape.page_size + lax.iota(jnp.int32, 1)
    at = ref.at[page, kv_head, slot[:, None], lax.iota(jnp.int32, shape.head_dim)[None]]
    plt.store(at, new.astype(ref.dtype), mask=jnp.broadcast_to(mine, new.shape))


def launch(
    name: str,
    program: Callable[..., None],
    inputs: list[Array],
    pages: list[Array],
    counts: Int[Array, " B"],
    ends: Ends,
    shape: Shape,
    interpret: bool,
) -> tuple[Float[Array, "B NH"], list[Array]]:
    """Runs `program(inputs, pages, (out, lse), (row, kv_head, split))` on every split, then joins the splits.

    `pages` are updated in place: the program sees their output references only.
    """
    splits = shape.tiling.splits
    outputs = [jax.ShapeDtypeStruct((shape.rows, splits, shape.num_heads, shape.head_dim), shape.dtype)]
    if splits > 1:
        outputs.append(jax.ShapeDtypeStruct((shape.rows, splits, shape.num_heads), jnp.float32))
    own = len(outputs)
    outputs += [jax.ShapeDtypeStruct(p.shape, p.dtype) for p in pages]

    def kernel(*refs: Any) -> None:
        ins, outs = refs[: len(inputs)], refs[len(inputs) + len(pages) :]
        split, kv_head, row = (pl.program_id(i) for i in range(3))
        program(ins, outs[own:], (outs[0], outs[1] if splits > 1 else None), (row, kv_head, split))

    out = pl.pallas_call(
        kernel,
        grid=(splits, shape.kv_heads, shape.rows),
        in_specs=[ANY] * (len(inputs) + len(pages)),
        out_specs=[ANY] * len(outputs),
        out_shape=outputs,
        input_output_aliases={len(inputs) + i: own + i for i in range(len(pages))},
        compiler_params=plt.CompilerParams(num_warps=shape.tiling.num_warps, num_stages=shape.tiling.num_stages),
        interpret=interpret,
        name=name,
    )(*inputs, *pages)
    pages = list(out[own:])
    if splits == 1:
        return out[0].reshape(shape.rows, -1), pages
    args = {"ends": ends, "window": shape.window, "tiling": shape.tiling, "interpret": interpret}
    lse = out[1].reshape(shape.rows, splits, shape.kv_heads, shape.group)
    return combine(out[0], lse, counts, **args), pages
