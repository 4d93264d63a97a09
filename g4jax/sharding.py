"""From "tp=2" to a mesh, and from the axes that a parameter names to the axes of that mesh.

The whole step runs inside one `shard_map` over the axis "tp": modules see local shapes and sum over it twice a layer.
"""

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

TP = "tp"

MESH_AXIS: dict[str | None, str | None] = {"heads": TP, "ffn": TP, "experts": TP, "vocab": TP, None: None}
"""Logical axis of a parameter -> mesh axis. Modules name only the former."""


class MeshError(ValueError):
    """A mesh that this machine or this model cannot have."""


def parse_mesh(text: str) -> int:
    """Reads "tp=2" (or "2"): the number of devices that share each layer.

    Raises:
        MeshError: another axis, or not a positive number.
    """
    name, _, size = text.rpartition("=")
    if name not in ("", TP) or not size.isdigit() or int(size) < 1:
        raise MeshError(f"--mesh {text!r}: write tp=N with N a positive number, for example tp=2")
    return int(size)


def make_mesh(tp: int) -> Mesh:
    """A mesh of the first `tp` devices.

    Raises:
        MeshError: fewer devices than that.
    """
    devices = jax.devices()
    if tp > len(devices):
        raise MeshError(f"--mesh tp={tp}: this machine has {len(devices)} {devices[0].platform} device(s)")
    return Mesh(np.array(devices[:tp]), (TP,))


def partition_spec(axes: tuple[str | None, ...]) -> PartitionSpec:
    """The placement of a parameter whose dimensions carry these logical axes."""
    return PartitionSpec(*(MESH_AXIS[axis] for axis in axes))


def named_sharding(mesh: Mesh, axes: tuple[str | None, ...]) -> NamedSharding:
    return NamedSharding(mesh, partition_spec(axes))


def check_divisible(what: str, size: int, tp: int) -> None:
    """Raises MeshError where `size` of something does not split over `tp` devices."""
    if size % tp:
        raise MeshError(f"--mesh tp={tp}: {what} is {size}, which tp does not divide")


def local_kv_heads(num_kv_heads: int, tp: int) -> int:
    """KV heads per device: a model with fewer of them than devices keeps copies, one head a device."""
    if num_kv_heads >= tp:
        check_divisible("num_key_value_heads", num_kv_heads, tp)
        return num_kv_heads // tp
    check_divisible("tp per num_key_value_heads", tp, num_kv_heads)
    return 1
