"""Programs kept on disk: found by what they are made from, run as compiled, replaced where they cannot be read."""

import os
import sys
import types

import jax
import jax.numpy as jnp
import pytest

from g4jax.engine import program_store
from g4jax.engine.launch import build_engine, programs_folder
from g4jax.engine.options import EngineOptions
from g4jax.engine.program_store import ProgramStore
from g4jax.engine.programs import Programs
from g4jax.sharding import make_mesh
from tests.engine.tiny_engine import SETTINGS, requests, run, write_wandering

KEY = ("decode", 8, "greedy")


@pytest.fixture
def store(tmp_path):
    return lambda made_from="a model": ProgramStore(tmp_path, make_mesh(1), made_from)


def add(x, tree):
    return {"sum": x + tree[0], "twice": 2 * tree[1]}


def program():
    x = jnp.zeros(4)
    return jax.jit(add, donate_argnums=(0,)).lower(x, (x, x)).compile()


def test_a_loaded_program_gives_what_it_gave_and_takes_what_was_donated(store):
    store().save(KEY, program())
    loaded, x = store().load(KEY), jnp.arange(4.0)
    out = loaded(x, (jnp.ones(4), jnp.ones(4)))
    assert out["sum"].tolist() == [1, 2, 3, 4] and out["twice"].tolist() == [2, 2, 2, 2]
    assert x.is_deleted()


def test_what_is_made_from_something_else_is_not_found(store, tmp_path, monkeypatch):
    module = types.ModuleType("edited")
    module.__file__ = str(tmp_path / "edited.py")
    (tmp_path / "edited.py").write_text("a = 1")
    monkeypatch.setitem(sys.modules, "edited", module)
    store().save(KEY, program())
    assert store().load(KEY) is not None and store().load(("decode", 4, "greedy")) is None
    assert store("another model").load(KEY) is None
    monkeypatch.setenv("XLA_FLAGS", os.environ["XLA_FLAGS"] + " --xla_cpu_enable_fast_math=false")
    assert store().load(KEY) is None
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "edited", module)
    assert store().load(KEY) is not None
    (tmp_path / "edited.py").write_text("a = 10")
    assert store().load(KEY) is None


def test_settings_of_jax_belong_to_it(store):
    store().save(KEY, program())
    jax.config.update("jax_default_matmul_precision", "highest")
    try:
        assert store().load(KEY) is None
    finally:
        jax.config.update("jax_default_matmul_precision", None)


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: b"", lambda data: b"x" * 100])
def test_a_damaged_file_is_told_of_and_written_anew(store, tmp_path, caplog, damage):
    store().save(KEY, program())
    (path,) = tmp_path.glob("*/*")
    path.write_bytes(damage(path.read_bytes()))
    assert store().load(KEY) is None and "compiled again" in caplog.text and str(path) in caplog.text
    store().save(KEY, program())
    assert store().load(KEY) is not None


def test_a_disk_that_cannot_be_written_costs_a_warning(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    store = ProgramStore(tmp_path / "file", make_mesh(1), "a model")
    store.save(KEY, program())
    store.tidy()
    assert store.load(KEY) is None and "at the next start" in caplog.text


def test_a_disk_that_fills_up_is_left_without_halves(store, tmp_path, monkeypatch, caplog):
    def fill(path, data):
        with path.open("wb") as file:
            file.write(data[:10])
        raise OSError("No space left on device")

    monkeypatch.setattr(program_store.Path, "write_bytes", fill)
    store().save(KEY, program())
    assert "No space left" in caplog.text and not list(tmp_path.glob("*/*")) and store().load(KEY) is None


def test_those_not_used_for_the_longest_time_go(store, tmp_path, monkeypatch):
    monkeypatch.setattr(program_store, "KEPT", 2)
    for name in ("first", "second", "third"):
        store(name).save(KEY, program())
        for path in tmp_path.iterdir():
            os.utime(path, (path.stat().st_atime, path.stat().st_mtime - 10))
    store("first").tidy()
    assert [store(name).load(KEY) is not None for name in ("first", "second", "third")] == [True, False, True]
    assert {path.name for path in tmp_path.glob("*/*")} == {"decode-8-greedy"}


def test_programs_are_kept_in_one_place(tmp_path):
    """A CPU's program that JAX's cache gave lacks functions once it is written again and read."""
    assert programs_folder() is not None
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    try:
        assert programs_folder() is None
    finally:
        jax.config.update("jax_compilation_cache_dir", None)


def test_the_second_start_of_an_engine_lowers_nothing_and_answers_the_same(tmp_path, monkeypatch):
    write_wandering(tmp_path / "model", "e2b")
    keys = [("enter", 16), ("prefill", 16), ("draw", 1, "greedy"), ("decode", 1, "greedy")]
    monkeypatch.setattr(Programs, "keys", lambda self: keys)
    told = []

    def start():
        options = EngineOptions(model=str(tmp_path / "model"), **SETTINGS | {"max_batch": 1, "mesh": "tp=2"})
        return build_engine(options, lambda *what: told.append(what), kept=tmp_path / "programs")

    first = run(start(), requests(2, temperature=0.0))
    assert ("compiling", 4, 4) in told
    told.clear()
    monkeypatch.setattr(Programs, "lower", lambda self, key: pytest.fail(f"{key} was lowered"))
    assert run(start(), requests(2, temperature=0.0)) == first
    assert ("loading programs", 4, 4) in told
