"""From options to a running engine: configuration, weights, cache, compiled programs."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from g4jax.cache.paged import Pages
from g4jax.cache.pages import KV_AXES, allocate
from g4jax.config import Gemma4Config
from g4jax.engine.capacity import Capacity, Device, plan_capacity
from g4jax.engine.compiling import Progress
from g4jax.engine.encoding import encoding_of
from g4jax.engine.engine import Engine
from g4jax.engine.options import EngineOptions
from g4jax.engine.program_store import ProgramStore
from g4jax.engine.runner import Runner
from g4jax.engine.scheduler import Scheduler
from g4jax.engine.steps import Leaves, Step
from g4jax.sharding import make_mesh, named_sharding, parse_mesh
from g4jax.weights.abstract import AbstractModel, abstract_encoders, abstract_model
from g4jax.weights.hub import resolve
from g4jax.weights.load import load_encoder_leaves, load_leaves
from pallas_kernels.core import Implementation

Load = Callable[[Mesh, jnp.dtype], Leaves]

PROGRAMS = Path.home() / ".cache" / "g4jax" / "compiled" / "programs"
MIXING_SHARE = 8
"""Prompts go with those that decode where these are at least this part of the largest batch."""
XLA_SHARE = 0.95
"""Share of a GPU's memory that XLA takes at once; what is left is for its libraries."""


def build_engine(
    options: EngineOptions,
    progress: Progress,
    *,
    implementation: Implementation | None = None,
    compile_ahead: bool = True,
    kept: Path | None = None,
) -> Engine:
    """The engine of a checkpoint; `progress(text, done, total)` is told how far it is.

    `kept`: see `assemble`.

    Raises:
        InvalidOption, ConfigError, MeshError, CheckpointError: what is wrong and what would be right.
    """
    folder = resolve(options.model, with_weights=options.load_format != "dummy")
    config = Gemma4Config.from_folder(folder)

    def load_encoders(mesh: Mesh, dtype: jnp.dtype) -> Leaves:
        return load_encoder_leaves(folder, config, mesh, dtype, options.load_format)

    def load(mesh: Mesh, dtype: jnp.dtype) -> Leaves:
        return load_leaves(
            folder,
            config.text,
            mesh,
            dtype,
            options.load_format,
            progress=lambda done, total: progress("loading weights", done, total),
        )

    return assemble(
        config,
        options,
        load,
        progress,
        load_encoders=load_encoders,
        suppressed=_suppressed(folder),
        implementation=implementation,
        compile_ahead=compile_ahead,
        kept=kept,
    )


def assemble(
    config: Gemma4Config,
    options: EngineOptions,
    load: Load,
    progress: Progress = lambda text, done, total: None,
    *,
    load_encoders: Load | None = None,
    suppressed: tuple[int, ...] = (),
    implementation: Implementation | None = None,
    compile_ahead: bool = True,
    kept: Path | None = None,
) -> Engine:
    """The engine of a model whose leaves `load(mesh, dtype)` gives, in the order of `abstract_model`.

    `load_encoders`: as `load`, of `abstract_encoders`; None for an engine of text alone. `suppressed` ids are never
    drawn. With `compile_ahead=False` programs are compiled when they are first needed, as batch work may prefer. Else
    the folder `kept` holds them for the next start.
    """
    # Read by XLA when its client is made, which is the first thing that follows.
    os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", str(XLA_SHARE))
    mesh = make_mesh(parse_mesh(options.mesh))
    dtype = _dtype(options, config)
    model = abstract_model(config.text, dtype, mesh.size, implementation)
    encoders = None if load_encoders is None else abstract_encoders(config, dtype, implementation)
    capacity = _capacity(config, options, model, encoders, mesh, dtype)
    step = Step(model.merge, model.layers, capacity.shapes, dtype, config.text.vocab_size, suppressed, implementation)
    encoding = None if encoders is None else encoding_of(config, encoders.merge, capacity.shapes.soft_slots, dtype)
    leaves = load(mesh, dtype)
    encoder_leaves = () if load_encoders is None else load_encoders(mesh, dtype)
    runner = Runner(step, leaves, _pages(config, capacity, mesh, dtype), mesh, encoding, encoder_leaves)
    if compile_ahead:
        store = None if kept is None else _store(kept, config, runner)
        runner.compile_all(progress, threads=os.cpu_count() or 1, store=store)
        if runner.programs.on_gpu:  # A CPU's first run is like any other, and nano's encoders need seconds for theirs.
            runner.warm_up(progress)
    return Engine(runner, _scheduler(config, capacity, options), sees_both_ways=config.text.sees_both_ways)


