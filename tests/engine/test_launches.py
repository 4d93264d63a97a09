"""What one decoded token launches on an H200, read from the compiler of a jax that GPUs get: no GPU needed."""

import dataclasses
import json
import re

import pytest

from g4jax.config import Gemma4Config, TextConfig
from g4jax.engine.programs import Programs
from pallas_kernels.decode_attention.tiling import MANY_PROGRAMS
from scripts.inspect_step import (
    CONFIGS,
    cache_copies,
    compile_program,
    decode_programs,
    inspect_decode,
    inspect_encoder,
)

pytest.importorskip("jax_plugins.xla_cuda13")

LAUNCHES = {
    1: {"e2b": (8, 18), "e4b": (8, 18), "31b": (6, 15), "26b-a4b": (12, 15)},
    8: {"e2b": (12, 16), "e4b": (12, 16), "31b": (8, 13), "26b-a4b": (15, 13)},
    104: {"e2b": (13, 15), "e4b": (12, 15), "31b": (8, 12), "26b-a4b": (19, 12)},
}
"""Of a layer, whatever its kind, and of the rest, by batch and config. 104 rows are what a hundred requests decode in.
Some of their products are left to XLA, which on a GPU times them first and may split others than here."""


def config_of(name: str) -> Gemma4Config:
    return Gemma4Config.from_dict(json.loads((CONFIGS / f"{name}.json").read_text()))


def one_layer_of_each_kind(text: TextConfig) -> TextConfig:
    """The same with one sliding and one full layer, and one of each that shares the keys of these, where some share."""
    kept = {(spec.kind, spec.kv_source): spec for spec in text.layers if not spec.owns_kv}
    sources = sorted(source for _, source in kept) or [0, next(s.index for s in text.layers if not s.is_sliding)]
    layers = [text.layers[source] for source in sources] + list(kept.values())
    places = {source: place for place, source in enumerate(sources)}
    return dataclasses.replace(
        text,
        layers=tuple(
            dataclasses.replace(spec, index=index, kv_source=places[spec.kv_source])
            for index, spec in enumerate(layers)
        ),
    )


def figures_of(name: str, batch: int, text: TextConfig) -> dict[str, int]:
    of_a_layer, of_the_rest = LAUNCHES[batch][name]
    launches = text.num_layers * of_a_layer + of_the_rest
    for kind in {spec.kind for spec in text.layers}:
        of_kind = [spec for spec in text.layers if spec.kind == kind]
        if batch * of_kind[0].num_kv_heads >= MANY_PROGRAMS:
            # Attention reads its table where it lies: a copy less. Norm, RoPE and write are a launch of their own, for
            # which a window, that is not split, has none that joins splits.
            launches += 0 if of_kind[0].is_sliding else len(of_kind)
            launches -= 1
    return {"launches_per_token": launches, "cache_copies": 0, "weight_sized_temporaries": 0}


@pytest.mark.parametrize("name", LAUNCHES[1])
@pytest.mark.parametrize("batch", LAUNCHES)
def test_a_layer_takes_few_launches_and_copies_nothing(name: str, batch: int):
    text = one_layer_of_each_kind(config_of(name).text)
    figures, launched = inspect_decode(text, batch, kernels=False)
    assert figures == figures_of(name, batch, text), launched


@pytest.mark.parametrize(("name", "batch", "kernels"), [("e2b", 1, False), ("26b-a4b", 8, True)])
def test_a_token_takes_those_of_the_layers(name: str, batch: int, kernels: bool):
    """Kernels that are built are launched as often as those that are only named."""
    text = config_of(name).text
    figures, launched = inspect_decode(text, batch, kernels=kernels)
    assert figures == figures_of(name, batch, text), launched


@pytest.mark.parametrize(("batch", "head"), [(1, 0), (104, 1)])
def test_a_token_that_is_drawn_takes_a_kernel_more(batch: int, head: int):
    """Two of its own, and one less for the largest of the row. Of many rows greedy makes no logits."""
    programs = decode_programs(one_layer_of_each_kind(config_of("e2b").text), batch)
    drawn, best = (compile_program(programs, ("decode", batch, v), kernels=False) for v in ("sampled", "greedy"))
    assert {"best_lines", "draw"} <= {launch.name for launch in drawn.launches}
    kernels = [len([x for x in step.launches if x.kind != "kCopy"]) for step in (drawn, best)]  # copies: once a call
    assert kernels[0] - kernels[1] == 1 + head, [launch.name for launch in drawn.launches]


@pytest.mark.parametrize("batch", [32, 128])
def test_prompts_beside_a_decode_batch_copy_no_cache(batch: int):
    text = one_layer_of_each_kind(config_of("e2b").text)
    assert cache_copies(text, ("mixed", 64, "greedy"), batch) == 0


@pytest.mark.parametrize("key", [("forward", 104), ("decode", 104, "shaped")])
def test_rich_batches_copy_no_cache(key):
    assert cache_copies(one_layer_of_each_kind(config_of("e2b").text), key, 104) == 0


HARMLESS = [
    ("mixed", 512, "greedy"),
    ("decode", 8, "shaped"),
    ("forward", 8),
    ("draw", 8, "guided"),
    ("count",),
    ("score", 128),
]


@pytest.mark.parametrize("key", HARMLESS)
def test_no_program_slows_the_launches_of_others(key):
    """Where the first copied on another stream, once in a layer, its presence alone slowed all other programs: E2B's
    calls of one row took 16.4 ms instead of 15.6 on an H200. So did the third with a conditional in its graph."""
    programs = decode_programs(one_layer_of_each_kind(config_of("e2b").text), 128)
    shapes = dataclasses.replace(programs.step.shapes, decode_steps=2, score_tokens=128)
    step = dataclasses.replace(programs.step, shapes=shapes)
    programs = Programs(step, programs.leaves, programs.pages, programs.mesh)
    compiled = compile_program(programs, key, kernels=False)
    assert compiled.launches and not [launch for launch in compiled.launches if launch.kind == "kAsyncStart"]
    assert "kConditional" not in compiled.graphed


@pytest.mark.parametrize("part", ["enter", "prefill"])
def test_prompts_copy_no_cache(part: str):
    assert cache_copies(config_of("e2b").text, (part, 64), 1) == 0


def test_a_kernel_that_reads_a_part_of_an_array_finds_it_aligned():
    """Mosaic's kernels refuse what does not begin at a multiple of 256 bytes, when they are run."""
    text = one_layer_of_each_kind(config_of("e4b").text)
    hlo = compile_program(decode_programs(text, 104), ("decode", 104, "greedy")).hlo
    starts = re.findall(r"= s32\S* slice\(\S+\), slice=\{\[(\d+):", "".join(fusions_of_kernels(hlo)))
    assert starts and all(int(start) % 64 == 0 for start in starts)


def fusions_of_kernels(hlo: str) -> list[str]:
    """The computations in which a Mosaic kernel is called."""
    return [part for part in re.split(r"\n(?=\S)", hlo) if "mosaic_gpu_v2" in part]


@pytest.mark.parametrize(("name", "key", "most"), [("e2b", ("see", 280, 2), 300), ("e2b", ("hear", 128), 420)])
def test_an_encoder_copies_nothing_of_the_store(name, key, most):
    launches, copies = inspect_encoder(config_of(name), key)
    assert 100 < launches <= most and copies == 0
