"""The tiny models of these tests compile for longer than they run."""

import jax
import pytest


@pytest.fixture(autouse=True, scope="session")
def quick_compilation():
    """A third less of the tests' time. What a server runs is compiled as it comes in tests/server."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
