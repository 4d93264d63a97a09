"""Guides over the byte tokenizer: what a grammar takes, and how it is refused."""

import time
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from g4jax.guide import GrammarError, Guides, GuideSpec
from g4jax.guide.masks import fill_masks
from g4jax.testing.byte_tokenizer import byte_tokenizer

TOKENIZER = byte_tokenizer()
GUIDES = Guides(TOKENIZER, TOKENIZER.vocab_size, TOKENIZER.stop_ids)


def takes_ids(grammar: str, ids: Sequence[int]) -> bool:
    """Whether the ids as a whole are an answer."""
    guide = GUIDES.start(GuideSpec(grammar))
    row = np.zeros(-(-TOKENIZER.vocab_size // 32), np.uint32)

    def is_allowed(token: int) -> bool:
        fill_masks([guide], row[None])
        return bool(row[token // 32] >> np.uint32(token % 32) & np.uint32(1))

    for token in ids:
        if not is_allowed(token):
            return False
        guide.accept(token)
    return is_allowed(min(TOKENIZER.stop_ids))


def refusal(make: Callable[[], str]) -> str:
    """The message for a grammar that cannot be made, which comes soon and is one line."""
    start = time.process_time()
    with pytest.raises(GrammarError) as caught:
        GUIDES.check(GuideSpec(make()))
    assert time.process_time() - start < 5
    message = str(caught.value)
    assert len(message) < 400 and "\n" not in message
    return message
