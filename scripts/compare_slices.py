"""How far g4jax's bfloat16 is from exact on the real models' widths, measured against what transformers' bfloat16 is.

    python scripts/compare_slices.py [--configs e2b,26b-a4b] [--sequences 104]    on a GPU, with torch and transformers
    python scripts/compare_slices.py --device cpu --tiny              anywhere: tiny configs, float32, reference kernels

Of each real config a slice is made: a sliding and a full layer of the real widths, the window cut to 128, the
vocabulary to 32768; of e2b and e4b a second one, of two such pairs the later of which is KV-shared (and double-wide in
e2b). Its random weights are written as a checkpoint, which g4jax then reads. The logits of 300 random tokens are
computed by transformers in float32 (the truth), by transformers in bfloat16 (eager attention), and by the paged engine:
260 tokens prefilled in pieces of 100, the rest decoded one by one. With `--sequences` so many are computed: packed in
launches of 2,000 tokens, and decoded together, which takes other kernels than one sequence does.

The rule: a slice passes when g4jax's rms error over all positions is at most 1.25 times that of transformers in
bfloat16, and so is its typical error, of the prefilled and of the decoded positions each. `typical` is the median over
positions of their rms error: the choice of an expert flips at a near-tie in any bfloat16, and among 40 positions one
flip more or less would decide the rms. `choice` is the share of positions where the largest logit is the truth's. The
last line is one JSON object; the exit status is 1 unless all pass.
"""

import argparse
import gc
import json
import os
import re
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any, get_args

import jax
import numpy as np
import torch
import transformers
from safetensors.torch import save_file

from g4jax.engine.launch import build_engine
from g4jax.engine.options import EngineOptions
from g4jax.engine.scoring import batch_logits
from g4jax.testing.checkpoints import RELEASE_PREFIX, tensor_shapes
from g4jax.testing.configs import Variant, tiny
from pallas_kernels.core import Implementation

CONFIGS = Path(__file__).parents[1] / "g4jax" / "assets" / "configs"
MODELS: tuple[Variant, ...] = ("e2b", "e4b", "31b", "26b-a4b")
PAIR = ["sliding_attention", "full_attention"]
VOCAB, WINDOW = 32768, 128
TOKENS, PREFILLED, PIECE = 300, 260, 100
"""Pieces begin and end inside pages and windows, and the window ends inside a piece."""
PARTS = {"all": slice(None), "prefill": slice(PREFILLED), "decode": slice(PREFILLED, None)}
BUCKET = 256
MANY_PIECE, MANY_BUCKET = 2000, 2048
"""Of several sequences together."""
TORCH_BATCH = 8
ALLOWED = 1.25


def main() -> None:
    args = parse_args()
    # Read when XLA's client is made, which nothing has asked for yet: torch needs memory of the same GPU.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    if args.device == "cpu":
        jax.config.update("jax_platforms", "cpu")
    torch.set_float32_matmul_precision("highest")
    print(f"torch {torch.__version__}, transformers {transformers.__version__}, jax {jax.__version__}, {args.dtype}")
    rows = [attempt(name, raw, args) for name, raw in slices(args.configs.split(","), args.tiny)]
    passed = all(row["pass"] for row in rows)
    settings = {"device": jax.devices()[0].device_kind, "dtype": args.dtype, "tiny": args.tiny, "tokens": TOKENS}
    settings["sequences"] = args.sequences
    print(json.dumps({**settings, "prefilled": PREFILLED, "allowed": ALLOWED, "pass": passed, "slices": rows}))
    sys.exit(not passed)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configs", default=",".join(MODELS), help="which, separated by commas")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), help="default: float32 on a CPU, else bfloat16")
    parser.add_argument("--implementation", choices=get_args(Implementation), help="default: triton on a GPU")
    parser.add_argument("--sequences", type=int, default=1, help="how many are computed together")
    parser.add_argument("--tiny", action="store_true", help="tiny configs in place of the real ones")
    args = parser.parse_args()
    if unknown := set(args.configs.split(",")) - set(MODELS):
        parser.error(f"--configs: no such config: {', '.join(sorted(unknown))}; there are {', '.join(MODELS)}")
    args.dtype = args.dtype or ("float32" if args.device == "cpu" else "bfloat16")
    return args


