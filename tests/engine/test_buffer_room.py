"""Small buffers have holes of their own, and programs whose products XLA times are compiled alone."""

import collections
import dataclasses

import jax
import pytest
from jax.sharding import SingleDeviceSharding

from g4jax.config import Gemma4Config
from g4jax.engine.buffer_room import EACH, hole_sizes, make_room
from g4jax.engine.programs import Programs
from g4jax.testing.configs import tiny
from scripts.inspect_step import compile_program, decode_programs
from tests.engine.test_launches import config_of, one_layer_of_each_kind

pytest.importorskip("jax_plugins.xla_cuda13")


def programs_of(rows: int, table_width: int) -> Programs:
    programs = decode_programs(Gemma4Config.from_dict(tiny("e2b")).text, rows)
    shapes = dataclasses.replace(programs.step.shapes, table_width=table_width)
    programs.step = dataclasses.replace(programs.step, shapes=shapes)
    return programs


@pytest.mark.parametrize(
    ("largest", "sizes"), [(100, [2**14]), (2**16, [2**14, 2**16]), (70_000, [2**14, 2**16, 70_000])]
)
def test_the_largest_hole_is_as_large_as_the_largest_input(largest, sizes):
    """No larger: temporaries that fit into holes share them with other buffers."""
    assert hole_sizes(largest) == sizes


@pytest.mark.parametrize(
    ("rows", "table_width", "largest"), [(16, 8, 4 * 2 * 16 * 1024), (256, 2048, 4 * 256 * 2 * 2048)]
)
def test_there_is_room_for_the_inputs_of_some_launches(rows, table_width, largest):
    programs = programs_of(rows, table_width)
    before = len(jax.live_arrays())
    walls = make_room(programs, SingleDeviceSharding(jax.devices("cpu")[0]))
    assert len(jax.live_arrays()) == before + len(walls)  # the holes are free again
    by_size = collections.Counter(wall.nbytes for wall in walls)
    assert set(by_size.values()) == {EACH}
    assert largest <= max(by_size) < 1.1 * largest


@pytest.mark.parametrize("key", [("prefill", 640), ("decode", 104, "greedy")])
def test_temporaries_of_prompts_and_of_a_hundred_rows_find_no_room_there(key):
    """Of the smallest release, with some of its layers."""
    programs = decode_programs(one_layer_of_each_kind(config_of("e2b").text), 128)
    shapes = dataclasses.replace(programs.step.shapes, table_width=72, prefill_tokens=(640,), decode_steps=8)
    programs.step = dataclasses.replace(programs.step, shapes=shapes)
    holes = make_room(programs, SingleDeviceSharding(jax.devices("cpu")[0]))
    used = compile_program(programs, key, kernels=False).compiled.memory_analysis()
    assert used.temp_size_in_bytes > 1.5 * max(hole.nbytes for hole in holes)


def test_only_decode_of_many_rows_is_compiled_alone():
    programs = programs_of(128, 8)
    keys = [("decode", 64, "greedy"), ("decode", 128, "greedy"), ("decode", 128, "sampled"), ("prefill", 64)]
    assert [key for key in keys if programs.is_timed(key)] == [("decode", 128, "greedy")]
