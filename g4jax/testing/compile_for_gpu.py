"""Compile a JAX function for an H200 on a machine that has no GPU, and read what would run there.

XLA:GPU, Pallas Triton and Mosaic GPU all compile without a device; only autotuning, cuDNN and timings are missing. So
"how many kernels does one decoded token launch?", "is the cache copied?" and "does this tile spill registers?" become
tests.
The package `jax-cuda13-plugin` (part of the test extra) is the compiler; it needs no CUDA libraries.

    step = compile_for_gpu(fn, arg((1, 1536), "bfloat16"), arg((2560, 1536), "bfloat16"), donate_argnums=(0,))
    step.launches                       # what one call launches, loop bodies counted once
    step.copies_of((1024, 16, 256))     # HLO instructions that copy an array of that shape (a KV cache, say)
    step.temporaries_of((2560, 1536))   # fusions that write an array of that shape (a weight-sized product)

`compiler_options={"xla_gpu_fail_ptx_compilation_on_register_spilling": True}` makes a spilling Pallas tile an error.
`kernels=False` only names the Pallas kernels: faster, with the same launches, copies and temporaries.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import os
import pathlib
import re
import tempfile

import jax
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from g4jax.testing import named_kernels

# A GpuTargetConfigProto. Bandwidth in bytes/s; the other fields steer tiling and occupancy decisions.
H200 = """
gpu_device_info {
  threads_per_block_limit: 1024  threads_per_warp: 32  shared_memory_per_block: 49152
  shared_memory_per_core: 233472  threads_per_core_limit: 2048  core_count: 132  fpus_per_core: 128
  block_dim_limit_x: 2147483647  block_dim_limit_y: 65535  block_dim_limit_z: 65535
  memory_bandwidth: 4800000000000  l2_cache_size: 52428800  clock_rate_ghz: 1.98  device_memory_size: 151397597184
  shared_memory_per_block_optin: 232448
  cuda_compute_capability { major: 9 feature_extension: ACCELERATED_FEATURES }
  registers_per_core_limit: 65536  registers_per_block_limit: 65536
  thread_dim_limit_x: 1024  thread_dim_limit_y: 1024  thread_dim_limit_z: 64
  device_vendor: "NVIDIA Corporation"  platform_version: "Compute Capability 9.0a"  model_str: "sm_9.0a"
  device_address_bits: 64  name: "NVIDIA H200 141GB HBM3e"
  driver_version: "13.0.0"  runtime_version: "13.0.0"  compile_time_toolkit_version: "13.0.0"  dnn_version: "9.10.0"
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 10 patch: 0 }
device_description_str: "NVIDIA H200 141GB HBM3e"
"""


OPTIMIZED = {"xla_backend_optimization_level": 3, "xla_llvm_disable_expensive_passes": False}
"""XLA's defaults, also where this process compiles everything else without (`jax_disable_most_optimizations`)."""

CONTAINERS = ("kSequential", "kCommandBuffer", "kWhile", "kConditional", "kDynamicSliceFusion")


@dataclasses.dataclass(frozen=True)
class Launch:
    kind: str  # thunk kind, e.g. kKernel (XLA fusion), kCustomKernel (Pallas), kCublasLtMatmul, or "named"
    name: str  # the HLO instruction it comes from, where the dump tells
    text: str  # the dump's whole line


@dataclasses.dataclass(frozen=True)
class GpuStep:
    compiled: jax.stages.Compiled
    hlo: str
    launches: list[Launch]
    graphed: frozenset[str]  # thunk kinds inside of graphs

    def copies_of(self, shape: tuple[int, ...]) -> list[str]:
        dims = ",".join(map(str, shape))
        return [
            line.strip() for line in self.hlo.splitlines() if re.search(rf"= \w+\[{dims}\]\S* copy(-start)?\(", line)
        ]

    def temporaries_of(self, shape: tuple[int, ...]) -> list[str]:
        dims = ",".join(map(str, shape))
        return [line.strip() for line in self.hlo.splitlines() if re.search(rf"= \w+\[{dims}\]\S* fusion\(", line)]


@functools.cache
def gpu_mesh(target: str = H200, devices: int = 1) -> Mesh:
    """A mesh, with the axis "tp", of GPUs that are not there."""
    from jax._src import xla_bridge

    # The plugin looks for CUDA's libraries, which a compiler does not need.
    os.environ.setdefault("JAX_SKIP_CUDA_CONSTRAINTS_CHECK", "1")
    logging.getLogger("jax._src.xla_bridge").setLevel(logging.CRITICAL)
    with contextlib.suppress(Exception):  # a second discovery only complains
        xla_bridge.discover_pjrt_plugins()
    topology = topologies.get_topology_desc(platform="cuda", target_config=target, topology=f"1x1x{devices}")
    return topologies.make_mesh(topology, (devices,), ("tp",))


REPLICATED = PartitionSpec()


def arg(shape, dtype, spec=REPLICATED, *, target: str = H200, devices: int = 1) -> jax.ShapeDtypeStruct:
    """An abstract argument placed on the target; `spec` shards it over the mesh axis "tp"."""
    return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(gpu_mesh(target, devices), spec))


def compile_for_gpu(
    fn, *args, target: str = H200, devices: int = 1, compiler_options=None, kernels: bool = True, **jit_kwargs
) -> GpuStep:
    """Compiles `fn(*args)` for the target. `args` are pytrees of `arg(...)`; `jit_kwargs` go to `jax.jit`
    unless `fn` is jitted already. Without `kernels` those of Pallas are named and not built."""
    mesh = gpu_mesh(target, devices)
    named = {} if kernels else named_kernels.COMPILER_OPTIONS
    with tempfile.TemporaryDirectory() as dump:
        options = {"xla_dump_to": dump, "xla_dump_hlo_as_text": True, **OPTIMIZED, **named, **(compiler_options or {})}
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            jitted = fn if hasattr(fn, "lower") else jax.jit(fn, **jit_kwargs)
            lowering = None if kernels else named_kernels.LOWERING
            compiled = jitted.trace(*args).lower(_private_parameters=lowering).compile(compiler_options=options)
        launches = [launch for file in sorted(pathlib.Path(dump).glob("*thunk_sequence.txt")) for launch in _read(file)]
        graphed = [_graphed(file) for file in pathlib.Path(dump).glob("*thunk_sequence_after_thunk_passes.txt")]
    hlo = compiled.as_text() or ""
    launches += [Launch("named", name, line) for name, line in named_kernels.kernel_calls(hlo)]
    return GpuStep(compiled, hlo, launches, frozenset().union(*graphed))


def _read(thunk_sequence: pathlib.Path) -> list[Launch]:
    lines = thunk_sequence.read_text().splitlines()
    thunks = [(re.match(r"\s*\d+: (k\w+)\s+(?:\[[^\]]*\]\s*)?(\S*)", line), line.strip()) for line in lines]
    return [Launch(match[1], match[2], line) for match, line in thunks if match and match[1] not in CONTAINERS]


def _graphed(thunk_sequence: pathlib.Path) -> set[str]:
    """Kinds of the thunks that stand below a graph."""
    kinds, graph_indent = set(), None
    for line in thunk_sequence.read_text().splitlines():
        indent = len(line) - len(line.lstrip())
        if graph_indent is not None and indent <= graph_indent:
            graph_indent = None
        if match := re.match(r"\s*\d+: (k\w+)", line):
            if graph_indent is not None:
                kinds.add(match[1])
            elif match[1] == "kCommandBuffer":
                graph_indent = indent
    return kinds