def programs_folder() -> Path | None:
    """Where an engine keeps its programs as a whole for the next start; what changed is compiled anew.

    None where the user has JAX's own cache keep them: on a CPU a program that was read from that cache and written here
    lacks functions when it runs.
    """
    return None if jax.config.values["jax_compilation_cache_dir"] else PROGRAMS


def _store(folder: Path, config: Gemma4Config, runner: Runner) -> ProgramStore:
    programs = runner.programs
    arguments = programs.leaves, programs.pages, programs.encoder_leaves
    return ProgramStore(folder, programs.mesh, repr((config, programs.step, arguments)))


def _dtype(options: EngineOptions, config: Gemma4Config) -> jnp.dtype:
    # Matrix products in bfloat16 are slower than in float32 on a CPU.
    on_cpu = jax.default_backend() == "cpu"
    name = options.dtype if options.dtype != "auto" else "float32" if on_cpu else config.dtype
    return jnp.dtype(name)


def _capacity(
    config: Gemma4Config,
    options: EngineOptions,
    model: AbstractModel,
    encoders: AbstractModel | None,
    mesh: Mesh,
    dtype: jnp.dtype,
) -> Capacity:
    device = mesh.devices.flat[0]
    stats = None if device.platform == "cpu" else device.memory_stats()
    split = sum(p.nbytes // mesh.size if any(p.axes) else p.nbytes for p in model.params)
    return plan_capacity(
        config.text,
        options,
        Device(None if stats is None else stats["bytes_limit"]),
        weight_bytes=split + (0 if encoders is None else encoders.nbytes),
        with_encoders=encoders is not None,
        itemsize=dtype.itemsize,
        tp=mesh.size,
    )


def _pages(config: Gemma4Config, capacity: Capacity, mesh: Mesh, dtype: jnp.dtype) -> Pages:
    return allocate(
        config.text,
        sliding_pages=capacity.sliding_pages,
        full_pages=capacity.full_pages,
        page_size=capacity.shapes.page_size,
        dtype=dtype,
        tp=mesh.size,
        sharding=named_sharding(mesh, KV_AXES),
    )


def _scheduler(config: Gemma4Config, capacity: Capacity, options: EngineOptions) -> Scheduler:
    return Scheduler(
        sliding_pages=capacity.sliding_pages,
        full_pages=capacity.full_pages,
        page_size=options.page_size,
        window=config.text.sliding_window,
        max_model_len=capacity.max_model_len,
        max_batch=capacity.max_batch,
        max_prefill_tokens=capacity.shapes.prefill_tokens[-1],
        max_prefill_rows=capacity.shapes.prefill_rows,
        max_score_tokens=capacity.shapes.score_tokens,
        decode_steps=options.decode_steps,
        mixes_from=-(-capacity.max_batch // MIXING_SHARE) if capacity.shapes.mixed_tokens else 0,
    )


def _suppressed(folder: Path) -> tuple[int, ...]:
    """Ids that the checkpoint forbids (generation_config.json's suppress_tokens)."""
    path = folder / "generation_config.json"
    return tuple(json.loads(path.read_text()).get("suppress_tokens") or ()) if path.exists() else ()
