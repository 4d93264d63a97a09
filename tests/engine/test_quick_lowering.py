"""While programs are lowered nothing is searched for that is not there; afterwards all is as before."""

import gc
import importlib
import sys

import pytest

from g4jax.engine.quick_lowering import TRITON_BINDINGS, quick_lowering


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
