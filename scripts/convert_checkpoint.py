"""Converts a checkpoint from safetensors to orbax.

    JAX_PLATFORMS=cpu python scripts/convert_checkpoint.py --model google/gemma-4-E2B-it --out gemma-4-e2b-orbax

The result is a folder that `--model` takes. Needs `pip install 'g4jax[orbax]'` and memory for the weights twice.
"""

import argparse
from pathlib import Path

import jax.numpy as jnp
from tqdm import tqdm

from g4jax.config import Gemma4Config
from g4jax.sharding import make_mesh, parse_mesh
from g4jax.weights import orbax, safetensors
from g4jax.weights.errors import CheckpointError
from g4jax.weights.hub import resolve


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="a folder or a hub id")
    parser.add_argument("--out", required=True, type=Path, help="the folder to write")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--mesh", default="tp=1", help="devices to load on, such as tp=2")
    args = parser.parse_args()
    folder = resolve(args.model)
    config, mesh = Gemma4Config.from_folder(folder), make_mesh(parse_mesh(args.mesh))
    dtype = jnp.dtype(args.dtype)
    with tqdm(unit="B", unit_scale=True) as bar:
        leaves = safetensors.load(folder, config.text, mesh, dtype, progress=_advance(bar))
    encoders = safetensors.load_encoders(folder, config, mesh, dtype)
    orbax.save(args.out, leaves, config, mesh, beside=folder, encoders=encoders)


def _advance(bar: tqdm) -> safetensors.Progress:
    def advance(done: int, total: int) -> None:
        bar.total = total
        bar.update(done - bar.n)

    return advance


if __name__ == "__main__":
    try:
        main()
    except CheckpointError as error:
        raise SystemExit(f"convert_checkpoint: {error}") from None
