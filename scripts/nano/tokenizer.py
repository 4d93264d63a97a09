"""The tokenizer of nano: a small BPE laid out like Gemma's.

Merges stay inside a word, a number's digits are single tokens and the space "▁" is one of its own, so that a word has
the same tokens wherever it stands: after a space, in quotes, inside a tool's name. A small model copies only what looks
alike.
"""

import json
from collections.abc import Iterable

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from g4jax.chat.tokenizer import SPELLINGS

VOCAB_SIZE = 2048
CONTROL = tuple(SPELLINGS.values())
"""Control tokens; their places in this tuple are their ids (pad 0, eos 1, bos 2, unk 3, mask 4)."""

BYTES = tuple(f"<0x{byte:02X}>" for byte in range(256))
ALPHABET = [chr(code) for code in range(0x21, 0x7F)] + list("▁\n\tàáâãäåæçèéêëìíîïñòóôõöøùúûüÿßœ°€£¥§–—‘’“”…•·¿¡×÷½")

# Lower case with a capital before it, capitals, one digit, one space, a run of marks: no merge crosses these borders.
_RUNS = r"[A-Z]?[a-zà-ÿßœ]+|[A-Z]+(?![a-z])|[0-9]|▁|\n|[^A-Za-zà-ÿßœ0-9▁\n]+"


def train(texts: Iterable[str]) -> tokenizers.Tokenizer:
    """A tokenizer of `VOCAB_SIZE` tokens learned from `texts`, which must hold no control tokens."""
    learner = tokenizers.Tokenizer(models.BPE())
    learner.normalizer = normalizers.Replace(" ", "▁")
    learner.pre_tokenizer = pre_tokenizers.Split(tokenizers.Regex(_RUNS), "isolated")
    size = VOCAB_SIZE - len(CONTROL) - len(BYTES)
    trainer = trainers.BpeTrainer(
        vocab_size=size, initial_alphabet=ALPHABET, limit_alphabet=len(ALPHABET), show_progress=False
    )
    learner.train_from_iterator(texts, trainer)
    learned = json.loads(learner.to_str())["model"]
    by_id = sorted(learned["vocab"], key=learned["vocab"].__getitem__)
    vocab = {token: index for index, token in enumerate([*CONTROL, *BYTES, *by_id])}
    if len(vocab) != VOCAB_SIZE:
        raise ValueError(f"the texts give {len(vocab)} tokens, not {VOCAB_SIZE}: train on more or richer texts")
    return _assembled(vocab, [tuple(merge) for merge in learned["merges"]])


def _assembled(vocab: dict[str, int], merges: list[tuple[str, ...]]) -> tokenizers.Tokenizer:
    pairs = [(left, right) for left, right in merges]
    tokenizer = tokenizers.Tokenizer(models.BPE(vocab, pairs, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens([tokenizers.AddedToken(token, special=True, normalized=False) for token in CONTROL])
    return tokenizer


def configuration() -> dict[str, object]:
    """tokenizer_config.json."""
    names = ("pad", "eos", "bos", "unk", "mask")
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_bos_token": False,
        "clean_up_tokenization_spaces": False,
        "padding_side": "left",
        "model_max_length": 4096,
        **{f"{name}_token": SPELLINGS[name] for name in names},
    }


def without_merges() -> tokenizers.Tokenizer:
    """Control tokens, bytes and characters only: enough to render a template before there is a tokenizer."""
    return _assembled({token: index for index, token in enumerate([*CONTROL, *BYTES, *ALPHABET])}, [])
