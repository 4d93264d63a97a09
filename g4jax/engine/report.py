"""The log probabilities that a step reports, request by request."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from g4jax.engine.plan import PrefillPlan
from g4jax.engine.request import Request, TokenLogprobs

Report = Any
"""What `logprobs_of` gives: [...] of the tokens, [..., M] ids and [..., M] values of the likeliest; () for nothing."""


def drawn_logprobs(requests: Sequence[Request], report: Report) -> list[list[TokenLogprobs]]:
    """Of each request that wants them those of its row, in a report [N, B] of N draws."""
    if all(request.params.logprobs is None for request in requests):
        return [[] for _ in requests]
    host = [np.asarray(array) for array in report]
    return [
        [] if request.params.logprobs is None else _cut([x[:, row] for x in host], request.params.logprobs)
        for row, request in enumerate(requests)
    ]


def prompt_logprobs(plan: PrefillPlan, report: Report) -> dict[str, list[TokenLogprobs]]:
    """Of each request in a scored plan those of the prompt's tokens behind each token of its piece; [T] packed ones."""
    if not plan.scored:
        return {}
    host, scores, at = [np.asarray(array) for array in report], {}, 0
    for piece in plan.pieces:
        known = piece.length - piece.finishes  # Nothing of the prompt follows its last token.
        wanted = piece.request.params.prompt_logprobs or 0
        scores[piece.request.id] = _cut([x[at : at + known] for x in host], wanted)
        at += piece.length
    return scores


def _cut(report: list[np.ndarray], top: int) -> list[TokenLogprobs]:
    logprobs, ids, tops = report
    return list(map(TokenLogprobs, logprobs.tolist(), ids[:, :top].tolist(), tops[:, :top].tolist()))
