"""The tokenizer as llguidance wants it, and masks of its tokens."""

from collections.abc import Collection

import numpy as np
from llguidance import LLTokenizer

from g4jax.chat.tokenizer import Tokenizer

_SPECIAL = b"\xff"
"""What llguidance sets in front of control tokens, so that no text can spell one."""


class Vocabulary:
    """The bytes of every token, and the ids that open and close a thought.

    Control tokens stand in a grammar by their id, as in `<[48]>`, and never match text. Ids up to `vocab_size` that
    the tokenizer does not know match nothing.

    `backend`: what llguidance works with. `anything`, `text`: masks of all tokens, and of those that are ordinary text;
    uint32 [ceil(vocab_size / 32)], bit i % 32 of word i // 32.
    """

    def __init__(self, tokenizer: Tokenizer, vocab_size: int, stop_ids: Collection[int]):
        stops = sorted(i for i in stop_ids if i < vocab_size)
        if not stops:
            raise ValueError("stop_ids is empty: an answer under a grammar could not end; give the model's end ids")
        controls = {i for i in {*tokenizer.control_ids, tokenizer.control.unk} if i is not None and i < vocab_size}
        tokens = [b"" if i in controls else _text(tokenizer, i) for i in range(vocab_size)]
        self.channel_open = tokenizer.control.channel_open
        self.channel_close = tokenizer.control.channel_close
        self.anything = _mask(np.ones(vocab_size, np.uint8))
        self.text = _mask(np.array([bool(token) for token in tokens], np.uint8))
        for i in controls:
            tokens[i] = _SPECIAL + tokenizer.token_bytes(i, skip_special_tokens=False)
        self.backend = LLTokenizer(_Wrapper(tokenizer, tokens, stops[0]), eos_token=stops)  # pyright: ignore


def allow(row: np.ndarray, token_id: int) -> None:
    row[token_id // 32] |= np.uint32(1 << token_id % 32)


def allows(row: np.ndarray, token_id: int) -> bool:
    return 0 <= token_id < row.size * 32 and bool(row[token_id // 32] & np.uint32(1 << token_id % 32))


def _mask(bits: np.ndarray) -> np.ndarray:
    padded = np.pad(bits, (0, -bits.size % 32))
    return np.packbits(padded, bitorder="little").view("<u4").astype(np.uint32)


def _text(tokenizer: Tokenizer, token_id: int) -> bytes:
    """The byte 0xFF occurs in no text, and alone it would look like the mark of a control token."""
    token = tokenizer.token_bytes(token_id)
    return b"" if token.startswith(_SPECIAL) else token


class _Wrapper:
    """What llguidance reads of a tokenizer."""

    is_tokenizer_wrapper = True
    bos_token_id = None
    special_token_ids: tuple[int, ...] = ()

    def __init__(self, tokenizer: Tokenizer, tokens: list[bytes], eos_token_id: int):
        self._tokenizer = tokenizer
        self.tokens = tokens
        self.eos_token_id = eos_token_id

    def __call__(self, text: str) -> list[int]:
        """How forced text is cut into tokens: as the model learned it."""
        return self._tokenizer.encode_text(text)
