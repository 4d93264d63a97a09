"""How the served model reads and writes a conversation."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from g4jax.chat.output import OutputParser
from g4jax.chat.soft_tokens import expand
from g4jax.chat.template import ChatTemplate
from g4jax.chat.tokenizer import Tokenizer
from g4jax.engine.options import InvalidOption
from g4jax.media.inputs import Medium, PlacedInput
from server.chat_output import ChatOutput, Wishes
from server.errors import invalid

_FIELD = re.compile(r"(messages\[\S+) (.*)", re.DOTALL)


@dataclass(frozen=True)
class ChatFormat:
    """Tokenizer and template of a checkpoint, and what is parsed out of its answers.

    parse_reasoning: thoughts get fields of their own; off, they are content. parse_tools: off, tools are refused.
    """

    tokenizer: Tokenizer
    template: ChatTemplate
    parse_reasoning: bool = True
    parse_tools: bool = True

    @classmethod
    def from_folder(cls, folder: str | Path, *, parse_reasoning: bool = True, parse_tools: bool = True) -> "ChatFormat":
        """Reads tokenizer.json and the chat template.

        Raises:
          InvalidOption: a file cannot be read, or the tokenizer lacks the tokens that the parsers look for.
        """
        try:
            tokenizer = Tokenizer(folder)
            template = ChatTemplate.from_folder(folder, tokenizer)
        except Exception as error:  # The tokenizers package raises bare Exception for a broken file.
            raise InvalidOption("model", str(error)) from error
        _check_tokens(tokenizer, "reasoning_parser", parse_reasoning, ("channel_open", "channel_close"))
        _check_tokens(tokenizer, "tool_call_parser", parse_tools, ("call_open", "call_close"))
        return cls(tokenizer, template, parse_reasoning, parse_tools)

    def encode_chat(self, messages: Sequence[dict], tools: Sequence[dict], kwargs: dict[str, Any]) -> list[int]:
        """The prompt of a conversation; 400 for one that the template refuses."""
        try:
            return self.template.encode(messages, tools, **kwargs)
        except ValueError as error:
            field = _FIELD.match(str(error))
            raise (invalid(field[1], field[2]) if field else invalid("messages", str(error))) from None

    def place(self, ids: Sequence[int], media: Sequence[Medium]) -> tuple[list[int], tuple[PlacedInput, ...]]:
        """The prompt with its placeholders opened for the media; 400 where the template has not written them all."""
        try:
            return expand(ids, media, self.tokenizer)
        except ValueError as error:
            raise invalid("messages", str(error)) from None

    def output(self, prompt_ids: Sequence[int], tools: Sequence[dict], wishes: Wishes) -> ChatOutput:
        """What reads one answer to the prompt."""
        parser = OutputParser(
            self.tokenizer,
            prompt_ids=prompt_ids,
            tools=tools,
            parse_reasoning=self.parse_reasoning,
            parse_tools=self.parse_tools,
            parallel_tool_calls=not wishes.one_call,
        )
        return ChatOutput(self.tokenizer, parser, prompt_ids, wishes)

    def encode_prompts(self, prompts: Sequence[str | list[int]]) -> list[list[int]]:
        """Raw prompts, each with one BOS; token ids are taken as they are."""
        return [self.tokenizer.encode_prompt(prompt) if isinstance(prompt, str) else prompt for prompt in prompts]


def _check_tokens(tokenizer: Tokenizer, option: str, wanted: bool, names: tuple[str, ...]) -> None:
    if wanted and any(getattr(tokenizer.control, name) is None for name in names):
        raise InvalidOption(option, "the checkpoint's tokenizer has no tokens for it; choose none")
