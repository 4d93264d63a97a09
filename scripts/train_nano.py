"""Trains the bundled checkpoint `nano` on synthetic tasks and writes it as a Hugging Face folder.

    python -m scripts.train_nano --out g4jax/assets/nano --minutes 8.5
    python -m scripts.train_nano --out g4jax/assets/nano --minutes 8.5 --resume g4jax/assets/nano --seed 1

One GPU and some 16 CPU cores, which draw the pictures and sounds. Prints progress, then the accuracy on
fresh samples, and ends with one JSON line. `--tiny-run` shows on any CPU in a minute or two that everything fits
together; the model stays stupid.
"""

import argparse
import json
import os
from pathlib import Path

TOKENIZER = Path(__file__).parents[1] / "g4jax" / "assets" / "nano" / "tokenizer.json"


def main() -> None:
    # XLA's own Triton products find no tiles for some widths of the towers' gradients.
    os.environ["XLA_FLAGS"] = f"--xla_gpu_enable_triton_gemm=false {os.environ.get('XLA_FLAGS', '')}"

    # Inside, because the data workers import this module again and have no use for jax.
    from scripts.nano.training import Settings, train

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the checkpoint")
    parser.add_argument("--tokenizer", type=Path, default=TOKENIZER, help="tokenizer.json to take over")
    parser.add_argument("--new-tokenizer", action="store_true", help="learn the tokenizer anew (about a minute)")
    parser.add_argument("--minutes", type=float, default=Settings.minutes, help="wall time of the whole run")
    parser.add_argument("--steps", type=int, default=Settings.steps, help="stop earlier after so many steps")
    parser.add_argument("--rows", type=int, default=Settings.rows, help="rows of 512 tokens of text a step")
    parser.add_argument("--media-rows", type=int, default=Settings.media_rows, help="rows about pictures and sounds")
    parser.add_argument("--processes", type=int, default=Settings.processes, help="processes that make samples")
    parser.add_argument("--seed", type=int, default=Settings.seed)
    parser.add_argument("--resume", type=Path, help="folder whose weights the run begins with, at half the rate")
    parser.add_argument("--tiny-run", action="store_true", help="a few small steps, to see that it runs")
    given = vars(parser.parse_args())
    if given.pop("new_tokenizer") or not given["tokenizer"].exists():
        given["tokenizer"] = None
    if given.pop("tiny_run"):
        given |= {"rows": 2, "media_rows": 2, "steps": 5, "processes": 1, "judged": 2, "dtype": "float32"}
    print(json.dumps(train(Settings(**given))))


if __name__ == "__main__":
    main()
