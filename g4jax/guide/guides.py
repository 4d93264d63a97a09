"""Compiled grammars for the requests of one process."""

from collections.abc import Collection
from functools import cached_property, lru_cache

import numpy as np
from llguidance import LLMatcher, LLParserLimits
from llguidance.numpy import fill_next_token_bitmask

from g4jax.chat.tokenizer import Tokenizer
from g4jax.guide.errors import GrammarError, short
from g4jax.guide.guide import Guide
from g4jax.guide.spec import GuideSpec
from g4jax.guide.vocabulary import Vocabulary

MAX_GRAMMAR = 1 << 20
"""Characters of a grammar."""

_CACHED = 64
_LIMITS = LLParserLimits(max_items_in_row=20_000, verbose_errors=False)
"""A row holds four items for each optional property of an object. The other limits bound a step to some 70 ms."""


class Guides:
    """Starts a guide for each constrained request. One in a process; safe to share between threads.

    vocab_size: of the model, which may have more ids than the tokenizer. stop_ids: the model's end ids, not empty.
    The first guide takes a second, for the vocabulary is read then.
    """

    def __init__(self, tokenizer: Tokenizer, vocab_size: int, stop_ids: Collection[int]):
        self._tokenizer = tokenizer
        self._vocab_size = vocab_size
        self._stop_ids = frozenset(stop_ids)
        self._compiled = lru_cache(_CACHED)(self._compile)

    @cached_property
    def _vocabulary(self) -> Vocabulary:
        return Vocabulary(self._tokenizer, self._vocab_size, self._stop_ids)

    def check(self, spec: GuideSpec) -> None:
        """GrammarError if no answer can follow the spec. Keeps nothing of it."""
        self._check_channel(spec)
        if spec.grammar is not None:
            self._compile(spec.grammar)

    def start(self, spec: GuideSpec) -> Guide:
        """GrammarError as `check`. Requests with the same grammar share the work of compiling it."""
        self._check_channel(spec)
        matcher = None if spec.grammar is None else self._compiled(spec.grammar).deep_copy()
        return Guide(spec, matcher, self._vocabulary)

    def _compile(self, grammar: str) -> LLMatcher:
        """At the start of the grammar, where something can follow."""
        if len(grammar) > MAX_GRAMMAR:
            raise GrammarError(f"the grammar has {len(grammar)} characters, {MAX_GRAMMAR} are allowed: make it smaller")
        matcher = LLMatcher(self._vocabulary.backend, grammar, log_level=0, limits=_LIMITS)
        fill_next_token_bitmask(matcher, np.zeros((1, self._vocabulary.anything.size), np.int32))
        if matcher.is_error():
            raise GrammarError(short(matcher.get_error()))
        return matcher

    def _check_channel(self, spec: GuideSpec) -> None:
        if spec.in_thought and self._tokenizer.control.channel_close is None:
            raise GrammarError("the prompt ends in a thought, but the tokenizer has no token that closes one")
