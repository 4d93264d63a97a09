"""The model without its weights: what every parameter is called, how large it is, and what of it is split."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding
from jaxtyping import DTypeLike

from g4jax.config import Gemma4Config, TextConfig
from g4jax.models.multimodal import Encoders
from g4jax.models.text import TextModel
from g4jax.sharding import check_divisible, named_sharding
from pallas_kernels.core import Implementation

ModuleT = TypeVar("ModuleT", bound=nnx.Module)


@dataclasses.dataclass(frozen=True)
class ParamSpec:
    """One parameter. `shape` counts all devices together; `axes` names, per dimension, what is split over them."""

    path: str
    shape: tuple[int, ...]
    dtype: np.dtype
    axes: tuple[str | None, ...]

    @property
    def nbytes(self) -> int:
        return int(np.prod(self.shape)) * self.dtype.itemsize

    def sharding(self, mesh: Mesh) -> NamedSharding:
        return named_sharding(mesh, self.axes)


@dataclasses.dataclass(frozen=True)
class AbstractModel(Generic[ModuleT]):
    """A `TextModel` or `Encoders` taken apart. `params` stand in the order of the leaves that `merge` takes."""

    graphdef: Any
    treedef: Any
    params: tuple[ParamSpec, ...]

    def merge(self, leaves: Sequence[jax.Array | None]) -> ModuleT:
        """The module with these parameters, None for those that nobody will use. Inside a `shard_map` they are one
        device's parts."""
        return nnx.merge(self.graphdef, jax.tree.unflatten(self.treedef, list(leaves)))

    @property
    def layers(self) -> tuple[int | None, ...]:
        """Of each leaf of a `TextModel` the layer that it belongs to; None for what is no layer's."""
        parts = [param.path.split(".") for param in self.params]
        return tuple(int(path[1]) if path[0] == "layers" else None for path in parts)

    @property
    def nbytes(self) -> int:
        """Bytes of all parameters, each counted once however many devices hold a copy."""
        return sum(param.nbytes for param in self.params)


def abstract_model(
    config: TextConfig, dtype: DTypeLike, tp: int = 1, implementation: Implementation | None = None
) -> AbstractModel[TextModel]:
    """The parts of `TextModel(config, dtype=dtype, tp=tp, implementation=implementation)`; nothing is allocated.

    Raises:
        MeshError: `tp` does not divide a dimension that is split over devices.
    """
    return _abstract_model(config, np.dtype(dtype), tp, implementation)


def abstract_encoders(
    config: Gemma4Config, dtype: DTypeLike, implementation: Implementation | None = None
) -> AbstractModel[Encoders] | None:
    """The parts of `Encoders(config, dtype=dtype, implementation=implementation)`; None for a model without any."""
    if config.vision is None and config.audio is None:
        return None
    return _abstract_encoders(config, np.dtype(dtype), implementation)


@functools.lru_cache(maxsize=8)
def _abstract_model(
    config: TextConfig, dtype: np.dtype, tp: int, implementation: Implementation | None
) -> AbstractModel[TextModel]:
    _check_split(config, tp)
    return _taken_apart(lambda: TextModel(config, dtype=dtype, tp=tp, implementation=implementation))


@functools.lru_cache(maxsize=8)
def _abstract_encoders(
    config: Gemma4Config, dtype: np.dtype, implementation: Implementation | None
) -> AbstractModel[Encoders]:
    return _taken_apart(lambda: Encoders(config, dtype=dtype, implementation=implementation))


def _taken_apart(build: Callable[[], ModuleT]) -> AbstractModel[ModuleT]:
    graphdef, state = nnx.split(nnx.eval_shape(build))
    treedef = jax.tree.structure(state)
    flat = nnx.to_flat_state(state)
    params = tuple(_param_spec(path, variable) for path, variable in zip(flat.paths, flat.leaves, strict=True))
    if [param.shape for param in params] != [leaf.shape for leaf in jax.tree.leaves(state)]:
        raise AssertionError("nnx.to_flat_state and jax.tree.flatten order the parameters differently")
    return AbstractModel(graphdef, treedef, params)


def _param_spec(path: tuple[Any, ...], variable: Any) -> ParamSpec:
    value = variable.get_value()
    return ParamSpec(".".join(map(str, path)), value.shape, np.dtype(value.dtype), variable.get_metadata()["axes"])


def _check_split(config: TextConfig, tp: int) -> None:
    """The heads are checked where they are split, in `Attention`."""
    check_divisible("vocab_size", config.vocab_size, tp)
    check_divisible("num_experts", config.num_experts, tp)
    for width in {spec.intermediate_size for spec in config.layers}:
        check_divisible("intermediate_size", width, tp)
