"""Small buffers have a hole of their own, and programs whose products XLA times are compiled alone."""

import dataclasses

import jax
import pytest
from jax.sharding import SingleDeviceSharding

from g4jax.config import Gemma4Config
from g4jax.engine.buffer_room import LEAST_BYTES, make_room
from g4jax.engine.programs import Programs
from g4jax.testing.configs import tiny
from scripts.inspect_step import decode_programs

pytest.importorskip("jax_plugins.xla_cuda13")


def programs_of(rows: int, table_width: int) -> Programs:
    programs = decode_programs(Gemma4Config.from_dict(tiny("e2b")).text, rows)
    shapes = dataclasses.replace(programs.step.shapes, table_width=table_width)
    programs.step = dataclasses.replace(programs.step, shapes=shapes)
    return programs


@pytest.mark.parametrize(("rows", "table_width", "at_least"), [(1, 8, LEAST_BYTES), (256, 1024, 2 * 4 * 256 * 2048)])
def test_there_is_room_for_the_inputs_of_some_launches(rows, table_width, at_least):
    programs = programs_of(rows, table_width)
    before = len(jax.live_arrays())
    wall = make_room(programs, SingleDeviceSharding(jax.devices("cpu")[0]))
    assert wall.nbytes >= at_least
    assert len(jax.live_arrays()) == before + 1  # the hole is free again


def test_only_decode_of_many_rows_is_compiled_alone():
    programs = programs_of(128, 8)
    keys = [("decode", 64, "greedy"), ("decode", 128, "greedy"), ("decode", 128, "sampled"), ("prefill", 64)]
    assert [key for key in keys if programs.is_timed(key)] == [("decode", 128, "greedy")]
