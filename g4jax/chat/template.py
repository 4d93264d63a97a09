"""The chat template of a checkpoint: messages to the text of a prompt, and to its token ids."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import jinja2
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from g4jax.chat.messages import map_strings, normalize, strings
from g4jax.chat.tokenizer import Tokenizer

Variant = Literal["small", "large"]

_TEMPLATES = Path(__file__).parent / "templates"
_INCLUDE = re.compile(r"\{%-? *include '(\w+\.jinja)' *-?%\}\n?")
_PRIVATE_USE = re.compile(r"[\U000f0000-\U000ffffd]")


class ChatTemplate:
    """A Jinja chat template, rendered in a sandbox with what Hugging Face gives to templates.

    `source` is the template's text. Safe to share between threads.

    Errors: ValueError for a template that does not compile, that fails or that raises on the messages it is given.
    """

    def __init__(self, source: str, tokenizer: Tokenizer):
        self.source = source
        self._tokenizer = tokenizer
        try:
            self._template = _environment().from_string(source)
        except jinja2.TemplateSyntaxError as error:
            raise ValueError(f"the chat template does not compile, line {error.lineno}: {error.message}") from error
        control = tokenizer.control
        self._tokens = {
            f"{name}_token": tokenizer.id_to_token(i) or ""
            for name, i in [("bos", control.bos), ("eos", control.eos), ("pad", control.pad), ("unk", control.unk)]
            if i is not None
        }

    @classmethod
    def from_folder(cls, folder: str | Path, tokenizer: Tokenizer) -> "ChatTemplate":
        """chat_template.jinja, else the chat_template of tokenizer_config.json, else the one shipped for this size."""
        folder = Path(folder)
        source = _own_source(folder) or shipped_source(_variant(folder))
        return cls(source, tokenizer)

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None = None,
        *,
        add_generation_prompt: bool = True,
        enable_thinking: bool = False,
        **kwargs: Any,
    ) -> str:
        """The prompt as text. `kwargs` are further variables of the template (chat_template_kwargs of a request)."""
        kwargs |= {"add_generation_prompt": add_generation_prompt, "enable_thinking": enable_thinking}
        return self._render(normalize(messages), tools, kwargs)

    def encode(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None = None,
        *,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        enable_thinking: bool = False,
        **kwargs: Any,
    ) -> list[int]:
        """The prompt as token ids, with one BOS. Only the template itself can write control tokens.

        continue_final_message: the prompt ends right behind the text of the last message, blanks at its end included.

        A guard character that occurs nowhere in the input is set behind every character of a given string with which
        a control token could begin. So no given text, and no two texts that the template joins, spell a control token.
        The guards are taken out again between finding the control tokens and encoding the text between them.
        Channel markers in assistant text stay as they are, because templates look for them to strip old thoughts.
        A second such character marks the end of the message to continue, and the prompt is cut there.
        """
        normal = normalize(messages)
        guard, end = _unused_characters([normal, tools, kwargs])
        if continue_final_message:
            add_generation_prompt = False
            normal[-1:] = [{**message, "content": _with_end(message["content"], end)} for message in normal[-1:]]
        protect = self._protector(guard, keep=())
        keep_channels = self._protector(guard, keep=self._channel_spellings())
        guarded = [_guard_message(message, protect, keep_channels) for message in normal]
        variables = {key: map_strings(value, protect) for key, value in kwargs.items()}
        variables |= {"add_generation_prompt": add_generation_prompt, "enable_thinking": enable_thinking}
        text = self._render(guarded, map_strings(tools, protect), variables)
        if continue_final_message:
            text = _up_to(text, end)
        return self._tokenizer.with_bos(self._tokenizer.encode_rendered(text, guard=guard))

    def _render(self, messages: Any, tools: Any, variables: Mapping[str, Any]) -> str:
        try:
            return self._template.render(**{**variables, **self._tokens, "messages": messages, "tools": tools or None})
        except Exception as error:  # a template is foreign code and may fail in any way
            raise ValueError(f"the chat template refuses these messages: {error}") from error

    def _channel_spellings(self) -> tuple[str, ...]:
        control = self._tokenizer.control
        ids = [i for i in (control.channel_open, control.channel_close) if i is not None]
        return tuple(self._tokenizer.id_to_token(i) or "" for i in ids)

    def _protector(self, guard: str, keep: tuple[str, ...]) -> Callable[[str], str]:
        starts = "".join(sorted(self._tokenizer.control_starts))
        if not starts:
            return lambda text: text
        kept = "|".join(re.escape(spelling) for spelling in keep) or r"(?!)"
        pattern = re.compile(rf"(?!{kept})[{re.escape(starts)}]")
        return lambda text: pattern.sub(lambda match: match.group() + guard, text)


def shipped_source(variant: Variant) -> str:
    """Our own template for the small (E2B, E4B) or the large (12B, 26B-A4B, 31B) models, as one self-contained text."""
    text = (_TEMPLATES / f"gemma4_{variant}.jinja").read_text()
    return _INCLUDE.sub(lambda match: (_TEMPLATES / match.group(1)).read_text(), text)


def _guard_message(message: dict[str, Any], protect: Callable[[str], str], keep_channels: Callable[[str], str]) -> Any:
    guarded = map_strings(message, protect)
    if message["role"] == "assistant":
        guarded["content"] = map_strings(message["content"], keep_channels)
    return guarded


def _unused_characters(value: Any) -> tuple[str, str]:
    used = {char for text in strings(value) for char in _PRIVATE_USE.findall(text)}
    unused = (chr(c) for c in range(0xF0000, 0xFFFFE) if chr(c) not in used)
    first, second = next(unused, None), next(unused, None)
    if first is None or second is None:
        raise ValueError("messages hold every private-use character of plane 15: leave two out")
    return first, second


def _with_end(content: str | list[Any], end: str) -> str | list[Any]:
    if isinstance(content, str):
        return content + end
    *before, last = content or [{"type": "text", "text": ""}]
    if last.get("type") != "text":
        raise ValueError("the message to continue ends with something else than text: leave it out")
    return [*before, {**last, "text": last["text"] + end}]


def _up_to(text: str, end: str) -> str:
    before, *rest = text.split(end)
    if len(rest) != 1:
        raise ValueError("the chat template does not keep the end of the message to continue: leave its markup out")
    return before


def _own_source(folder: Path) -> str | None:
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    template = _read_json(folder / "tokenizer_config.json").get("chat_template")
    if isinstance(template, list):  # several named templates
        template = {entry["name"]: entry["template"] for entry in template}.get("default")
    return template


def _variant(folder: Path) -> Variant:
    """The small models are those with per-layer embeddings."""
    config = _read_json(folder / "config.json")
    text = config.get("text_config") or config
    return "small" if not text or text.get("hidden_size_per_layer_input") else "large"


def _read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return environment


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Jinja's own filter escapes HTML; a prompt must not."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)