def slices(names: list[Variant], small: bool) -> list[tuple[str, dict[str, Any]]]:
    """Name and config.json of every slice."""
    found = []
    for name in names:
        raw = tiny(name) if small else json.loads((CONFIGS / f"{name}.json").read_text())
        found.append((name, cut(raw, pairs=1, shared=0)))
        if raw["text_config"]["num_kv_shared_layers"]:
            found.append((f"{name}-shared", cut(raw, pairs=2, shared=2)))
    return found


def cut(raw: dict[str, Any], *, pairs: int, shared: int) -> dict[str, Any]:
    """The config of so many (sliding, full) pairs of layers, the last `shared` of which have no keys of their own."""
    text = raw["text_config"]
    changes = {
        "layer_types": PAIR * pairs,
        "num_hidden_layers": 2 * pairs,
        "num_kv_shared_layers": shared,
        "sliding_window": min(text["sliding_window"], WINDOW),
        "vocab_size": min(text["vocab_size"], VOCAB),
        "vocab_size_per_layer_input": min(text["vocab_size_per_layer_input"], VOCAB),
    }
    return raw | {"text_config": text | changes, "vision_config": None, "audio_config": None}


def attempt(name: str, raw: dict[str, Any], args: argparse.Namespace) -> dict[str, Any]:
    """The row of one slice; one that breaks leaves the others their turn."""
    started = time.perf_counter()
    try:
        row = compare(raw, args)
    except Exception as error:
        traceback.print_exc()
        row = {"pass": False, "error": f"{type(error).__name__}: {error}"[:300]}
    release()
    print(f"{name}: {'PASS' if row['pass'] else 'FAIL'} in {time.perf_counter() - started:.1f} s", flush=True)
    return {"slice": name, **row}


def compare(raw: dict[str, Any], args: argparse.Namespace) -> dict[str, Any]:
    text = raw["text_config"]
    ids = np.random.default_rng(0).integers(5, text["vocab_size"] - 16, (args.sequences, TOKENS)).tolist()
    with tempfile.TemporaryDirectory() as folder:
        tensors = random_tensors(text, args.device)
        write(Path(folder), raw, tensors)
        truth = torch_logits(text, tensors, ids, torch.float32)
        theirs = torch_logits(text, tensors, ids, torch.bfloat16)
        del tensors
        release()
        ours = engine_logits(folder, ids, args.dtype, args.implementation)
    row = {"truth_std": float(truth.std())} | judge(theirs, ours, truth)
    report(row)
    return row


def judge(theirs: np.ndarray, ours: np.ndarray, truth: np.ndarray) -> dict[str, Any]:
    """The errors of either over each part of the positions, and whether the rule holds."""
    row: dict[str, Any] = {}
    passed = True
    for part, of in PARTS.items():
        expected = row[f"transformers {part}"] = errors(theirs[:, of], truth[:, of])
        found = row[f"g4jax {part}"] = errors(ours[:, of], truth[:, of])
        measure = "rms" if part == "all" else "typical"
        passed &= found[measure] <= ALLOWED * expected[measure]
    return row | {"pass": passed}


def random_tensors(text: dict[str, Any], device: str) -> dict[str, torch.Tensor]:
    """The decoder's tensors in bfloat16, by their names without the prefix."""
    generator = torch.Generator(device).manual_seed(0)
    return {name: random(generator, name, shape, text) for name, shape in tensor_shapes(text).items()}


