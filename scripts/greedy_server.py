"""A server with the programs alone that greedy requests of text need: ready sooner, for measurements (`bench_table`).

    python -m scripts.greedy_server --model DIR --load-format dummy

Takes the flags of `python -m g4jax.server`. Another request compiles its program when it comes, and all wait for it.
"""

import sys

from g4jax.engine.engine import Engine
from g4jax.engine.options import EngineOptions
from g4jax.engine.programs import Key, Programs
from server.cli import main
from server.engine_process import ReportProgress, build_engine

every_key = Programs.keys


def greedy_keys(programs: Programs) -> list[Key]:
    return [key for key in every_key(programs) if key[0] in ("enter", "prefill") or key[-1] == "greedy"]


def build(options: EngineOptions, progress: ReportProgress) -> Engine:
    """Runs in the engine's process."""
    Programs.keys = greedy_keys
    return build_engine(options, progress)


if __name__ == "__main__":
    sys.exit(main(build=build))
