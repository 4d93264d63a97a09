"""Which kernels the steps of a real model's shapes spend their time in.

    python scripts/profile_step.py --config e2b [--batch 8] [--prompt 610] [--images 2] [--join 4] [--top 12]

Serves `--batch` prompts of random tokens (and `--images` images of 1280 x 720 each) with random weights, all prefilled
before the first decodes, and `--join` more while they decode, once to warm up and once under JAX's profiler. Prints for
each program (prefill, decode, mixed, see) the milliseconds of a call and its kernels: launches in a call, microseconds,
share of the call, GB/s of what goes in and out, passed once, and percent of the data sheet's bandwidth. No rate is told
of a kernel that cannot have read all of its operands in its time: it takes a part, as attention does of the pages.
Graphs are off here, because a kernel in one does not say which instruction it comes from; gaps between kernels are not
told. The last line is one JSON object.
"""

import argparse
import collections
import glob
import json
import os
import re
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import jax
import numpy as np
from jax.profiler import ProfileData

from g4jax.config import Gemma4Config
from g4jax.engine.engine import Engine
from g4jax.engine.launch import assemble
from g4jax.engine.options import EngineOptions
from g4jax.engine.request import Request
from g4jax.media.inputs import PlacedInput
from g4jax.media.processor import MediaProcessor
from g4jax.sample.params import SamplingParams
from g4jax.weights.dummy import dummy, dummy_encoders
from pallas_kernels.timing import percent_of_peak
from scripts.bench_decode import CONFIGS, decode_calls
from scripts.instruction_bytes import instruction_bytes

STEPS, CALLS = 8, 4


@dataclass
class Kernel:
    """One HLO instruction's launches: how many, and their seconds."""

    launches: int = 0
    seconds: float = 0.0


@dataclass
class Program:
    """All calls of one compiled program: its kernels by name and HLO instruction."""

    kernels: dict[tuple[str, str], Kernel] = field(default_factory=lambda: collections.defaultdict(Kernel))

    @property
    def calls(self) -> int:
        """Every program has a kernel that is launched once a call."""
        return min(kernel.launches for kernel in self.kernels.values())

    @property
    def seconds(self) -> float:
        return sum(kernel.seconds for kernel in self.kernels.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="e2b", help="a name under g4jax/assets/configs")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--prompt", type=int, default=610, help="tokens of text")
    parser.add_argument("--images", type=int, default=0)
    parser.add_argument("--join", type=int, default=0, help="prompts that come while the others decode")
    parser.add_argument("--top", type=int, default=12, help="kernels to print of a program")
    args = parser.parse_args()
    # Read when the first program is compiled.
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_gpu_enable_command_buffer="
    config = Gemma4Config.from_dict(json.loads((CONFIGS / f"{args.config}.json").read_text()))
    engine = build(config, args)
    serve(engine, config, args, seed=0)
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            serve(engine, config, args, seed=1)
        programs = read_trace(Path(folder))
    print(f"{args.config} on {jax.devices()[0].device_kind}, {vars(args)}")
    texts = [program.as_text() or "" for program in engine.runner.compiled.values()]
    sizes = {text.split()[1].rstrip(","): instruction_bytes(text) for text in texts if text}
    figures = {name: report(name, program, sizes.get(name, {}), args.top) for name, program in programs.items()}
    print(json.dumps({"config": args.config, "device": jax.devices()[0].device_kind, "programs": figures}))


def build(config: Gemma4Config, args: argparse.Namespace) -> Engine:
    options = EngineOptions(
        model=args.config,
        load_format="dummy",
        max_batch=args.batch + args.join,
        max_model_len=args.prompt + 300 * args.images + STEPS * CALLS + 1,
        decode_steps=STEPS,
    )
    return assemble(
        config,
        options,
        lambda mesh, dtype: dummy(config.text, mesh, dtype),
        load_encoders=(lambda mesh, dtype: dummy_encoders(config, mesh, dtype)) if args.images else None,
        compile_ahead=False,
    )


