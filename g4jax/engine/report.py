"""The log probabilities that a step reports: packed on the device, for one transfer, and told request by request."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from g4jax.engine.plan import PrefillPlan
from g4jax.engine.request import Request, TokenLogprobs
from g4jax.sample.params import MAX_LOGPROBS

Report = Any
"""int32 [..., 1 + 2 M]: the bits of the token's log probability, the ids of the M likeliest, the bits of theirs; () for
nothing."""


def packed_report(
    logprobs: Float[Array, " B"], ids: Int[Array, "B M"], tops: Float[Array, "B M"]
) -> Int[Array, "B 1+2*M"]:
    """From what `logprobs_of` gives."""
    first, last = (lax.bitcast_convert_type(x, jnp.int32) for x in (logprobs[:, None], tops))
    return jnp.concatenate([first, ids, last], axis=1)


def nothing_reported(rows: int) -> jax.Array:
    """A report of so many rows that says nothing."""
    return jnp.zeros((rows, 1 + 2 * MAX_LOGPROBS), jnp.int32)


def drawn_logprobs(requests: Sequence[Request], report: Report) -> list[list[TokenLogprobs]]:
    """Of each request that wants them those of its row, in a report [N, B] of N draws."""
    if all(request.params.logprobs is None for request in requests):
        return [[] for _ in requests]
    host = np.asarray(report)
    return [
        [] if request.params.logprobs is None else _cut(host[:, row], request.params.logprobs)
        for row, request in enumerate(requests)
    ]


def prompt_logprobs(plan: PrefillPlan, report: Report) -> dict[str, list[TokenLogprobs]]:
    """Of each request in a scored plan those of the prompt's tokens behind each token of its piece; [T] packed ones."""
    if not plan.scored:
        return {}
    host, scores, at = np.asarray(report), {}, 0
    for piece in plan.pieces:
        known = piece.length - piece.finishes  # Nothing of the prompt follows its last token.
        scores[piece.request.id] = _cut(host[at : at + known], piece.request.params.prompt_logprobs or 0)
        at += piece.length
    return scores


def _cut(report: np.ndarray, top: int) -> list[TokenLogprobs]:
    """Of each token [N]."""
    values = np.ascontiguousarray(report).view(np.float32)
    ids, tops = report[:, 1 : 1 + top], values[:, 1 + MAX_LOGPROBS :][:, :top]
    return list(map(TokenLogprobs, values[:, 0].tolist(), ids.tolist(), tops.tolist()))
