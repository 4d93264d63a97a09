"""Logits of given tokens through the engine's own steps: what evaluation scores and what parity tests compare."""

from collections.abc import Iterator

import numpy as np

from g4jax.engine.engine import Engine
from g4jax.engine.plan import DecodePlan, DecodeResult, PrefillPlan, PrefillResult
from g4jax.engine.request import Request
from g4jax.media.inputs import PlacedInput
from g4jax.sample.params import SamplingParams

Media = tuple[PlacedInput, ...]


def prompt_logits(engine: Engine, token_ids: list[int], media: Media = ()) -> Iterator[np.ndarray]:
    """Logits `[t, V]` of every position, piece by piece as it is prefilled. No other request may be under way.

    media: what fills the placeholders among `token_ids`.
    """
    yield from _forced(engine, token_ids, len(token_ids), media)


def decode_logits(engine: Engine, token_ids: list[int], prefilled: int = 1, media: Media = ()) -> Iterator[np.ndarray]:
    """The same: `prefilled` tokens piece by piece, then `[1, V]` of every further one, through the decode step.

    All that `media` fill must be among the former.
    """
    yield from _forced(engine, token_ids, prefilled, media)


def _forced(engine: Engine, token_ids: list[int], prompt: int, media: Media) -> Iterator[np.ndarray]:
    """Runs `token_ids` whatever the model would draw; the first `prompt` of them by prefill."""
    scheduler, runner = engine.scheduler, engine.runner
    params = SamplingParams(max_tokens=len(token_ids) - prompt + 1, ignore_eos=True)
    # Tokens found in the prefix cache would have no logits: nobody else shares this salt.
    request = Request("scoring", token_ids[:prompt], params, cache_salt=np.random.bytes(16), media=media)
    engine.add_request(request)
    while scheduler.has_work:
        given = [*token_ids, 0][request.num_tokens]
        match scheduler.plan():
            case PrefillPlan() as plan:
                yield runner.prompt_logits(plan)
                scheduler.complete_prefill(plan, PrefillResult({request.id: given}))
            case DecodePlan() as plan:
                yield runner.token_logits(plan)
                scheduler.complete_decode(plan, DecodeResult([[given]], [[]]))
