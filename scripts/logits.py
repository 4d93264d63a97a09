"""Writes the logits of every position of a token list, computed through the paged engine.

    python scripts/logits.py --model DIR --tokens 2,5,7 --output FILE.npy [--dtype float32] [--mesh tp=2] [--chunk 16]
    python scripts/logits.py --model DIR --tokens 2,255999,258880,258880,258882,5 --image cat.png --output FILE.npy

The file holds float32 `[T, V]`. `--chunk N` prefills in pieces of N tokens; with 1 every token after the first goes
through the decode step. Media fill the placeholders among the tokens, those of a kind in the order given; the token
list holds as many placeholders as the media have soft tokens. `--reference` prints how far the logits are from those
of transformers, where torch is installed.
"""

import argparse
from pathlib import Path

import numpy as np

from g4jax.config import Gemma4Config
from g4jax.engine.launch import build_engine
from g4jax.engine.options import EngineOptions
from g4jax.engine.scoring import decode_logits, prompt_logits
from g4jax.media.inputs import MediaKind, Medium, PlacedInput
from g4jax.media.processor import MediaProcessor
from g4jax.testing.reference_logits import reference_logits

PAGE_SIZE = 16
KINDS: tuple[MediaKind, ...] = ("image", "audio", "video")


def main() -> None:
    args = parse_args()
    tokens = [int(token) for token in args.tokens.split(",")]
    media = read_media(args)
    try:
        placed = place(tokens, media, Gemma4Config.from_folder(args.model))
    except ValueError as error:
        raise SystemExit(f"logits: {error}") from None
    logits = engine_logits(args.model, tokens, placed, dtype=args.dtype, mesh=args.mesh, chunk=args.chunk)
    np.save(args.output, logits)
    print(f"{args.output}: float32 {logits.shape}")
    if args.reference:
        report(logits, reference_logits(args.model, tokens, placed, args.dtype))


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="checkpoint folder")
    parser.add_argument("--tokens", required=True, help="token ids, separated by commas")
    parser.add_argument("--output", required=True, help=".npy file to write")
    parser.add_argument("--dtype", default="float32", choices=("auto", "float32", "bfloat16"))
    parser.add_argument("--mesh", default="tp=1")
    parser.add_argument("--chunk", type=int, default=512, help="tokens of one prefill piece; 1: decode steps")
    for kind in KINDS:
        parser.add_argument(f"--{kind}", action="append", default=[], metavar="FILE", help="repeatable, in order")
    parser.add_argument("--max-soft-tokens", type=int, help="of each image and each frame of a video")
    parser.add_argument("--reference", action="store_true", help="compare with transformers")
    return parser.parse_args()


def read_media(args: argparse.Namespace) -> list[Medium]:
    """In the order of `KINDS`, each kind in the order given."""
    processor = MediaProcessor.from_folder(args.model, Gemma4Config.from_folder(args.model))
    files = [(kind, Path(file)) for kind in KINDS for file in getattr(args, kind)]
    return [processor.load(kind, file, args.max_soft_tokens) for kind, file in files]


def place(tokens: list[int], media: list[Medium], config: Gemma4Config) -> tuple[PlacedInput, ...]:
    """The inputs of the media on the runs of placeholders of their kind.

    Raises:
        ValueError: there are more or fewer placeholders than soft tokens.
    """
    placed: list[PlacedInput] = []
    for kind in KINDS:
        token = getattr(config, f"{kind}_token_id")
        places = [place for place, given in enumerate(tokens) if given == token]
        inputs = [piece for medium in media if medium.kind == kind for piece in medium.inputs]
        wanted = sum(piece.num_tokens for piece in inputs)
        if wanted != len(places):
            counts = ", ".join(str(piece.num_tokens) for piece in inputs) or "none"
            raise ValueError(
                f"{len(places)} tokens are {kind} placeholders ({token}), the media need {wanted} ({counts})"
            )
        for piece in inputs:
            placed.append(PlacedInput(places[0], piece))
            places = places[piece.num_tokens :]
    return tuple(sorted(placed, key=lambda each: each.start))


def engine_logits(
    model: str, tokens: list[int], media: tuple[PlacedInput, ...], *, dtype: str, mesh: str, chunk: int
) -> np.ndarray:
    """Logits `[T, V]` of all positions. The tokens up to the last medium are prefilled, whatever `chunk` is."""
    longest = max((placed.input.num_tokens for placed in media), default=0)
    options = EngineOptions(
        model=model,
        mesh=mesh,
        dtype=dtype,
        max_batch=1,
        max_model_len=len(tokens) + 1,
        max_prefill_tokens=min(max(chunk, 2, longest), len(tokens) + 1),
        decode_steps=1,
        page_size=PAGE_SIZE,
    )
    engine = build_engine(options, lambda text, done, total: None, compile_ahead=False)
    prefilled = media[-1].end if media else 1
    pieces = decode_logits(engine, tokens, prefilled, media) if chunk == 1 else prompt_logits(engine, tokens, media)
    return np.concatenate([np.asarray(piece, np.float32) for piece in pieces])


def report(ours: np.ndarray, reference: np.ndarray) -> None:
    difference = np.abs(ours - reference)
    print("position  largest difference  same choice")
    for position, row in enumerate(difference):
        same = ours[position].argmax() == reference[position].argmax()
        print(f"{position:8d}  {row.max():18.3e}  {'yes' if same else 'NO'}")
    print(f"largest difference {difference.max():.3e}, mean {difference.mean():.3e}")


if __name__ == "__main__":
    main()
