"""The tokenizer as llguidance wants it, and which tokens are ordinary text."""

from collections.abc import Collection

import numpy as np
from llguidance import LLTokenizer

from g4jax.chat.tokenizer import Tokenizer

_SPECIAL = b"\xff"
"""What llguidance sets in front of control tokens, so that no text can spell one."""


class Vocabulary:
    """The bytes of every token.

    Control tokens can stand in a grammar by their id, as in `<[48]>`, and never match text. Ids that the tokenizer
    does not know, up to `vocab_size`, match nothing.

    Attributes: `size`, `words` (uint32 words of a mask), `backend` (for llguidance), `ordinary` (the mask of all
    tokens of text).
    """

    def __init__(self, tokenizer: Tokenizer, vocab_size: int, stop_ids: Collection[int]):
        controls = {i for i in {*tokenizer.control_ids, tokenizer.control.unk} if i is not None}
        tokens = [_text(tokenizer, i, controls) for i in range(vocab_size)]
        self.size = vocab_size
        self.words = -(-vocab_size // 32)
        self.ordinary = mask_of([i for i, token in enumerate(tokens) if token], self.words)
        for i in controls:
            if i < vocab_size:
                tokens[i] = _SPECIAL + tokenizer.token_bytes(i, skip_special_tokens=False)
        stops = sorted(i for i in stop_ids if i < vocab_size)
        if not stops:
            raise ValueError("stop_ids is empty: an answer under a grammar could never end; name the model's end ids")
        self.backend = LLTokenizer(_Wrapper(tokenizer, tokens, stops[0]), eos_token=stops)  # pyright: ignore


def mask_of(ids: Collection[int], words: int) -> np.ndarray:
    """uint32 [words] with bit i % 32 of word i // 32 set for every id."""
    bits = np.zeros(words * 32, np.uint8)
    bits[list(ids)] = 1
    return np.packbits(bits, bitorder="little").view("<u4").astype(np.uint32)


def allows(row: np.ndarray, token_id: int) -> bool:
    return 0 <= token_id < row.size * 32 and bool(row[token_id // 32] >> np.uint32(token_id % 32) & np.uint32(1))


def _text(tokenizer: Tokenizer, token_id: int, controls: Collection[int]) -> bytes:
    """Of an ordinary token. The byte 0xFF is in no text, and alone it would look like the mark of a control token."""
    token = b"" if token_id in controls else tokenizer.token_bytes(token_id)
    return b"" if token.startswith(_SPECIAL) else token


class _Wrapper:
    """What llguidance's TokenizerWrapper offers; that class itself would try the tokenizer on bytes first."""

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
