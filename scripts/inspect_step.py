"""What one decoded token launches on an H200, read from the compiler on a machine without a GPU.

    python scripts/inspect_step.py --target h200 --config e2b --batch 1

Prints the launches by kernel and, last, one JSON line: `launches_per_token`, `cache_copies` (whole page arrays that are
copied) and `weight_sized_temporaries` (results as large as a weight matrix: several times the traffic). `--config` is a
name under g4jax/assets/configs or a checkpoint's folder.
"""

import argparse
import collections
import json
import re
from pathlib import Path

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding

from g4jax.cache.pages import KV_AXES, LayerPages, page_shape
from g4jax.config import Gemma4Config, TextConfig
from g4jax.engine.batch import Shapes
from g4jax.engine.capacity import early_layers
from g4jax.engine.encoding import encoding_of
from g4jax.engine.programs import Key, Programs
from g4jax.engine.steps import Step
from g4jax.sharding import partition_spec
from g4jax.testing.compile_for_gpu import GpuStep, compile_for_gpu, gpu_mesh
from g4jax.weights.abstract import abstract_encoders, abstract_model

CONFIGS = Path(__file__).parents[1] / "g4jax" / "assets" / "configs"
PAGES, PAGE_SIZE, TABLE_WIDTH, SOFT_SLOTS = 512, 32, 256, 4096
SMALLEST_WEIGHT = 2**20
"""Elements from which on a matrix counts as a weight."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", choices=("h200",), default="h200")
    parser.add_argument("--config", required=True)
    parser.add_argument("--batch", type=int, default=1)
    args = parser.parse_args()
    path = CONFIGS / f"{args.config}.json"
    config = (
        Gemma4Config.from_dict(json.loads(path.read_text())) if path.exists() else Gemma4Config.from_folder(args.config)
    )
    figures, kernels = inspect_decode(config.text, args.batch)
    for name, count in kernels.most_common():
        print(f"{count:5d}  {name}")
    print(json.dumps({"config": args.config, "batch": args.batch, **figures}))


def inspect_decode(
    config: TextConfig, batch: int, *, kernels: bool = True
) -> tuple[dict[str, int], collections.Counter[str]]:
    """The figures of a greedy decode call of one step, and how often each kernel is launched in it.

    The figures are the same without `kernels`, where those of Pallas are not built."""
    programs = decode_programs(config, batch)
    step = compile_program(programs, ("decode", batch, "greedy"), kernels)
    figures = {
        "launches_per_token": len(step.launches),
        "cache_copies": _cache_copies(step, programs),
        "weight_sized_temporaries": _weight_sized_temporaries(step, programs, config),
    }
    return figures, collections.Counter(re.sub(r"[.\d]+$", "", launch.name) for launch in step.launches)


def decode_programs(config: TextConfig, batch: int) -> Programs:
    """The programs of a model with bfloat16 weights on one GPU that is not there."""
    mesh, dtype = gpu_mesh(), jnp.dtype("bfloat16")
    model = abstract_model(config, dtype, 1, "triton")
    leaves = tuple(jax.ShapeDtypeStruct(p.shape, p.dtype, sharding=p.sharding(mesh)) for p in model.params)
    where = NamedSharding(mesh, partition_spec(KV_AXES))

    def layer_pages(spec) -> LayerPages:
        pages = jax.ShapeDtypeStruct(page_shape(spec, PAGES, PAGE_SIZE, 1), dtype, sharding=where)
        return LayerPages(pages, pages)

    shapes = Shapes(
        prefill_tokens=(64,),
        score_tokens=64,
        prefill_rows=1,
        decode_rows=(batch,),
        rich_rows=(batch,),
        table_width=TABLE_WIDTH,
        page_size=PAGE_SIZE,
        decode_steps=1,
        early=early_layers(config),
        mixed_tokens=(64,),
    )
    step = Step(model.merge, model.layers, shapes, dtype, config.vocab_size, implementation="triton")
    pages = {spec.index: layer_pages(spec) for spec in config.layers if spec.owns_kv}
    return Programs(step, leaves, pages, mesh)


def cache_copies(config: TextConfig, key: Key, batch: int) -> int:
    """How many arrays of pages a program of this batch copies."""
    programs = decode_programs(config, batch)
    return _cache_copies(compile_program(programs, key, kernels=False), programs)


def inspect_encoder(config: Gemma4Config, key: Key) -> tuple[int, int]:
    """Launches of an encoder's step, such as ("see", 280, 2), and its copies of the store of soft tokens."""
    mesh, dtype = gpu_mesh(), jnp.dtype("bfloat16")
    encoders = abstract_encoders(config, dtype, "triton")
    assert encoders is not None
    leaves = tuple(jax.ShapeDtypeStruct(p.shape, p.dtype, sharding=p.sharding(mesh)) for p in encoders.params)
    text = decode_programs(config.text, 1)
    encoding = encoding_of(config, encoders.merge, SOFT_SLOTS, dtype)
    programs = Programs(text.step, text.leaves, text.pages, mesh, encoding, leaves)
    step = compile_program(programs, key)
    return len(step.launches), len(step.copies_of(programs.store().shape))


def compile_program(programs: Programs, key: Key, kernels: bool = True) -> GpuStep:
    """One program of them, for an H200."""
    return compile_for_gpu(programs.jitted(key), *programs.arguments(key), kernels=kernels)


def _cache_copies(step: GpuStep, programs: Programs) -> int:
    return sum(len(step.copies_of(shape)) for shape in {page.shape for page in jax.tree.leaves(programs.pages)})


def _weight_sized_temporaries(step: GpuStep, programs: Programs, config: TextConfig) -> int:
    matrices = {leaf.shape for leaf in programs.leaves if len(leaf.shape) > 1}
    return sum(
        len(step.temporaries_of(shape)) for shape in matrices if jax.numpy.prod(jnp.array(shape)) >= SMALLEST_WEIGHT
    )


if __name__ == "__main__":
    main()
