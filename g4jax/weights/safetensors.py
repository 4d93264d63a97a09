"""From safetensors files to devices: every device reads its own part of every tensor, and nothing else."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import DTypeLike

from g4jax.config import Gemma4Config, TextConfig
from g4jax.sharding import TP
from g4jax.weights.abstract import ParamSpec, abstract_encoders, abstract_model
from g4jax.weights.check import differences, refuse
from g4jax.weights.errors import CheckpointError
from g4jax.weights.files import StoredTensor, bits_of, open_folder
from g4jax.weights.hub import resolve
from g4jax.weights.mapping import PREFIXES, Recipe, Segment, encoder_recipe, find_encoder_prefix, find_prefix, recipe

Progress = Callable[[int, int], None]
"""Called with the bytes of parameters that are done and the bytes of all."""

THREADS = 4
"""Parameters on their way at once. Host memory holds no more than these, and only where they are fused or cast."""


def load(
    model: str | Path, config: TextConfig, mesh: Mesh, dtype: DTypeLike, *, progress: Progress | None = None
) -> tuple[jax.Array, ...]:
    """The leaves of `abstract_model(config, dtype, tp)` from a folder or a hub id, spread over `mesh`.

    Everything is checked before the first byte goes to a device.

    Raises:
        CheckpointError: a file is missing or damaged, or the tensors are not those of `config`.
    """
    params = abstract_model(config, dtype, mesh.shape[TP]).params
    recipes = [recipe(param, config, mesh.shape[TP]) for param in params]
    folder = resolve(model)
    tensors = _below_prefix(folder, open_folder(folder))
    _check(folder, tensors, recipes, config)
    return _put_all(params, recipes, tensors, mesh, progress)


def load_encoders(model: str | Path, config: Gemma4Config, mesh: Mesh, dtype: DTypeLike) -> tuple[jax.Array, ...]:
    """The leaves of `abstract_encoders(config, dtype)`, () for a model without any; otherwise as `load`."""
    encoders = abstract_encoders(config, dtype)
    if encoders is None:
        return ()
    folder = resolve(model)
    stored = open_folder(folder)
    prefix = find_encoder_prefix(stored)
    tensors = {name.removeprefix(prefix): tensor for name, tensor in stored.items() if name.startswith(prefix)}
    recipes = [encoder_recipe(param) for param in encoders.params]
    _check(folder, tensors, recipes, config.text)
    return _put_all(encoders.params, recipes, tensors, mesh, None)


def _put_all(
    params: Sequence[ParamSpec],
    recipes: Sequence[Recipe],
    tensors: dict[str, StoredTensor],
    mesh: Mesh,
    progress: Progress | None,
) -> tuple[jax.Array, ...]:
    total, done, leaves = sum(param.nbytes for param in params), 0, []
    with ThreadPoolExecutor(THREADS) as pool:
        arrays = pool.map(lambda param, made: _put(param, made, tensors, mesh), params, recipes)
        for param, array in zip(params, arrays, strict=True):
            leaves.append(array)
            done += param.nbytes
            if progress is not None:
                progress(done, total)
    return tuple(leaves)


def _put(param: ParamSpec, made: Recipe, tensors: dict[str, StoredTensor], mesh: Mesh) -> jax.Array:
    def part(index: tuple[slice, ...] | None) -> np.ndarray:
        assert index is not None
        if not index:  # a single number
            return np.array(_read_number(tensors[made.segments[0].name], param.dtype))
        rows = [_read(tensors[piece.name], piece, index[1:], param.dtype) for piece in made.pieces(index[0])]
        # A CPU "device" would keep a view of the file as its array, to change when the file does.
        joined = np.ascontiguousarray(rows[0]) if len(rows) == 1 and not on_cpu else np.concatenate(rows)
        return joined.view(param.dtype)

    on_cpu = _is_cpu(mesh)
    array = jax.make_array_from_callback(param.shape, param.sharding(mesh), part)
    return array.block_until_ready()


def _is_cpu(mesh: Mesh) -> bool:
    return mesh.devices.flat[0].platform == "cpu"


def _read_number(tensor: StoredTensor, dtype: np.dtype) -> np.ndarray:
    return tensor.bits().view(tensor.dtype).astype(dtype)


def _read(tensor: StoredTensor, rows: Segment, columns: tuple[slice, ...], dtype: np.dtype) -> np.ndarray:
    """These rows and columns cast to `dtype`, as bits: a view of the file if there is nothing to cast."""
    bits = tensor.bits()[(slice(rows.start, rows.stop), *columns)]
    return bits.view(tensor.dtype).astype(dtype, copy=False).view(bits_of(dtype))


def _below_prefix(folder: Path, tensors: dict[str, StoredTensor]) -> dict[str, StoredTensor]:
    prefix = find_prefix(tensors)
    if prefix is None:
        tried = ", ".join(f"{prefix}embed_tokens.weight" for prefix in PREFIXES)
        some = ", ".join(sorted(tensors)[:3])
        raise CheckpointError(
            f"{folder} holds no Gemma 4 text decoder: none of {tried} among its tensors ({some}, ...)"
        )
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _check(folder: Path, tensors: dict[str, StoredTensor], recipes: list[Recipe], config: TextConfig) -> None:
    needed = {name for made in recipes for name in made.shapes}
    problems = [
        f"{name} is stored as {tensor.stored}: only BF16, F16 and F32 weights can be loaded"
        for name, tensor in tensors.items()
        if name in needed and not tensor.is_float
    ]
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    refuse(folder, problems + differences(shapes, recipes, config))
