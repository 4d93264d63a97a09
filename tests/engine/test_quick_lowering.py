"""While programs are lowered nothing is searched for that is not there; afterwards all is as before."""

import functools
import gc
import importlib
import sys

import jax
import jax.numpy as jnp
import pytest

from g4jax.engine import quick_lowering as quick
from g4jax.engine.quick_lowering import TRITON_BINDINGS, quick_lowering
from g4jax.testing.compile_for_gpu import arg, gpu_mesh
from pallas_kernels.core import has_mosaic
from pallas_kernels.linear import gated_linear, linear


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
    for module, name in quick.LOWERINGS:
        if lower := getattr(module, name, None):
            monkeypatch.setattr(
                module, name, lambda *x, lower=lower, **named: (lowered.append(x), lower(*x, **named))[1]
            )
    shapes = arg((1, 256), "bfloat16"), arg((512, 256), "bfloat16"), arg((128, 2560), "bfloat16")

    def both(x, w, rows, n):
        gated = jnp.sum(gated_linear(rows, jnp.zeros((20480, 2560), rows.dtype), implementation="triton"))
        return linear(x, w, implementation="triton") + gated + n

    def texts() -> list[str]:
        lowered.clear()
        with jax.sharding.use_abstract_mesh(gpu_mesh().abstract_mesh):
            return [jax.jit(functools.partial(both, n=n)).lower(*shapes).as_text() for n in (1, 2)]

    one_by_one, kernels = texts(), len(lowered) // 2
    assert kernels == (2 if has_mosaic() else 1)
    before = [getattr(module, name, None) for module, name in quick.LOWERINGS]
    with quick_lowering():
        assert texts() == one_by_one
    assert len(lowered) == kernels
    assert [getattr(module, name, None) for module, name in quick.LOWERINGS] == before
