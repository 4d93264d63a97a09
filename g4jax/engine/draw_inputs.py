"""What a step must know to draw tokens, as packed arrays: sampling, limits, biases, histories, masks.

Biases and histories are large and seldom needed: where no request has any, the device's own zeros stand for them.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from g4jax.engine.batch import STOP_IDS, Shapes, fill_stop_ids
from g4jax.engine.packing import Field, Fields, empty, pack, packed_size
from g4jax.engine.request import Request
from g4jax.sample.params import MAX_LOGIT_BIAS

Variant = Literal["greedy", "sampled", "shaped", "guided"]
"""greedy: argmax. sampled: temperature, top-k, top-p, min-p. shaped: the same after logit_bias, penalties and
min_tokens, and with log probabilities. guided: the same under the masks of guides, one token a call."""

Arrays = dict[str, np.ndarray]

VARIANTS: tuple[Variant, ...] = ("greedy", "sampled", "shaped", "guided")
PLAIN: tuple[Variant, ...] = ("greedy", "sampled")
RICH: tuple[Variant, ...] = ("shaped", "guided")


class DrawInputs(NamedTuple):
    """The packed arrays of a batch, or their fields, or their shapes; empty where the variant has no use for them."""

    sampling: Any = ()
    shaping: Any = ()
    bias: Any = ()
    history: Any = ()
    mask: Any = ()


def variant_of(requests: Sequence[Request]) -> Variant:
    """The least that serves every request of a batch; a greedy row stays greedy in all of them."""
    if any(request.guide is not None for request in requests):
        return "guided"
    if any(request.params.is_shaped for request in requests):
        return "shaped"
    return "greedy" if all(request.params.greedy for request in requests) else "sampled"


def draw_fields(variant: Variant, rows: int, history: int, vocab_size: int) -> DrawInputs:
    """The fields of each input."""
    if variant == "greedy":
        return DrawInputs()
    floats = ("temperature", "top_p", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty")
    sampling: Fields = (  # what `g4jax.sample.logits.SamplingBatch` holds
        Field("top_k", (rows,)),
        Field("seed", (rows,), np.uint32),
        Field("index", (rows,)),
        *(Field(name, (rows,), np.float32) for name in floats),
    )
    if variant == "sampled":
        return DrawInputs(sampling)
    words = -(-vocab_size // 32)
    return DrawInputs(
        sampling,
        shaping=(Field("min_tokens", (rows,)), Field("ends", (rows, STOP_IDS)), Field("reported", (rows,))),
        bias=(Field("bias_ids", (rows, MAX_LOGIT_BIAS)), Field("bias_values", (rows, MAX_LOGIT_BIAS), np.float32)),
        history=(Field("history", (rows, history)), Field("prompt_lengths", (rows,))),
        mask=(Field("mask", (rows, words), np.uint32),) if variant == "guided" else (),
    )


def draw_inputs(
    requests: Sequence[Request],
    drawn: Sequence[int],
    rows: int,
    variant: Variant,
    shapes: Shapes,
    vocab_size: int,
    zeros: Callable[[int], Any],
) -> DrawInputs:
    """Packs `requests`, which this launch draws `drawn` tokens of, as the first of `rows` rows.

    `zeros(size)` is taken where there is nothing to pack.
    """
    fields = draw_fields(variant, rows, shapes.history, vocab_size)
    needed = DrawInputs(
        sampling=True,
        shaping=True,
        bias=any(request.params.logit_bias for request in requests),
        history=any(request.params.has_penalties for request in requests),
        mask=True,
    )
    fill = DrawInputs(functools.partial(_sampling, drawn=drawn), _shaping, _bias, _history, _mask)
    packed = (
        pack(own, fill_own(own, requests)) if need and own else zeros(packed_size(own))
        for own, fill_own, need in zip(fields, fill, needed, strict=True)
    )
    return DrawInputs(*packed)


def allowed(request: Request, words: int) -> np.ndarray:
    """The bits of the tokens that may come next, uint32 [words]; its guide is asked once per token."""
    if request.mask is None:
        request.mask = np.full(words, 0xFFFFFFFF, np.uint32) if request.guide is None else np.zeros(words, np.uint32)
        if request.guide is not None:
            request.guide.fill(request.mask)
    return request.mask


def _sampling(fields: Fields, requests: Sequence[Request], drawn: Sequence[int]) -> Arrays:
    """The rows behind the requests are greedy."""
    arrays = empty(fields)
    arrays["top_p"][:] = arrays["repetition_penalty"][:] = 1.0
    for row, request in enumerate(requests):
        arrays["seed"][row] = request.seed
        arrays["index"][row] = len(request.output_ids) + request.num_drawn - drawn[row]
        arrays["top_k"][row] = max(request.params.top_k, 0)
        for name in ("temperature", "top_p", "min_p"):
            arrays[name][row] = getattr(request.params, name)
        for name in ("repetition_penalty", "presence_penalty", "frequency_penalty"):
            arrays[name][row] = getattr(request.params, name)
    return arrays


def _shaping(fields: Fields, requests: Sequence[Request]) -> Arrays:
    arrays = empty(fields)
    arrays["ends"][:] = -1
    for row, request in enumerate(requests):
        arrays["min_tokens"][row] = request.params.min_tokens
        arrays["reported"][row] = request.params.logprobs is not None
        fill_stop_ids(arrays["ends"], row, request)
    return arrays


def _bias(fields: Fields, requests: Sequence[Request]) -> Arrays:
    arrays = empty(fields)
    arrays["bias_ids"][:] = -1
    for row, request in enumerate(requests):
        for place, (token, value) in enumerate(request.params.logit_bias):
            arrays["bias_ids"][row, place], arrays["bias_values"][row, place] = token, value
    return arrays


def _history(fields: Fields, requests: Sequence[Request]) -> Arrays:
    arrays = empty(fields)
    arrays["history"][:] = -1
    for row, request in enumerate(requests):
        arrays["history"][row, : request.num_tokens] = request.tokens
        arrays["prompt_lengths"][row] = len(request.prompt_ids)
    return arrays


def _mask(fields: Fields, requests: Sequence[Request]) -> Arrays:
    """Rows without a guide may draw everything, those behind the requests nothing."""
    arrays = empty(fields)
    words = fields[0].shape[1]
    for row, request in enumerate(requests):
        arrays["mask"][row] = allowed(request, words)
    return arrays
