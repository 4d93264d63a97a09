"""One answer on its way: which token may come next."""

import math

import numpy as np
from llguidance import LLMatcher
from llguidance.numpy import fill_next_token_bitmask

from g4jax.guide.messages import short
from g4jax.guide.spec import GuideSpec
from g4jax.guide.vocabulary import Vocabulary, allows, mask_of


class Guide:
    """The state of one request. `fill` says what may come, `accept` takes what came, by turns.

    `error` is set at a dead end: nothing may follow, or a token came that was not allowed. It may be set by `fill` and
    by `accept`, and stays.

    Where the grammar is complete the model's stop ids are allowed, and nothing else unless it can also go on.
    """

    def __init__(
        self,
        spec: GuideSpec,
        matcher: LLMatcher | None,
        vocabulary: Vocabulary,
        channel: tuple[int | None, int | None],
    ):
        """matcher: at the start of the grammar, of this guide alone. channel: the ids that open and close a thought."""
        self.error: str | None = None
        self._matcher = matcher
        self._vocabulary = vocabulary
        self._open, self._close = channel
        self._thinks = spec.in_thought
        self._may_open = spec.may_think and not spec.in_thought
        self._budget = math.inf if spec.thinking_budget is None else spec.thinking_budget

    def fill(self, row: np.ndarray) -> None:
        """Writes which tokens may come: uint32 [ceil(V / 32)], bit i % 32 of word i // 32; all zero at a dead end."""
        row[:] = 0
        if self.error is not None:
            return
        if self._thinks:
            self._fill_thought(row)
        elif self._matcher is None:
            row[:] = 0xFFFFFFFF
            self._clear_tail(row)
        else:
            self._fill_grammar(row, self._matcher)
            if self._may_open and self._open is not None:
                row |= mask_of([self._open], row.size)

    def accept(self, token_id: int) -> None:
        """Takes the token that was drawn."""
        if self.error is not None:
            return
        if self._thinks:
            self._accept_thought(token_id)
        elif token_id == self._open and (self._may_open or self._matcher is None):
            self._thinks, self._may_open = True, False
        else:
            self._may_open = False
            if self._matcher is not None and not self._matcher.consume_token(token_id):
                self.error = f"token {token_id} is not what the grammar allows: {short(self._matcher.get_error())}"

    def _fill_thought(self, row: np.ndarray) -> None:
        """All text until the budget is spent, and the end of the thought."""
        if self._budget > 0:
            row[:] = self._vocabulary.ordinary
        if self._close is not None:
            row |= mask_of([self._close], row.size)
