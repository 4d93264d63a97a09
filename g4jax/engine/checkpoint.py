"""Which folder is served: the bundled checkpoint, a local folder, or a hub id that is downloaded."""

from pathlib import Path

from g4jax.engine.options import InvalidOption
from g4jax.weights.errors import CheckpointError
from g4jax.weights.hub import resolve

NANO = Path(__file__).parents[1] / "assets" / "nano"


def find_checkpoint(model: str | None, *, with_weights: bool = True) -> Path:
    """The folder of `model`: a local folder, a hub id, or the bundled nano checkpoint for None or "nano".

    Raises:
      InvalidOption: field "model"; no such folder, not a checkpoint, or the hub does not give it.
    """
    if model is None or (model == "nano" and not Path(model).exists()):
        return _checked(NANO, with_weights)
    try:
        return _checked(resolve(model, with_weights=with_weights), with_weights)
    except CheckpointError as error:
        raise InvalidOption("model", str(error)) from error


def _checked(folder: Path, with_weights: bool) -> Path:
    for name in ("config.json", "tokenizer.json"):
        if not (folder / name).is_file():
            raise InvalidOption("model", f"{folder} has no {name}; give a checkpoint's folder in Hugging Face form")
    if with_weights and not any(folder.glob("*.safetensors")) and not (folder / "orbax").is_dir():
        raise InvalidOption("model", f"{folder} has no *.safetensors; load_format dummy runs without weights")
    return folder
