"""Are these the tensors of this model? Asked before a device gives any memory."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from g4jax.config import TextConfig
from g4jax.weights.errors import CheckpointError
from g4jax.weights.mapping import Recipe, unknown_names

_SHOWN = 10

Shape = tuple[int, ...]


def differences(stored: Mapping[str, Shape], recipes: Sequence[Recipe], config: TextConfig) -> list[str]:
    """What is missing, has another shape, or belongs to no layer; names are without the prefix."""
    needed = {name: shape for made in recipes for name, shape in made.shapes.items()}
    problems = [problem for name, shape in needed.items() if (problem := _difference(name, shape, stored.get(name)))]
    unknown = unknown_names(stored.keys() - needed.keys(), config)
    return problems + [f"{name} belongs to no layer of it" for name in sorted(unknown)]


def _difference(name: str, shape: Shape, stored: Shape | None) -> str | None:
    if stored is None:
        return f"{name} {list(shape)} is missing"
    if stored != shape:
        return f"{name} is {list(stored)}, the config asks for {list(shape)}"
    return None


def refuse(folder: Path, problems: Sequence[str]) -> None:
    """Raises CheckpointError, with all the problems there are in one message, if there are any."""
    if not problems:
        return
    shown = "\n  ".join(problems[:_SHOWN])
    rest = f"\n  and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
    raise CheckpointError(
        f"{folder}: the weights are not those of the model that config.json describes "
        "(another size, an incomplete download, or a quantized export).\n"
        f"{len(problems)} differences:\n  {shown}{rest}"
    )
