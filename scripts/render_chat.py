"""Renders conversations as prompts: JSON lines in, JSON lines out.

    echo '{"template": "small", "messages": [{"role": "user", "content": "Hi"}]}' | python scripts/render_chat.py
    python scripts/render_chat.py tests/data/chat_template_cases.jsonl

A line holds the `messages`; `Chat` lists what else it may say. The answer is the prompt as `rendered`, or an `error`.
"""

import argparse
import fileinput
import functools
import json
from pathlib import Path
from typing import Any

import msgspec

from g4jax.chat.template import ChatTemplate, shipped_source
from g4jax.chat.tokenizer import Tokenizer
from g4jax.engine.checkpoint import find_checkpoint


class Chat(msgspec.Struct):
    """A conversation. template: "small" or "large" for one of ours, else a template's file or a checkpoint's folder.

    kwargs: variables of the template, such as enable_thinking, and add_generation_prompt.
    """

    messages: list[dict[str, Any]]
    template: str = "small"
    tools: list[dict[str, Any]] | None = None
    kwargs: dict[str, Any] = {}


@functools.cache
def template(name: str) -> ChatTemplate:
    """Raises ValueError for a template that does not compile, OSError for one that is not there."""
    if name == "small" or name == "large":
        return ChatTemplate(shipped_source(name), _nano_tokenizer())
    path = Path(name)
    if path.is_dir():
        return ChatTemplate.from_folder(path, Tokenizer(path))
    return ChatTemplate(path.read_text(encoding="utf-8"), _nano_tokenizer())


@functools.cache
def _nano_tokenizer() -> Tokenizer:
    """Its control tokens are spelled as those of every Gemma 4."""
    return Tokenizer(find_checkpoint(None, with_weights=False))


def render(chat: Chat) -> str:
    """Raises ValueError for what the template refuses, and as `template`."""
    if taken := {"messages", "tools"} & chat.kwargs.keys():
        raise ValueError(f"kwargs may not hold {min(taken)}, which has a place of its own")
    return template(chat.template).render(chat.messages, chat.tools, **chat.kwargs)


def render_line(line: str) -> dict[str, str]:
    try:
        return {"rendered": render(msgspec.json.decode(line, type=Chat))}
    except (ValueError, OSError, msgspec.DecodeError) as error:
        return {"error": str(error)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", help="JSON lines (default: standard input)")
    with fileinput.input(parser.parse_args().files, encoding="utf-8") as lines:
        for line in lines:
            if line.strip():
                print(json.dumps(render_line(line)), flush=True)


if __name__ == "__main__":
    try:
        main()
    except OSError as error:
        raise SystemExit(f"render_chat: {error}") from None
