"""Where a checkpoint lies: a folder, or a hub id that is downloaded into the hub's own cache."""

import re
from pathlib import Path

from g4jax.weights.errors import CheckpointError

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_FILES = ["*.json", "*.jinja"]
_WEIGHTS = ["*.safetensors"]


def resolve(model: str | Path, *, with_weights: bool = True) -> Path:
    """The folder of `model`, downloaded if it is a hub id such as "google/gemma-4-E4B-it".

    Raises:
        CheckpointError: neither a folder nor a hub id, or the hub does not give it.
    """
    folder = Path(model).expanduser()
    if folder.is_dir():
        return folder
    if not _HUB_ID.fullmatch(str(model)):
        raise CheckpointError(f"{model} is not a folder: give a checkpoint's folder or a hub id such as org/name")
    return _download(str(model), _FILES + _WEIGHTS if with_weights else _FILES)


def _download(model: str, patterns: list[str]) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(model, allow_patterns=patterns))
    except Exception as error:  # whatever the network, the proxy or the hub came up with
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CheckpointError(
            f"{model} is not a folder here, and the hub did not give it: {reason} "
            "(offline? download it elsewhere and give the folder; gated? run `hf auth login`)"
        ) from error
