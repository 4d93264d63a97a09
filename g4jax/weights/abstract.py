"""The model without its weights: what every parameter is called, how large it is, and what of it is split."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding
from jaxtyping import DTypeLike

from g4jax.config import TextConfig
from g4jax.models.text import TextModel
from g4jax.sharding import check_divisible, named_sharding
from pallas_kernels.core import Implementation


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
class AbstractModel:
    """A `TextModel` taken apart. `params` stand in the order of the leaves that `merge` takes."""

    graphdef: Any
    treedef: Any
    params: tuple[ParamSpec, ...]

    def merge(self, leaves: Sequence[jax.Array]) -> TextModel:
        """The model with these parameters. Inside a `shard_map` they are one device's parts."""
        return merge(self.graphdef, self.treedef, leaves)

    @property
    def nbytes(self) -> int:
        """Bytes of all parameters, each counted once however many devices hold a copy."""
        return sum(param.nbytes for param in self.params)


def merge(graphdef: Any, treedef: Any, leaves: Sequence[jax.Array]) -> TextModel:
    return nnx.merge(graphdef, jax.tree.unflatten(treedef, list(leaves)))


def abstract_model(
    config: TextConfig, dtype: DTypeLike, tp: int = 1, implementation: Implementation | None = None
) -> AbstractModel:
    """The parts of `TextModel(config, dtype=dtype, tp=tp, implementation=implementation)`; nothing is allocated.

    Raises:
        MeshError: `tp` does not divide a dimension that is split over devices.
    """
    return _abstract_model(config, np.dtype(dtype), tp, implementation)


@functools.lru_cache(maxsize=8)
def _abstract_model(
    config: TextConfig, dtype: np.dtype, tp: int, implementation: Implementation | None
) -> AbstractModel:
    _check_split(config, tp)
    model = nnx.eval_shape(lambda: TextModel(config, dtype=dtype, tp=tp, implementation=implementation))
    graphdef, state = nnx.split(model)
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
