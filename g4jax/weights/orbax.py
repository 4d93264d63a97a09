"""Checkpoints in orbax form, for those who train: the tensors of the Hugging Face form, by the same names.

That form does not depend on the number of devices. Here as there q, k and v, and gate and up are matrices of their own;
each device restores its own rows of each and puts them together (of key heads fewer than devices, it restores all).
"""

import functools
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, DTypeLike, Shaped

from g4jax.config import Gemma4Config, TextConfig
from g4jax.sharding import TP
from g4jax.weights.abstract import ParamSpec, abstract_encoders, abstract_model
from g4jax.weights.check import differences, refuse
from g4jax.weights.errors import CheckpointError
from g4jax.weights.mapping import Recipe, Units, encoder_recipe, recipe

FOLDER = "orbax"
"""The orbax checkpoint stands in this folder beside config.json and the tokenizer's files."""

ENCODERS = "orbax_encoders"
"""The encoders' parameters stand in a checkpoint of their own beside it."""

CHUNK_BYTES = 64 * 2**20
"""A device reads whole chunks, so this bounds what it reads in vain."""


def save(
    folder: Path,
    leaves: Sequence[jax.Array],
    config: Gemma4Config,
    mesh: Mesh,
    *,
    beside: Path,
    encoders: Sequence[jax.Array] = (),
) -> None:
    """Writes `leaves`, spread over `mesh`, and those of the encoders to `folder`, with copies of the *.json and *.jinja
    files of `beside`.

    Takes as much memory again as the fused matrices, on the devices, and as all weights, on the host.

    Raises:
        CheckpointError: orbax is not installed, or `folder` holds a checkpoint already.
    """
    ocp = _import_orbax()
    target = folder.absolute() / FOLDER
    if target.exists():
        raise CheckpointError(f"{target} exists already: give another folder, or remove it")
    _, recipes = _recipes(config.text, leaves[0].dtype, mesh)
    tensors: dict[str, jax.Array] = {}
    for made, leaf in zip(recipes, leaves, strict=True):
        parts = _split(leaf, made.units, mesh.shape[TP]) if made.units else (leaf,)
        tensors |= zip(made.shapes, parts, strict=True)
    folder.mkdir(parents=True, exist_ok=True)
    for file in sorted([*beside.glob("*.json"), *beside.glob("*.jinja")]):
        if not file.name.endswith(".safetensors.index.json"):
            shutil.copy(file, folder)
    _write(ocp, target, tensors)
    if encoders:
        parts = abstract_encoders(config, leaves[0].dtype)
        assert parts is not None
        paths = (param.path for param in parts.params)
        _write(ocp, folder.absolute() / ENCODERS, dict(zip(paths, encoders, strict=True)))


def _write(ocp: ModuleType, target: Path, tensors: dict[str, jax.Array]) -> None:
    save_args = {name: ocp.SaveArgs(chunk_byte_size=CHUNK_BYTES) for name in tensors}
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(target, tensors, save_args=save_args)


def load(folder: Path, config: TextConfig, mesh: Mesh, dtype: DTypeLike) -> tuple[jax.Array, ...]:
    """The leaves of `abstract_model(config, dtype, tp)` from what `save` wrote, on a mesh of any size.

    Raises:
        CheckpointError: orbax is not installed, or the tensors are not those of `config`.
    """
    ocp = _import_orbax()
    params, recipes = _recipes(config, dtype, mesh)
    target: dict[str, Any] = {}
    for param, made in zip(params, recipes, strict=True):
        target |= _abstract(param, made, mesh)
    path = folder.absolute() / FOLDER
    with ocp.StandardCheckpointer() as checkpointer:
        refuse(folder, differences(_stored_shapes(checkpointer, path), recipes, config))
        tensors = checkpointer.restore(path, target)
    return tuple(_take(tensors, param, made, mesh) for param, made in zip(params, recipes, strict=True))


