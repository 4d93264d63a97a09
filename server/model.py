"""What the HTTP process knows of the model without asking the engine."""

import time
from dataclasses import dataclass
from pathlib import Path

from g4jax.config import ConfigError, Gemma4Config
from g4jax.engine.options import InvalidOption
from g4jax.sample.defaults import GenerationDefaults


@dataclass(frozen=True)
class ModelInfo:
    """The served model.

    names: what clients may call it; the first is what it calls itself. root: the checkpoint's folder.
    created: seconds since the epoch. stop_ids: token ids that end an answer. vocab_size: ids a client may send.
    defaults: the sampling where a request is silent.
    """

    names: tuple[str, ...]
    root: str
    created: int
    vocab_size: int
    stop_ids: frozenset[int]
    defaults: GenerationDefaults = GenerationDefaults()

    @classmethod
    def from_folder(cls, folder: str | Path, names: tuple[str, ...], stop_ids: frozenset[int]) -> "ModelInfo":
        """Reads config.json and generation_config.json; `stop_ids` are those that the tokenizer knows of.

        Raises:
          InvalidOption: field "model"; one of the two files cannot be served.
        """
        try:
            vocab_size = Gemma4Config.from_folder(folder).text.vocab_size
            defaults = GenerationDefaults.from_folder(folder)
            defaults.params()  # Raises for a value out of range.
        except (ConfigError, ValueError) as error:
            raise InvalidOption("model", str(error)) from error
        return cls(names, str(folder), int(time.time()), vocab_size, stop_ids | defaults.stop_ids, defaults)
