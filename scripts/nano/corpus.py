"""Text to learn the tokenizer from: samples of the mixture without control tokens, and plain word lists."""

import random
import re
from collections.abc import Iterator

from g4jax.chat.template import ChatTemplate, shipped_source
from g4jax.chat.tokenizer import SPELLINGS, Tokenizer
from scripts.nano import mixture, rendering, words
from scripts.nano.tokenizer import without_merges

_CONTROL = re.compile("|".join(re.escape(spelling) for spelling in sorted(SPELLINGS.values(), key=len, reverse=True)))


def texts(seed: int, samples: int) -> Iterator[str]:
    """Pieces between control tokens of `samples` training samples."""
    rng = random.Random(seed)
    template = ChatTemplate(shipped_source("small"), _no_tokenizer())
    for _ in range(samples):
        sample = mixture.any_sample(rng, "train")
        prompt = rendering.prompt(sample, template)
        yield from filter(None, _CONTROL.split(prompt + rendering.reply(sample, prompt)))
    for pool in words.POOLS.values():
        yield from pool["train"] * 5
    yield from (words.made_up(rng, "train") for _ in range(samples))


def _no_tokenizer() -> Tokenizer:
    """Rendering needs only the spelling of the control tokens."""
    return Tokenizer.from_backend(without_merges())
