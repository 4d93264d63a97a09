"""Every test sees eight devices, of the CPU unless JAX_PLATFORMS says otherwise.

Models are tiny here and compile for longer than they run: without most of XLA's optimizations that takes a third less.
A server of the tests is a process of its own and is compiled as it is for users, and so is what is compiled for a GPU.
"""

import gc
import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")
_DEVICES = "--xla_force_host_platform_device_count"
if _DEVICES not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_DEVICES}=8"

import jax  # noqa: E402  # after what it reads

jax.config.update("jax_disable_most_optimizations", os.environ["JAX_PLATFORMS"] == "cpu")


def pytest_collection_finish() -> None:
    """What was imported stays: it is left out of every search for garbage from here on."""
    gc.collect()
    gc.freeze()
