"""The tokenizer of a checkpoint, with its control tokens kept apart from ordinary text."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import tokenizers

SPELLINGS = {
    "pad": "<pad>",
    "eos": "<eos>",
    "bos": "<bos>",
    "unk": "<unk>",
    "mask": "<mask>",
    "turn_open": "<|turn>",
    "turn_close": "<turn|>",
    "channel_open": "<|channel>",
    "channel_close": "<channel|>",
    "tool_open": "<|tool>",
    "tool_close": "<tool|>",
    "call_open": "<|tool_call>",
    "call_close": "<tool_call|>",
    "response_open": "<|tool_response>",
    "response_close": "<tool_response|>",
    "quote": '<|"|>',
    "think": "<|think|>",
    "image_open": "<|image>",
    "image": "<|image|>",
    "image_close": "<image|>",
    "audio_open": "<|audio>",
    "audio": "<|audio|>",
    "audio_close": "<audio|>",
    "video": "<|video|>",
}
"""How Gemma 4 spells its control tokens. Their ids always come from the checkpoint."""

_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


@dataclass(frozen=True)
class ControlIds:
    """The id of each control token; None where the checkpoint has none. `quote` is the string delimiter `<|"|>`."""

    pad: int | None = None
    eos: int | None = None
    bos: int | None = None
    unk: int | None = None
    mask: int | None = None
    turn_open: int | None = None
    turn_close: int | None = None
    channel_open: int | None = None
    channel_close: int | None = None
    tool_open: int | None = None
    tool_close: int | None = None
    call_open: int | None = None
    call_close: int | None = None
    response_open: int | None = None
    response_close: int | None = None
    quote: int | None = None
    think: int | None = None
    image_open: int | None = None
    image: int | None = None
    image_close: int | None = None
    audio_open: int | None = None
    audio: int | None = None
    audio_close: int | None = None
    video: int | None = None


class Tokenizer:
    """Reads `tokenizer.json` of a checkpoint folder. Safe to share between threads: nothing changes after the start.

    Two ways to encode, and the choice matters: `encode_text` never yields a control id, whatever the text spells;
    `encode_rendered` turns spellings of control tokens into their ids and is for text that a template wrote.
    Neither adds a BOS token.

    Attributes: `control` (ids by name), `control_ids` (all of them), `vocab_size`.

    Errors: FileNotFoundError without `tokenizer.json`; ValueError for a decoder that is not Gemma's.
    """

    def __init__(self, folder: str | Path):
        path = Path(folder) / "tokenizer.json"
        if not path.is_file():
            raise FileNotFoundError(
                f"{path} does not exist: the checkpoint folder needs the tokenizer.json of its model"
            )
        self._read(tokenizers.Tokenizer.from_file(str(path)), str(path))

    @classmethod
    def from_backend(cls, backend: tokenizers.Tokenizer) -> "Tokenizer":
        """A tokenizer that stands in memory only. `backend` must not be changed afterwards."""
        tokenizer = cls.__new__(cls)
        tokenizer._read(backend, "the tokenizer")
        return tokenizer

    def _read(self, backend: tokenizers.Tokenizer, origin: str) -> None:
        if "ByteFallback" not in repr(backend.decoder):
            raise ValueError(f"{origin}: decoder {backend.decoder!r} has no ByteFallback; only Gemma's layout is read")
        backend.encode_special_tokens = True  # spellings of control tokens stay text; we split them out ourselves
        backend.no_truncation()
        backend.no_padding()
        self._backend = backend
        known = set(SPELLINGS.values())
        added = backend.get_added_tokens_decoder()
        self._controls = {t.content: i for i, t in added.items() if t.special or t.content in known}
        self._spelled = {i: spelling for spelling, i in self._controls.items()}
        # unk is no control: it carries no meaning, and text without byte fallback may hold it.
        self.control_ids = frozenset(self._spelled) - {self._controls.get(SPELLINGS["unk"])}
        self.control = ControlIds(**{name: self._controls.get(spelling) for name, spelling in SPELLINGS.items()})
        self.vocab_size = backend.get_vocab_size(with_added_tokens=True)
        # Longest first, so that no spelling hides behind one that begins alike.
        spellings = sorted(self._controls, key=len, reverse=True)
        self._spelling = re.compile("|".join(re.escape(s) for s in spellings) or r"(?!)")
        self.control_starts = frozenset(s[0] for s in spellings)

    @property
    def bos_id(self) -> int | None:
        return self.control.bos

    @property
    def eos_id(self) -> int | None:
        return self.control.eos

    @property
    def pad_id(self) -> int | None:
        return self.control.pad

    @property
    def stop_ids(self) -> frozenset[int]:
        """Where an answer ends: eos, the end of the turn, and the tool response that the model must not invent."""
        ends = (self.control.eos, self.control.turn_close, self.control.response_open)
        return frozenset(i for i in ends if i is not None)

    def token_to_id(self, token: str) -> int | None:
        return self._backend.token_to_id(token)

    def id_to_token(self, token_id: int) -> str | None:
        return self._backend.id_to_token(token_id)

    def encode_text(self, text: str) -> list[int]:
        """Ids of ordinary text; a control token that the text merely spells becomes ordinary tokens."""
        ids = self._backend.encode(text, add_special_tokens=False).ids
        if self.control_ids.isdisjoint(ids):
            return ids
        # A vocabulary that reaches a control token by merging, or marks one as not special: break the spellings.
        pieces, start = [], 0
        for match in self._spelling.finditer(text):
            pieces.append(text[start : match.start() + 1])
            start = match.start() + 1
        pieces.append(text[start:])
        return [i for piece in pieces for i in self._backend.encode(piece, add_special_tokens=False).ids]

    def encode_rendered(self, text: str, *, guard: str = "") -> list[int]:
        """Ids of text in which spellings of control tokens mean the tokens.

        `guard` is a character that was put into spellings that are only quoted (see `ChatTemplate.encode`);
        it is taken out after the control tokens have been found.
        """
        ids: list[int] = []
        start = 0
        for match in self._spelling.finditer(text):
            ids += self._encode_piece(text[start : match.start()], guard)
            ids.append(self._controls[match.group()])
            start = match.end()
        return ids + self._encode_piece(text[start:], guard)

    def encode_prompt(self, text: str) -> list[int]:
        """Ids of a raw prompt: as `encode_rendered`, with exactly the one BOS that Gemma needs in front."""
        return self.with_bos(self.encode_rendered(text))

    def with_bos(self, ids: list[int]) -> list[int]:
        bos = self.control.bos
        return ids if bos is None or ids[:1] == [bos] else [bos, *ids]

    def token_bytes(self, token_id: int, *, skip_special_tokens: bool = True) -> bytes:
        """The bytes of one token. They need not be whole characters. Control tokens and unknown ids have none."""
        if token_id in self._spelled:
            return b"" if skip_special_tokens else self._spelled[token_id].encode()
        token = self._backend.id_to_token(token_id)
        if token is None:
            return b""
        byte = _BYTE.fullmatch(token)
        return bytes([int(byte.group(1), 16)]) if byte else token.replace("▁", " ").encode()

    def decode(self, ids: Iterable[int], *, skip_special_tokens: bool = True) -> str:
        """The text of `ids`; bytes that are no character become U+FFFD."""
        pieces = (self.token_bytes(i, skip_special_tokens=skip_special_tokens) for i in ids)
        return b"".join(pieces).decode(errors="replace")

    def _encode_piece(self, text: str, guard: str) -> list[int]:
        text = text.replace(guard, "") if guard else text
        return self.encode_text(text) if text else []
