"""Logits of given tokens through the engine's own steps: what evaluation scores and what parity tests compare."""

from collections.abc import Iterator, Sequence

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
    for _, logits in _forced(engine, [token_ids], len(token_ids), media):
        yield logits


def decode_logits(engine: Engine, token_ids: list[int], prefilled: int = 1, media: Media = ()) -> Iterator[np.ndarray]:
    """The same: `prefilled` tokens piece by piece, then `[1, V]` of every further one, through the decode step.

    All that `media` fill must be among the former.
    """
    for _, logits in _forced(engine, [token_ids], prefilled, media):
        yield logits


def batch_logits(engine: Engine, sequences: Sequence[list[int]], prefilled: int) -> list[np.ndarray]:
    """Of each sequence what `decode_logits` gives, `[T, V]`; prompts are packed together, and as many rows decode
    together as the engine's batch holds."""
    parts: list[list[np.ndarray]] = [[] for _ in sequences]
    for index, logits in _forced(engine, sequences, prefilled):
        parts[index].append(logits)
    return [np.concatenate(each) for each in parts]


def _forced(
    engine: Engine, sequences: Sequence[list[int]], prompt: int, media: Media = ()
) -> Iterator[tuple[int, np.ndarray]]:
    """Runs the sequences whatever the model would draw, the first `prompt` tokens of each by prefill.

    Yields which sequence, and the logits of its next tokens. `media` are in each of them.
    """
    scheduler, runner = engine.scheduler, engine.runner
    indices = {f"scoring-{index}": index for index in range(len(sequences))}
    for request_id, index in indices.items():
        params = SamplingParams(max_tokens=len(sequences[index]) - prompt + 1, ignore_eos=True)
        # Tokens found in the prefix cache would have no logits: nobody else shares this salt.
        salt = np.random.bytes(16)
        engine.add_request(Request(request_id, sequences[index][:prompt], params, cache_salt=salt, media=media))

    def given(request: Request) -> int:
        return [*sequences[indices[request.id]], 0][request.num_tokens]

    while scheduler.has_work:
        match scheduler.plan():
            case PrefillPlan() as plan:
                requests = [piece.request for piece in plan.pieces]
                ends = np.cumsum([piece.length for piece in plan.pieces])
                logits = np.split(runner.prompt_logits(plan), ends[:-1])
                scheduler.complete_prefill(plan, PrefillResult({request.id: given(request) for request in requests}))
            case DecodePlan() as plan:
                requests, tokens = plan.requests, [[given(request)] for request in plan.requests]
                logits = np.split(runner.token_logits(plan), len(requests))
                scheduler.complete_decode(plan, DecodeResult(tokens, [[] for _ in tokens]))
            case _:
                raise AssertionError("prompts go with those that decode: this engine cannot score several sequences")
        yield from zip([indices[request.id] for request in requests], logits, strict=True)
