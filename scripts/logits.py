"""Writes the logits of every position of a token list, computed through the paged engine.

    python scripts/logits.py --model DIR --tokens 2,5,7 --output FILE.npy [--dtype float32] [--mesh tp=2] [--chunk 16]

The file holds float32 `[T, V]`. `--chunk N` prefills in pieces of N tokens; with 1 every token after the first goes
through the decode step. `--reference` prints how far they are from those of transformers, where torch is installed.
"""

import argparse

import numpy as np

from g4jax.engine.launch import build_engine
from g4jax.engine.options import EngineOptions
from g4jax.engine.scoring import decode_logits, prompt_logits

PAGE_SIZE = 16


def main() -> None:
    args = parse_args()
    tokens = [int(token) for token in args.tokens.split(",")]
    logits = engine_logits(args.model, tokens, dtype=args.dtype, mesh=args.mesh, chunk=args.chunk)
    np.save(args.output, logits)
    print(f"{args.output}: float32 {logits.shape}")
    if args.reference:
        report(logits, reference_logits(args.model, tokens, args.dtype))


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="checkpoint folder")
    parser.add_argument("--tokens", required=True, help="token ids, separated by commas")
    parser.add_argument("--output", required=True, help=".npy file to write")
    parser.add_argument("--dtype", default="float32", choices=("auto", "float32", "bfloat16"))
    parser.add_argument("--mesh", default="tp=1")
    parser.add_argument("--chunk", type=int, default=512, help="tokens of one prefill piece; 1: decode steps")
    parser.add_argument("--reference", action="store_true", help="compare with transformers")
    return parser.parse_args()


def engine_logits(model: str, tokens: list[int], *, dtype: str, mesh: str, chunk: int) -> np.ndarray:
    """Logits `[T, V]` of all positions."""
    options = EngineOptions(
        model=model,
        mesh=mesh,
        dtype=dtype,
        max_batch=1,
        max_model_len=len(tokens) + 1,
        max_prefill_tokens=max(chunk, 2),
        decode_steps=1,
        page_size=PAGE_SIZE,
    )
    engine = build_engine(options, lambda text, done, total: None, compile_ahead=False)
    pieces = decode_logits(engine, tokens) if chunk == 1 else prompt_logits(engine, tokens)
    return np.concatenate([np.asarray(piece, np.float32) for piece in pieces])


def reference_logits(model: str, tokens: list[int], dtype: str) -> np.ndarray:
    """The same from transformers on a CPU."""
    import torch
    from transformers import AutoModelForCausalLM

    kind = torch.bfloat16 if dtype == "bfloat16" else torch.float32
    reference = AutoModelForCausalLM.from_pretrained(model, dtype=kind).eval()
    with torch.no_grad():
        return reference(input_ids=torch.tensor([tokens])).logits[0].float().numpy()


def report(ours: np.ndarray, reference: np.ndarray) -> None:
    difference = np.abs(ours - reference)
    print("position  largest difference  same choice")
    for position, row in enumerate(difference):
        same = ours[position].argmax() == reference[position].argmax()
        print(f"{position:8d}  {row.max():18.3e}  {'yes' if same else 'NO'}")
    print(f"largest difference {difference.max():.3e}, mean {difference.mean():.3e}")


if __name__ == "__main__":
    main()
