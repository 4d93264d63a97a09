"""Decode speed of the engine with random weights of a real model's shapes.

    python scripts/bench_decode.py --config e2b [--batch 1,8,32,100] [--context 1000] [--sampled]

For each batch size: that many prompts of `--context` tokens are prefilled, then decode calls are timed as serving
makes them, scheduling and transfers included. Prints milliseconds per step, tokens/s, GB/s of weights and cache, and
the share of the memory limit (every byte read once at the GPU's bandwidth); the last line is one JSON object.
"""

import argparse
import dataclasses
import json
import statistics
import time
from pathlib import Path

import jax
import numpy as np

from g4jax.config import Gemma4Config
from g4jax.engine.engine import Engine
from g4jax.engine.launch import assemble
from g4jax.engine.options import EngineOptions
from g4jax.engine.plan import DecodePlan, DecodeResult
from g4jax.engine.request import Request
from g4jax.sample.params import SamplingParams
from g4jax.weights.cost import decode_cache_bytes, decode_weight_bytes
from g4jax.weights.dummy import dummy

CONFIGS = Path(__file__).parents[1] / "g4jax" / "assets" / "configs"
BANDWIDTH = {"H200": 4.8e12, "H100": 3.35e12, "MI300X": 5.3e12}
"""Bytes per second by the vendors' data sheets."""
WARM_CALLS, TIMED_CALLS = 3, 8
GREEDY = SamplingParams(temperature=0.0, ignore_eos=True)
SAMPLED = SamplingParams(temperature=1.0, top_k=64, top_p=0.95, ignore_eos=True)
"""As in the releases' generation_config.json."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="e2b", help="a name under g4jax/assets/configs")
    parser.add_argument("--batch", default="1,8,32,100")
    parser.add_argument("--context", type=int, default=1000)
    parser.add_argument("--sampled", action="store_true", help="draw as the checkpoints ask for, not greedily")
    parser.add_argument("--mesh", default="tp=1")
    args = parser.parse_args()
    batches = [int(batch) for batch in args.batch.split(",")]
    config = Gemma4Config.from_dict(json.loads((CONFIGS / f"{args.config}.json").read_text()))
    engine = build(config, args, max(batches))
    print(f"{args.config} on {jax.devices()[0].device_kind}, {args.mesh}, context {args.context}")
    print("batch  ms/step  spread   tok/s   GB/s  % of limit")
    drawing = SAMPLED if args.sampled else GREEDY
    rows = [measure(engine, config, batch, args.context, drawing) for batch in batches]
    print(json.dumps({"config": args.config, "device": jax.devices()[0].device_kind, "rows": rows}))


def build(config: Gemma4Config, args: argparse.Namespace, max_batch: int) -> Engine:
    started = time.perf_counter()
    steps = 32
    options = EngineOptions(
        model=args.config,
        mesh=args.mesh,
        load_format="dummy",
        max_batch=max_batch,
        max_model_len=args.context + steps * (WARM_CALLS + TIMED_CALLS + 2),
        decode_steps=steps,
    )

    def load(mesh, dtype):
        leaves = jax.block_until_ready(dummy(config.text, mesh, dtype))
        print(f"random weights in {time.perf_counter() - started:.1f} s", flush=True)
        return leaves

    return assemble(config, options, load, compile_ahead=False)


def measure(
    engine: Engine, config: Gemma4Config, batch: int, context: int, drawing: SamplingParams
) -> dict[str, float]:
    """Median of the timed decode calls of `batch` rows."""
    steps = engine.scheduler.decode_steps
    rng = np.random.default_rng(batch)
    params = dataclasses.replace(drawing, max_tokens=steps * (WARM_CALLS + TIMED_CALLS + 1))
    for row in range(batch):
        prompt = rng.integers(0, config.text.vocab_size, context).tolist()
        engine.add_request(Request(f"{batch}-{row}", prompt, params))
    times = [seconds for seconds in decode_calls(engine, batch)][WARM_CALLS : WARM_CALLS + TIMED_CALLS]
    ms = 1e3 * statistics.median(times) / steps
    spread = 1e3 * (max(times) - min(times)) / steps
    read = decode_weight_bytes(config.text, batch) + batch * decode_cache_bytes(config.text, context)
    rate = read / ms * 1e3
    share = 100 * rate / bandwidth()
    print(
        f"{batch:5d}  {ms:7.3f}  {spread:6.3f}  {batch / ms * 1e3:6.0f}  {rate / 1e9:5.0f}  {share:10.1f}", flush=True
    )
    return {"batch": batch, "ms_per_step": ms, "spread_ms": spread, "gb_per_s": rate / 1e9, "percent_of_limit": share}


def decode_calls(engine: Engine, batch: int):
    """Seconds of every decode call of the whole batch, one under way while the next is launched; drains the engine."""
    engine.scheduler.mixes_from = 0
    while not _all_decode(engine) or engine.scheduler.stats().running < batch:
        continue
    while engine.has_work:
        started = time.perf_counter()
        engine.step()
        yield time.perf_counter() - started


def _all_decode(engine: Engine) -> bool:
    """Runs the next piece of a prompt. Until all are done nobody decodes: -1 stands for no token."""
    scheduler, plan = engine.scheduler, engine.scheduler.plan()
    if isinstance(plan, DecodePlan):
        scheduler.complete_decode(plan, DecodeResult([[-1] for _ in plan.requests], [[] for _ in plan.requests]))
        return len(plan.requests) == scheduler.stats().running
    if plan is not None:
        scheduler.complete_prefill(plan, engine.runner.start(plan)())
    return False


def bandwidth() -> float:
    kind = jax.devices()[0].device_kind
    return next((rate for name, rate in BANDWIDTH.items() if name in kind), float("nan"))


if __name__ == "__main__":
    main()