def serve(engine: Engine, config: Gemma4Config, args: argparse.Namespace, *, seed: int) -> None:
    """All prompts to their ends."""
    rng = np.random.default_rng(seed)
    params = SamplingParams(temperature=0.0, ignore_eos=True, max_tokens=STEPS * CALLS + 1)

    def add(rows: range) -> None:
        for row in rows:
            ids, media = prompt(rng, config, args)
            engine.add_request(Request(f"{seed}-{row}", ids, params, media=media))

    add(range(args.batch))
    calls = decode_calls(engine, args.batch)
    next(calls)
    if args.join:
        engine.scheduler.mixes_from = 1
        add(range(args.batch, args.batch + args.join))
    for _ in calls:
        pass


def prompt(
    rng: np.random.Generator, config: Gemma4Config, args: argparse.Namespace
) -> tuple[list[int], tuple[PlacedInput, ...]]:
    """Token ids, images first, and what fills their placeholders."""
    ids, media = [], []
    for _ in range(args.images):
        picture = rng.integers(0, 256, (720, 1280, 3), dtype=np.uint8)
        (seen,) = MediaProcessor(config).image(picture).inputs
        media.append(PlacedInput(len(ids), seen))
        ids += [config.image_token_id] * seen.num_tokens
    return ids + rng.integers(1000, 200_000, args.prompt).tolist(), tuple(media)


def read_trace(folder: Path) -> dict[str, Program]:
    """Every kernel on the first GPU, by the program and the instruction that it comes from."""
    (file,) = glob.glob(str(folder / "**" / "*.xplane.pb"), recursive=True)
    programs: dict[str, Program] = collections.defaultdict(Program)
    plane = ProfileData.from_file(file).find_plane_with_name("/device:GPU:0")
    if plane is None:
        raise SystemExit("the profiler saw no GPU: this script needs one")
    for line in plane.lines:
        if not line.name.startswith("Stream"):
            continue
        for event in line.events:
            stats = dict(event.stats)
            if "hlo_module" not in stats:
                continue
            program = programs[re.sub(r"\(\d+\)$", "", str(stats["hlo_module"]))]
            kernel = program.kernels[event.name, str(stats.get("hlo_op"))]
            kernel.launches += 1
            kernel.seconds += event.duration_ns * 1e-9
    return programs


def report(name: str, program: Program, sizes: dict[str, int], top: int) -> dict[str, object]:
    """Prints a program's kernels, those of one kind together; what it printed."""
    kinds: dict[tuple[str, int], Kernel] = collections.defaultdict(Kernel)
    for (label, instruction), kernel in program.kernels.items():
        kind = kinds[re.sub(r"[._\d]+$", "", label), sizes.get(instruction, 0)]
        kind.launches += kernel.launches
        kind.seconds += kernel.seconds
    calls, seconds = program.calls, program.seconds / program.calls
    launches = sum(kernel.launches for kernel in kinds.values()) // calls
    print(f"{name}: {1e3 * seconds:.3f} ms in {launches} launches, {calls} calls")
    print(f"  {'kernel':40s} {'MB':>8s} {'launches':>8s} {'us each':>8s} {'share %':>8s} {'GB/s':>6s} {'% peak':>6s}")
    rows = [row(*item, calls, seconds) for item in sorted(kinds.items(), key=lambda item: -item[1].seconds)[:top]]
    return {"ms": 1e3 * seconds, "launches": launches, "calls": calls, "kernels": rows}


def row(kind: tuple[str, int], kernel: Kernel, calls: int, seconds: float) -> dict[str, object]:
    """Prints one line; `seconds` are those of a call."""
    name, size = kind
    rate = size * kernel.launches / kernel.seconds / 1e9
    percent = percent_of_peak(rate)
    is_known = percent is not None and 0 < percent <= 100
    figures = {
        "kernel": name,
        "megabytes": size / 1e6,
        "launches": kernel.launches / calls,
        "us": 1e6 * kernel.seconds / kernel.launches,
        "share": 100 * kernel.seconds / calls / seconds,
        "gb_per_s": rate if is_known else None,
        "percent": percent if is_known else None,
    }
    told = f"{rate:6.0f} {percent:6.1f}" if is_known else ""
    print(f"  {name[:40]:40s} {size / 1e6:8.2f} {{launches:8.0f}} {{us:8.2f}} {{share:8.1f}} ".format(**figures) + told)
    return figures


if __name__ == "__main__":
    main()
