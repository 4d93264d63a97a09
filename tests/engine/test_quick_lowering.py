"""While programs are lowered nothing is searched for that is not there; afterwards all is as before."""

import gc
import importlib
import sys

import jax
import pytest
from jax._src.pallas.triton import lowering as triton_lowering

from g4jax.engine.quick_lowering import TRITON_BINDINGS, quick_lowering
from g4jax.testing.compile_for_gpu import arg, gpu_mesh
from pallas_kernels.linear import linear


def test_what_is_missing_is_not_looked_for_and_comes_back():
    before = {name: sys.modules.get(name) for name in TRITON_BINDINGS}
    with quick_lowering():
        assert not gc.isenabled()
        for name in TRITON_BINDINGS:
            if before[name] is None:
                with pytest.raises(ModuleNotFoundError, match="None in sys.modules"):
                    importlib.import_module(name)
    assert gc.isenabled()
    assert {name: sys.modules.get(name) for name in TRITON_BINDINGS} == before


def test_an_error_restores_all():
    with pytest.raises(RuntimeError), quick_lowering():
        raise RuntimeError
    assert gc.isenabled()
    assert all(sys.modules.get(name, name) is not None for name in TRITON_BINDINGS)


def test_programs_lower_the_kernels_they_share_once(monkeypatch):
    pytest.importorskip("jax_plugins.xla_cuda13")
    lowered = []
    lower = triton_lowering.lower_jaxpr_to_triton_module

    def counted(*given, **named):
        lowered.append(given[0])
        return lower(*given, **named)

    monkeypatch.setattr(triton_lowering, "lower_jaxpr_to_triton_module", counted)
    shapes = arg((1, 256), "bfloat16"), arg((512, 256), "bfloat16")

    def texts() -> list[str]:
        lowered.clear()
        with jax.sharding.use_abstract_mesh(gpu_mesh().abstract_mesh):
            programs = [jax.jit(lambda x, w, n=n: linear(x, w, implementation="triton") + n) for n in (1, 2)]
            return [program.lower(*shapes).as_text() for program in programs]

    one_by_one = texts()
    assert len(lowered) == 2
    with quick_lowering():
        assert texts() == one_by_one
    assert len(lowered) == 1
    assert triton_lowering.lower_jaxpr_to_triton_module is counted
