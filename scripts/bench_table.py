"""The table of docs/performance.md: for one model after another a server with random weights, its figures over HTTP.

    python -m scripts.bench_table --out runs.jsonl
    python -m scripts.bench_table --out runs.jsonl --models e2b --runs images --repeats 1 --warm

c1: ten requests one after another, 610 tokens in and 422 out. c100: 100 requests at once, lengths uniform from 1 to
1,024; 1,000 requests, of the larger models fewer. c1-sampled and c100-sampled: the same, drawn as the checkpoints ask
for; with -logprobs, -penalties or -guided in place of -sampled also what it says (`WAYS`). images: 200 requests, 100 at
once, two JPEGs of noise (1280 x 720) and 128 tokens of text in, 1,024 out. text and photos: 20 requests alone, up to
the first token, of 657 tokens; those of `photos` are two photographs and text. Every repeat has a seed of its own: the
same prompts would be found in the prefix cache. `--warm` starts each server a second time before it is measured, with
its programs on disk; `--greedy` takes `scripts.greedy_server`, which compiles no others than c1, c100 and text need.

A line of JSON with all that bench_serving tells is written to `--out` as soon as a run has ended, the rows of the table
at the end: the median of the repeats, and the smallest and the largest in brackets.
"""

import argparse
import contextlib
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from g4jax.engine.checkpoint import NANO
from g4jax.testing.byte_tokenizer import byte_tokenizer

ASSETS = NANO.parent
PORT = 30100
START_S = 600
SERVER = ("--load-format", "dummy", "--max-batch", "128", "--max-model-len", "2304", "--port", str(PORT))
MORE = {"31b": ("--mem-fraction-static", "0.93")}
"""What a model needs besides: weights of 61 GB leave little for the cache."""

IMAGES = ("--images", "2", "--input", "116")
SAMPLED = {"temperature": 1.0, "top_k": 64, "top_p": 0.95}
"""As in the releases' generation_config.json."""
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "age": {"type": "integer"},
        "tags": {"type": "array", "items": {"type": "string"}},
    },
    "required": ["name", "age", "tags"],
}
WAYS = {
    "sampled": SAMPLED,
    "logprobs": SAMPLED | {"logprobs": 5},
    "penalties": SAMPLED | {"frequency_penalty": 0.5},
    "guided": SAMPLED | {"guided_json": {"type": "array", "items": PERSON}},
}
"""What requests ask for that are not greedy."""
C1 = ("--requests", "10", "--input", "610", "--output", "422")
C100 = ("--concurrency", "100", "--input", "1024", "--output", "1024", "--range-ratio", "0")
RUNS = {
    "c1": C1,
    "c100": C100,
    **{f"c1-{way}": (*C1, "--extra-request-body", json.dumps(body)) for way, body in WAYS.items()},
    **{f"c100-{way}": (*C100, "--extra-request-body", json.dumps(body)) for way, body in WAYS.items()},
    "images": ("--requests", "200", "--concurrency", "100", *IMAGES, "--output", "1024"),
    "text": ("--requests", "20", "--input", "657", "--output", "8"),
    "photos": ("--requests", "20", *IMAGES, "--image-content", "photo", "--output", "1"),
}
C100_REQUESTS = {"26b-a4b": 600, "31b": 300}
"""Else 1,000, as in SGLang's published figures: at the end of a run ever fewer are under way, a large part of a short
one. Of these models so many would take minutes."""
TOLD = {
    "c1": ("ttft_ms_p50", "tpot_ms_p50"),
    "c100": ("output_throughput", "tpot_ms_p50"),
    "images": ("output_throughput",),
    "text": ("ttft_ms_p50",),
    "photos": ("ttft_ms_p50",),
}
"""The figures of the table, by the first word of a run's name."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="e2b,e4b,26b-a4b,31b", help="names under g4jax/assets/configs")
    parser.add_argument("--runs", default="c1,c100", help=f"of {', '.join(RUNS)}")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--warm", action="store_true", help="start twice, and measure the second server")
    parser.add_argument("--greedy", action="store_true", help="servers with the programs of greedy requests of text")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    told = []
    with args.out.open("a") as out:
        for model in args.models.split(","):
            for line in measure(model, args.runs.split(","), args.repeats, args.warm, args.greedy):
                print(json.dumps(line), file=out, flush=True)
                told.append(line)
    print("\n".join(table(told)))


def measure(model: str, runs: list[str], repeats: int, warm: bool, greedy: bool) -> Iterator[dict]:
    with tempfile.TemporaryDirectory() as folder:
        write_model(model, Path(folder))
        if warm:
            with server(model, folder, greedy) as ready_s:
                yield {"model": model, "run": "start", "ready_s": ready_s}
        with server(model, folder, greedy) as ready_s:
            yield {"model": model, "run": "warm start" if warm else "start", "ready_s": ready_s}
            for run in runs:
                for seed in range(repeats):
                    seed += 10 * list(RUNS).index(run)
                    yield {"run": run, "seed": seed, **bench(model, run, seed), "model": model}


def write_model(model: str, folder: Path) -> None:
    """A checkpoint without weights, whose 262,144 tokens are bytes and a few words."""
    byte_tokenizer(folder, vocab_size=262_144)
    shutil.copy(ASSETS / "configs" / f"{model}.json", folder / "config.json")
    shutil.copy(NANO / "chat_template.jinja", folder)


@contextlib.contextmanager
def server(model: str, folder: str, greedy: bool) -> Iterator[float]:
    """A server that is ready, and the seconds it took."""
    started = time.perf_counter()
    module = "scripts.greedy_server" if greedy else "g4jax.server"
    command = [sys.executable, "-m", module, "--model", folder, *SERVER, *MORE.get(model, ())]
    with subprocess.Popen(command) as process:
        try:
            wait_until_ready(process)
            yield time.perf_counter() - started
        finally:
            process.terminate()


def wait_until_ready(process: subprocess.Popen) -> None:
    for _ in range(2 * START_S):
        with contextlib.suppress(urllib.error.URLError):
            urllib.request.urlopen(f"http://127.0.0.1:{PORT}/health")
            return
        if process.poll() is not None:
            raise SystemExit(f"the server ended with {process.returncode}")
        time.sleep(0.5)
    raise SystemExit(f"the server was not ready after {START_S} s")


def bench(model: str, run: str, seed: int) -> dict:
    script = Path(__file__).with_name("bench_serving.py")
    more = ["--base-url", f"http://127.0.0.1:{PORT}", "--seed", str(seed)]
    if run.startswith("c100"):
        more += ["--requests", str(C100_REQUESTS.get(model, 1000))]
    told = subprocess.run([sys.executable, script, *RUNS[run], *more], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(told.stdout.splitlines()[-1])


def table(lines: list[dict]) -> Iterator[str]:
    yield "| model | run | figure | median (range) |\n|---|---|---|---|"
    for model, run in dict.fromkeys((line["model"], line["run"]) for line in lines):
        mine = [line for line in lines if (line["model"], line["run"]) == (model, run)]
        for figure in TOLD.get(run.split("-")[0], ("ready_s",)):
            values = [line[figure] for line in mine]
            spread = f" ({min(values):,.2f} to {max(values):,.2f})" if len(values) > 1 else ""
            yield f"| {model} | {run} | {figure} | {statistics.median(values):,.2f}{spread} |"


if __name__ == "__main__":
    main()
