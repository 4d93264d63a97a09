"""What a checkpoint says of generating: its generation_config.json. No jax."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from g4jax.sample.params import SamplingParams


@dataclass(frozen=True)
class GenerationDefaults:
    """What holds where a request is silent, and the ids that end an answer."""

    stop_ids: frozenset[int] = frozenset()
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0

    @classmethod
    def from_folder(cls, folder: str | Path) -> "GenerationDefaults":
        """Reads generation_config.json, and config.json for its end ids; absent files say nothing.

        Raises:
            ValueError: a file is not a JSON object.
        """
        generation = _read(Path(folder) / "generation_config.json")
        given = {name: generation[name] for name in _NUMBERS if generation.get(name) is not None}
        if generation.get("do_sample") is False:
            given["temperature"] = 0.0
        return cls(_ids(generation) | _ids(_read(Path(folder) / "config.json")), **given)

    def params(self) -> SamplingParams:
        return SamplingParams(**{name: getattr(self, name) for name in _NUMBERS})


_NUMBERS = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")


def _ids(config: dict[str, Any]) -> frozenset[int]:
    ids = config.get("eos_token_id")
    return frozenset(ids if isinstance(ids, list) else [] if ids is None else [ids])


def _read(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} cannot be read: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} is no JSON object")
    return content
