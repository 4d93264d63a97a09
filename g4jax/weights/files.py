"""The tensors of a folder of safetensors files, mapped into memory: nothing is read before it is used."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from g4jax.weights.errors import CheckpointError

INDEX = "model.safetensors.index.json"

_DTYPES = {"BF16": np.dtype(ml_dtypes.bfloat16), "F16": np.dtype(np.float16), "F32": np.dtype(np.float32)}


@dataclasses.dataclass(frozen=True)
class StoredTensor:
    """A tensor of a file. `stored` is its dtype as the file names it."""

    file: Path
    shape: tuple[int, ...]
    stored: str
    offset: int

    @property
    def is_float(self) -> bool:
        return self.stored in _DTYPES

    @property
    def dtype(self) -> np.dtype:
        return _DTYPES[self.stored]

    def bits(self) -> np.ndarray:
        """A view of the file, of unsigned integers as wide as `dtype`: numpy copies these ten times faster than
        bfloat16, and without the interpreter lock, which `safetensors` holds while it reads."""
        mapped = np.memmap(self.file, bits_of(self.dtype), "r", offset=self.offset, shape=self.shape)
        return mapped.view(np.ndarray)


def bits_of(dtype: np.dtype) -> np.dtype:
    """The unsigned integers as wide as `dtype`."""
    return np.dtype(f"<u{dtype.itemsize}")


def open_folder(folder: Path) -> dict[str, StoredTensor]:
    """Every tensor of the checkpoint in `folder`, one file or several, by name.

    Raises:
        CheckpointError: no weights, a file missing, or one that is damaged.
    """
    return {name: tensor for file in _files(folder) for name, tensor in _read_header(file)}


def _files(folder: Path) -> list[Path]:
    index = folder / INDEX
    if not index.is_file():
        files = sorted(folder.glob("*.safetensors"))
        if not files:
            raise CheckpointError(f"{folder} has no *.safetensors files: is the download complete?")
        return files
    try:
        files = [folder / name for name in sorted(set(json.loads(index.read_text())["weight_map"].values()))]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{index} is damaged ({error!r}): download it again") from None
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise CheckpointError(f"{folder} lacks {', '.join(missing)}, which {INDEX} names: download the rest")
    return files


def _read_header(file: Path) -> Iterator[tuple[str, StoredTensor]]:
    try:
        with safe_open(file, framework="numpy"):
            pass  # it has checked that the header is sound and that the file is as long as the header says
    except SafetensorError as error:
        raise CheckpointError(
            f"{file} is damaged or only partly downloaded ({error}; {file.stat().st_size:,} bytes): download it again"
        ) from None
    with open(file, "rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(length))
    header.pop("__metadata__", None)
    for name, entry in header.items():
        offset = 8 + length + entry["data_offsets"][0]
        yield name, StoredTensor(file, tuple(entry["shape"]), entry["dtype"], offset)
