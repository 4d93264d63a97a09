"""What a step must know to draw tokens, as packed arrays: sampling, limits, biases, masks.

Biases and masks are large and seldom needed: where no request has any, the device's own zeros stand for them.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from g4jax.engine.batch import STOP_IDS, fill_stop_ids
from g4jax.engine.packing import Field, Fields, empty, pack, packed_size
from g4jax.engine.request import Guide, Request
from g4jax.guide.masks import fill_masks
from g4jax.sample.params import MAX_LOGIT_BIAS

Variant = Literal["greedy", "sampled", "shaped", "guided"]
"""greedy: argmax. sampled: temperature, top-k, top-p, min-p. shaped: the same after logit_bias, penalties and
min_tokens, and with log probabilities. guided: the same under the masks of guides, one token a launch."""

Arrays = dict[str, np.ndarray]

PLAIN: tuple[Variant, ...] = ("greedy", "sampled")
RICH: tuple[Variant, ...] = ("shaped", "guided")


class DrawInputs(NamedTuple):
    """The packed arrays of a batch, or their fields, or their shapes; empty where the variant has no use for them."""

    sampling: Any = ()
    shaping: Any = ()
    bias: Any = ()
    mask: Any = ()


def variant_of(requests: Sequence[Request]) -> Variant:
    """The least that serves every request of a batch; a greedy row stays greedy in all of them."""
    if any(request.guide is not None for request in requests):
        return "guided"
    if any(request.params.is_shaped for request in requests):
        return "shaped"
    return "greedy" if all(request.params.greedy for request in requests) else "sampled"


def draw_fields(variant: Variant, rows: int, vocab_size: int) -> DrawInputs:
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
        mask=(Field("forbidden", (rows, words), np.uint32),) if variant == "guided" else (),
    )


def draw_inputs(
    requests: Sequence[Request],
    drawn: Sequence[int],
    rows: int,
    variant: Variant,
    vocab_size: int,
    zeros: Callable[[int], Any],
) -> DrawInputs:
    """Packs `requests`, which this launch draws `drawn` tokens of, as the first of `rows` rows.

    `zeros(size)` is taken where there is nothing to pack. A guide is asked for its mask here, and must have seen every
    token before.
    """
    fields = draw_fields(variant, rows, vocab_size)
    guides = [r.guide if draws(r, count) else None for r, count in zip(requests, drawn, strict=True)]
    has_bias = any(request.params.logit_bias for request in requests)
    needed = DrawInputs(sampling=True, shaping=True, bias=has_bias, mask=any(guides))
    fill = DrawInputs(
        sampling=lambda own: _sampling(own, requests, drawn),
        shaping=lambda own: _shaping(own, requests),
        bias=lambda own: _bias(own, requests),
        mask=lambda own: _mask(own, guides),
    )
    packed = (
        (pack(own, fill_own(own)) if need else zeros(packed_size(own))) if own else ()
        for own, fill_own, need in zip(fields, fill, needed, strict=True)
    )
    return DrawInputs(*packed)


def draws(request: Request, drawn: int) -> bool:
    """Whether anybody wants the token: not where a piece ends inside a prompt, or where the request has ended since it
    was planned."""
    return drawn > 0 and request.status == "running"


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
    """Ids of -1 are none; in the device's zeros a value of 0 is."""
    arrays = empty(fields)
    arrays["bias_ids"][:] = -1
    for row, request in enumerate(requests):
        for place, (token, value) in enumerate(request.params.logit_bias):
            arrays["bias_ids"][row, place], arrays["bias_values"][row, place] = token, value
    return arrays


def _mask(fields: Fields, guides: Sequence[Guide | None]) -> Arrays:
    """What the guides do not allow next."""
    arrays = empty(fields)
    fill_masks(guides, arrays["forbidden"])
    for bits, guide in zip(arrays["forbidden"], guides, strict=False):
        if guide is not None:
            np.invert(bits, out=bits)
    return arrays
