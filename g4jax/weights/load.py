"""The weights of a model, wherever they come from."""

from pathlib import Path
from typing import Literal

import jax
from jax.sharding import Mesh
from jaxtyping import DTypeLike

from g4jax.config import Gemma4Config, TextConfig
from g4jax.weights import orbax, safetensors
from g4jax.weights.dummy import dummy, dummy_encoders
from g4jax.weights.safetensors import Progress

LoadFormat = Literal["auto", "dummy"]


def load_leaves(
    folder: Path,
    config: TextConfig,
    mesh: Mesh,
    dtype: DTypeLike,
    load_format: LoadFormat = "auto",
    *,
    progress: Progress | None = None,
) -> tuple[jax.Array, ...]:
    """The leaves of `abstract_model(config, dtype, tp)`, spread over `mesh`: what the folder holds, or random weights.

    `progress(done, total)` counts bytes; only reading safetensors reports it.

    Raises:
        CheckpointError: the folder has no weights, or others than `config` describes.
    """
    if load_format == "dummy":
        return dummy(config, mesh, dtype)
    if (folder / orbax.FOLDER).is_dir():
        return orbax.load(folder, config, mesh, dtype)
    return safetensors.load(folder, config, mesh, dtype, progress=progress)


def load_encoder_leaves(
    folder: Path, config: Gemma4Config, mesh: Mesh, dtype: DTypeLike, load_format: LoadFormat = "auto"
) -> tuple[jax.Array, ...]:
    """The leaves of `abstract_encoders(config, dtype)`, a copy on every device; () for a model without encoders.

    Raises:
        CheckpointError: as `load_leaves`.
    """
    if load_format == "dummy":
        return dummy_encoders(config, mesh, dtype)
    if (folder / orbax.FOLDER).is_dir():
        return orbax.load_encoders(folder, config, mesh, dtype)
    return safetensors.load_encoders(folder, config, mesh, dtype)
