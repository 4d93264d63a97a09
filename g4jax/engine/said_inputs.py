"""What requests with penalties have said so far: few tokens beside the vocabulary, which the host keeps and sends."""

from collections.abc import Sequence

import numpy as np

from g4jax.engine.draw_inputs import draws
from g4jax.engine.packing import Field, Fields, empty, pack
from g4jax.engine.request import Request

TOGETHER = 1024
"""Tokens of each row that a launch counts; those who have said more take several."""


class Said:
    """The different tokens of one request, and how often each was said; `follow` brings them up to date."""

    def __init__(self, prompt_ids: Sequence[int]):
        self._places = {token: place for place, token in enumerate(dict.fromkeys(prompt_ids))}
        self._tokens = np.array(list(self._places), np.int32)
        self._counts = np.ones(self._tokens.size, np.int32)
        self._followed = 0

    @property
    def tokens(self) -> np.ndarray:
        return self._tokens[: len(self._places)]

    @property
    def counts(self) -> np.ndarray:
        """Twice how often the output has the token, one more where the prompt does."""
        return self._counts[: len(self._places)]

    def follow(self, output_ids: Sequence[int]) -> None:
        """`output_ids`: all so far."""
        for token in output_ids[self._followed :]:
            place = self._place(token)
            self._counts[place] += 2
        self._followed = len(output_ids)

    def _place(self, token: int) -> int:
        place = self._places.setdefault(token, len(self._places))
        if place == self._tokens.size:
            more = max(TOGETHER, place)
            self._tokens, self._counts = np.pad(self._tokens, (0, more)), np.pad(self._counts, (0, more))
        self._tokens[place] = token
        return place


def said_fields(rows: int) -> Fields:
    """Of one launch; a token of -1 is none."""
    return Field("tokens", (rows, TOGETHER)), Field("counts", (rows, TOGETHER))


def said_inputs(requests: Sequence[Request], drawn: Sequence[int], rows: int) -> list[np.ndarray]:
    """The packed inputs of all launches that count what `requests`, the first of `rows` rows, have said; none where
    nobody asks. Every token before those to be drawn must be known."""
    said = {
        row: _followed(request)
        for row, request in enumerate(requests)
        if request.params.has_penalties and draws(request, drawn[row])
    }
    most = max((own.tokens.size for own in said.values()), default=0)
    return [_packed(said, rows, start) for start in range(0, most, TOGETHER)]


def _followed(request: Request) -> Said:
    if request.said is None:
        request.said = Said(request.prompt_ids)
    request.said.follow(request.output_ids)
    return request.said


def _packed(said: dict[int, Said], rows: int, start: int) -> np.ndarray:
    fields = said_fields(rows)
    arrays = empty(fields)
    arrays["tokens"][:] = -1
    for row, own in said.items():
        here = own.tokens[start : start + TOGETHER]
        arrays["tokens"][row, : here.size] = here
        arrays["counts"][row, : here.size] = own.counts[start : start + TOGETHER]
    return pack(fields, arrays)