def random(generator: torch.Generator, name: str, shape: tuple[int, ...], text: dict[str, Any]) -> torch.Tensor:
    """Weights with which activations stay near 1, as `g4jax.weights.dummy` has them."""
    values = torch.randn(shape, generator=generator, device=generator.device)
    if re.search(r"post_\w*norm", name):
        values = 0.3 + 0.03 * values
    elif name.endswith("q_norm.weight"):
        values = (1 + 0.1 * values) * 2 * shape[-1] ** -0.5
    elif len(shape) == 1:
        values = 1 + 0.1 * values
    elif not name.endswith("router.proj.weight"):
        per_layer = name.startswith("embed_tokens_per_layer")
        values *= (text["hidden_size_per_layer_input"] if per_layer else shape[-1]) ** -0.5
    return values.to(torch.bfloat16)


def write(folder: Path, raw: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
    (folder / "config.json").write_text(json.dumps(raw))
    save_file({RELEASE_PREFIX + name: tensor for name, tensor in tensors.items()}, folder / "model.safetensors")


def torch_logits(
    text: dict[str, Any], tensors: dict[str, torch.Tensor], ids: list[list[int]], dtype: torch.dtype
) -> np.ndarray:
    """Logits `[B, T, V]` of transformers, in float32 whatever they were computed in."""
    settings: dict[str, Any] = {"dtype": dtype, "attn_implementation": "eager"}
    if text["enable_moe_block"]:
        settings["experts_implementation"] = "eager"
    config = transformers.Gemma4TextConfig(**{name: value for name, value in text.items() if name != "model_type"})
    device = tensors["norm.weight"].device
    with torch.device(device), torch.no_grad():
        model = transformers.AutoModelForCausalLM.from_config(config, **settings).eval()
        load(model, tensors)
        batches = torch.tensor(ids).split(TORCH_BATCH)
        return np.concatenate([model(input_ids=batch).logits.float().cpu().numpy() for batch in batches])


def load(model: torch.nn.Module, tensors: dict[str, torch.Tensor]) -> None:
    missing, unexpected = model.load_state_dict({f"model.{name}": x for name, x in tensors.items()}, strict=False)
    # Keys of KV-shared layers, which checkpoints hold and nobody reads.
    unused = [name for name in unexpected if "self_attn" not in name]
    if unused or set(missing) - {"lm_head.weight"}:
        raise ValueError(f"transformers has no {unused} and misses {missing}")


def engine_logits(folder: str, ids: list[list[int]], dtype: Any, implementation: Implementation | None) -> np.ndarray:
    """Logits `[B, T, V]` of the paged engine."""
    alone = len(ids) == 1
    options = EngineOptions(
        model=folder,
        dtype=dtype,
        max_batch=len(ids),
        max_model_len=TOKENS + 1 if alone else MANY_BUCKET,  # no launch is larger
        max_prefill_tokens=BUCKET if alone else MANY_BUCKET,
        decode_steps=1,
    )
    quiet = lambda text, done, total: None  # noqa: E731
    engine = build_engine(options, quiet, implementation=implementation, compile_ahead=False)
    # Pieces smaller than the bucket: the programs are those of serving, with padding.
    engine.scheduler.max_prefill_tokens, engine.scheduler.mixes_from = PIECE if alone else MANY_PIECE, 0
    return np.stack(batch_logits(engine, ids, PREFILLED)).astype(np.float32)


def errors(logits: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    squares = np.square(logits - truth).mean(-1)
    return {
        "max": float(np.abs(logits - truth).max()),
        "rms": float(np.sqrt(squares.mean())),
        "typical": float(np.sqrt(np.median(squares))),
        "choice": float((logits.argmax(-1) == truth.argmax(-1)).mean()),
    }


def report(row: dict[str, Any]) -> None:
    print(f"logits have std {row['truth_std']:.3f}")
    print("                            max        rms    typical  choice")
    for name, row_errors in row.items():
        if isinstance(row_errors, dict):
            numbers = "  ".join(f"{row_errors[kind]:9.2e}" for kind in ("max", "rms", "typical"))
            print(f"{name:22s}{numbers}  {100 * row_errors['choice']:5.1f}%")


def release() -> None:
    """Gives the memory of dead arrays back to the GPU, for the other library."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
