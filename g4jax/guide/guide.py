"""One answer on its way: which token may come next."""

import math

import numpy as np
from llguidance import LLMatcher

from g4jax.guide.errors import short
from g4jax.guide.spec import GuideSpec
from g4jax.guide.vocabulary import Vocabulary, allow, allows


class Guide:
    """The state of one request. `fill_masks` says what may come, `accept` takes what came, by turns.

    `error` is set by either at a dead end: nothing may follow, or a token came that was not allowed. It stays.

    Where the grammar is complete the model's stop ids are allowed, and nothing else unless the grammar can go on.
    `matcher` stands at the start of the grammar and is this guide's own; None where the answer is free.
    """

    def __init__(self, spec: GuideSpec, matcher: LLMatcher | None, vocabulary: Vocabulary):
        self.error: str | None = None
        self._matcher = matcher
        self._vocabulary = vocabulary
        self._opener = vocabulary.channel_open
        self._closer = vocabulary.channel_close
        self._thinks = spec.in_thought
        # A free answer may think whenever it likes, and all of its thoughts share the budget.
        self._may_open = matcher is None or (spec.may_think and not spec.in_thought)
        self._budget = math.inf if spec.thinking_budget is None else spec.thinking_budget

    @property
    def asks(self) -> LLMatcher | None:
        """Who says what may come next; None where no grammar has a say."""
        return None if self._thinks or self.error is not None else self._matcher

    def complete(self, row: np.ndarray) -> None:
        """Writes what may come, where the row holds what `asks` allows."""
        if self.error is None:
            self._complete(row)
        if self.error is not None:
            row[:] = 0

    def accept(self, token_id: int) -> None:
        """Takes the token that was drawn."""
        if self.error is not None:
            return
        if self._thinks:
            self._accept_in_thought(token_id)
        elif token_id == self._opener and self._may_open:
            self._thinks, self._may_open = True, self._matcher is None
        elif self._matcher is not None:
            self._may_open = False
            if not self._matcher.consume_token(token_id):
                self.error = f"token {token_id} does not fit the grammar: {short(self._matcher.get_error())}"

    def _complete(self, row: np.ndarray) -> None:
        if self._thinks:
            row[:] = self._vocabulary.text if self._budget > 0 else 0
            if self._closer is not None:
                allow(row, self._closer)
        elif self._matcher is None:
            row[:] = self._vocabulary.anything
        else:
            if self._may_open and self._opener is not None:
                allow(row, self._opener)
            if self._matcher.is_error():
                self.error = f"nothing can follow in the grammar: {short(self._matcher.get_error())}"

    def _accept_in_thought(self, token_id: int) -> None:
        if token_id == self._closer:
            self._thinks = False
        elif self._budget > 0 and allows(self._vocabulary.text, token_id):
            self._budget -= 1
        else:
            self.error = f"token {token_id} cannot stand in a thought"