def load_encoders(folder: Path, config: Gemma4Config, mesh: Mesh, dtype: DTypeLike) -> tuple[jax.Array, ...]:
    """As `load`, of `abstract_encoders(config, dtype)`; () for a model without any."""
    encoders = abstract_encoders(config, dtype)
    if encoders is None:
        return ()
    ocp, path = _import_orbax(), folder.absolute() / ENCODERS
    target = {
        param.path: jax.ShapeDtypeStruct(param.shape, param.dtype, sharding=param.sharding(mesh))
        for param in encoders.params
    }
    with ocp.StandardCheckpointer() as checkpointer:
        recipes = [encoder_recipe(param) for param in encoders.params]
        refuse(folder, differences(_stored_shapes(checkpointer, path), recipes, config.text))
        tensors = checkpointer.restore(path, target)
    return tuple(tensors[param.path] for param in encoders.params)


def _stored_shapes(checkpointer: Any, path: Path) -> dict[str, tuple[int, ...]]:
    try:
        stored = checkpointer.metadata(path).item_metadata
        return {name: tuple(stored[name].shape) for name in stored}
    except (ValueError, TypeError, OSError) as error:
        raise CheckpointError(f"{path} is damaged or not an orbax checkpoint of weights: {error}") from error


def _recipes(config: TextConfig, dtype: DTypeLike, mesh: Mesh) -> tuple[tuple[ParamSpec, ...], list[Recipe]]:
    params = abstract_model(config, dtype, mesh.shape[TP]).params
    return params, [recipe(param, config, mesh.shape[TP]) for param in params]


def _abstract(param: ParamSpec, made: Recipe, mesh: Mesh) -> dict[str, jax.ShapeDtypeStruct]:
    """What to restore for a parameter; rows that do not split over the devices come whole to each."""
    whole = NamedSharding(mesh, PartitionSpec())
    split = param.sharding(mesh)
    counts = [count for count, _ in made.units] or [mesh.shape[TP]]
    shardings = (split if count % mesh.shape[TP] == 0 else whole for count in counts)
    return {
        name: jax.ShapeDtypeStruct(shape, param.dtype, sharding=sharding)
        for (name, shape), sharding in zip(made.shapes.items(), shardings, strict=True)
    }


def _take(tensors: dict[str, jax.Array], param: ParamSpec, made: Recipe, mesh: Mesh) -> jax.Array:
    """Removes a parameter's tensors, so that no more than one parameter is in memory twice."""
    parts = tuple(tensors.pop(name) for name in made.shapes)
    return _fuse(made.units, mesh.shape[TP], param.sharding(mesh))(*parts) if made.units else parts[0]


@functools.cache
def _fuse(units: Units, tp: int, sharding: NamedSharding):
    """q, k and v, each [units * size, D], to [tp * (rows of a device), D]."""

    def fuse(*parts: Shaped[Array, "..."]) -> Shaped[Array, "..."]:
        blocks = [_per_device(part, count, tp) for part, (count, _) in zip(parts, units, strict=True)]
        joined = jnp.concatenate(blocks, axis=1)
        return joined.reshape(-1, *joined.shape[2:])

    return jax.jit(fuse, out_shardings=sharding)


def _per_device(part: Shaped[Array, "M D"], count: int, tp: int) -> Shaped[Array, "tp m D"]:
    if count < tp:
        part = jnp.repeat(part.reshape(count, -1, part.shape[-1]), tp // count, axis=0)
    return part.reshape(tp, -1, part.shape[-1])


@functools.partial(jax.jit, static_argnames=("units", "tp"))
def _split(leaf: Shaped[Array, "R D"], units: Units, tp: int) -> tuple[Shaped[Array, "..."], ...]:
    """The inverse of `_fuse`."""
    blocks = leaf.reshape(tp, -1, leaf.shape[-1])
    parts, first = [], 0
    for count, size in units:
        rows = max(count // tp, 1) * size
        copies = max(tp // count, 1)
        parts.append(blocks[::copies, first : first + rows].reshape(count * size, -1))
        first += rows
    return tuple(parts)


def _import_orbax() -> ModuleType:
    try:
        import orbax.checkpoint
    except ImportError:
        raise CheckpointError("orbax checkpoints need orbax-checkpoint: pip install 'g4jax[orbax]'") from None
    return orbax.checkpoint
