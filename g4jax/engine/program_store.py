"""Compiled programs on disk: a start for which nothing has changed neither traces nor compiles.

JAX's own cache finds a program by what it was lowered to, and lowering, which is Python, is most of such a start. Here
a program is found by what it is made from: our files and all others that this process has loaded, the libraries'
versions, the settings of JAX and XLA, the devices, and what the caller names. A function that was replaced while the
process ran is not seen. The engine process of a server, which is started afresh, is safe: it runs what its files say.
"""

import contextlib
import hashlib
import logging
import os
import pickle
import shutil
import sys
import sysconfig
import tempfile
import zlib
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import jax
from jax._src.lib import xla_client  # pyright: ignore[reportPrivateImportUsage]
from jax.experimental.serialize_executable import deserialize_and_load, serialize
from jax.sharding import Mesh

import pallas_kernels
from g4jax.engine.programs import Key

log = logging.getLogger("g4jax")

OURS = (Path(__file__).parents[1], Path(pallas_kernels.__path__[0]))

KEPT = 8
"""Sets of programs that stay on disk, one for each model and its options: those started last."""


class ProgramStore:
    """The programs over `mesh` that are made from the same things, `made_from` among them, in a folder of their own.

    What is loaded from it runs: like a `.pyc`, it must be the user's own.
    """

    def __init__(self, folder: Path, mesh: Mesh, made_from: str):
        self._devices = list(mesh.devices.flat)
        parts = (made_from, _settings(mesh), *_sources())
        self._folder = folder / hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def load(self, key: Key) -> jax.stages.Compiled | None:
        """None where there is no such program, or none that can be read."""
        path = self._path(key)
        if not path.exists():
            return None
        try:
            payload, *trees = pickle.loads(zlib.decompress(path.read_bytes()))
            return deserialize_and_load(payload, *map(jax.tree.structure, trees), execution_devices=self._devices)
        except Exception as error:  # Whatever is wrong with a file, its program can be made anew.
            log.warning("%s is compiled again: %s cannot be read (%s)", key, path, error)
            return None

    def save(self, key: Key, compiled: jax.stages.Compiled) -> None:
        """A program that cannot be kept is compiled again at the next start."""
        try:
            payload, *structures = serialize(compiled)
            # A structure alone is not made to be kept; a tree of numbers is.
            trees = [jax.tree.unflatten(structure, range(structure.num_leaves)) for structure in structures]
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _write(self._path(key), zlib.compress(pickle.dumps((payload, *trees)), level=1))
        except (OSError, ValueError, jax.errors.JaxRuntimeError) as error:
            log.warning("%s will be compiled again at the next start: %s", key, error)

    def tidy(self) -> None:
        """Marks these programs as used, and removes those that were not for the longest time."""
        with contextlib.suppress(OSError):  # Nothing was kept, or another process tidies as well.
            os.utime(self._folder)
            by_age = sorted(self._folder.parent.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
            for old in by_age[KEPT:]:
                shutil.rmtree(old, ignore_errors=True)

    def _path(self, key: Key) -> Path:
        return self._folder / "-".join(map(str, key))


def _settings(mesh: Mesh) -> str:
    device = mesh.devices.flat[0]
    topology = xla_client.get_topology_for_devices(list(mesh.devices.flat)).fingerprint()
    xla = {name: value for name, value in sorted(os.environ.items()) if name.startswith("XLA_")}
    jax_settings = sorted(jax.config.values.items())
    versions = [*map(version, ("jax", "jaxlib", "flax")), device.client.platform_version]
    return repr((versions, device.device_kind, topology, xla, jax_settings))


def _sources() -> Iterator[str]:
    """Of every file of this project, and of every one loaded that is no installed library's: where it lies, how large
    it is and when it was written."""
    libraries = tuple(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib"))
    loaded = {getattr(module, "__file__", None) or "" for module in list(sys.modules.values())}
    files = {Path(file) for file in loaded if not file.startswith(libraries)}
    files = files.union(*(folder.rglob("*.py") for folder in OURS))
    for path in sorted(files):
        if path.is_file():
            stat = path.stat()
            yield f"{path} {stat.st_size} {stat.st_mtime_ns}"


def _write(path: Path, data: bytes) -> None:
    """All at once: another process may read it. Nothing is left of what a full disk cuts short."""
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        whole = Path(folder) / path.name
        whole.write_bytes(data)
        whole.replace(path)
