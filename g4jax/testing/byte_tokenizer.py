"""A small tokenizer with Gemma 4's layout, for tests that must not need a checkpoint."""

from pathlib import Path

import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers

from g4jax.chat.tokenizer import SPELLINGS, Tokenizer

CONTROL_IDS = {
    **{"pad": 0, "eos": 1, "bos": 2, "unk": 3, "mask": 4},
    **{"tool_open": 46, "tool_close": 47, "call_open": 48, "call_close": 49},
    **{"response_open": 50, "response_close": 51, "quote": 52},
    **{"think": 98, "channel_open": 100, "channel_close": 101, "turn_open": 105, "turn_close": 106},
    **{"image_open": 110, "audio_open": 111, "image": 112, "audio": 113},
    **{"image_close": 114, "audio_close": 115, "video": 116},
}
"""Gemma 4's own ids, but for the media tokens, which stand at the end of the real vocabulary."""

NEWLINE_ID = 107
FIRST_BYTE_ID = 120
WORDS = ("thought", "user", "model", "system", "call", "value", "▁the", "▁is", "▁a", "\n\n", "▁▁", "日本")


def byte_tokenizer(folder: str | Path | None = None, *, vocab_size: int = 512) -> Tokenizer:
    """A byte-fallback BPE of `vocab_size` (at least 512) tokens; written to `folder`/tokenizer.json if one is named.

    Every text can be encoded: printable ASCII and a few words are tokens, all else falls back to bytes.
    """
    backend = _backend(vocab_size)
    if folder is None:
        return Tokenizer.from_backend(backend)
    Path(folder).mkdir(parents=True, exist_ok=True)
    backend.save(str(Path(folder) / "tokenizer.json"))
    return Tokenizer(folder)


def _backend(vocab_size: int) -> tokenizers.Tokenizer:
    vocab, merges = _vocabulary(vocab_size)
    bpe = models.BPE(vocab=vocab, merges=merges, unk_token=SPELLINGS["unk"], fuse_unk=True, byte_fallback=True)
    backend = tokenizers.Tokenizer(bpe)
    backend.normalizer = normalizers.Replace(" ", "▁")
    backend.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    backend.add_special_tokens([AddedToken(SPELLINGS[name], special=True, normalized=False) for name in CONTROL_IDS])
    return backend


def _vocabulary(vocab_size: int) -> tuple[dict[str, int], list[tuple[str, str]]]:
    tokens: dict[int, str] = {i: SPELLINGS[name] for name, i in CONTROL_IDS.items()}
    tokens[NEWLINE_ID] = "\n"
    tokens |= {FIRST_BYTE_ID + byte: f"<0x{byte:02X}>" for byte in range(256)}
    characters = [chr(c) for c in range(33, 127)] + ["▁", "日", "本"]
    tokens |= dict(enumerate(characters, FIRST_BYTE_ID + 256))
    merges = []
    taken, next_id = set(tokens.values()), max(tokens) + 1
    for word in WORDS:
        for end in range(2, len(word) + 1):
            if word[:end] not in taken:
                taken.add(word[:end])
                tokens[next_id] = word[:end]
                next_id += 1
                merges.append((word[: end - 1], word[end - 1]))
    if next_id > vocab_size:
        raise ValueError(f"vocab_size {vocab_size} is too small: the byte tokenizer needs {next_id}")
    return {tokens.get(i, f"<unused{i}>"): i for i in range(vocab_size)}, merges
