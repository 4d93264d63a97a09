"""Gemma 4 in JAX. The public names are imported when they are first used, so that `g4jax.chat` needs no jax."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from g4jax.config import Gemma4Config
    from g4jax.llm import LLM
    from g4jax.sample.params import SamplingParams

__version__ = "0.1.0"
__all__ = ["LLM", "Gemma4Config", "SamplingParams"]

_HOMES = {"LLM": "g4jax.llm", "SamplingParams": "g4jax.sample.params", "Gemma4Config": "g4jax.config"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'g4jax' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
