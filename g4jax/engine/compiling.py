"""All programs of an engine, compiled before the first request or taken from disk."""

import concurrent.futures
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import jax

from g4jax.engine.program_store import ProgramStore
from g4jax.engine.programs import Key, Programs
from g4jax.engine.quick_lowering import quick_lowering

Progress = Callable[[str, int, int], None]
Jobs = dict[Key, Future[jax.stages.Compiled]]


def compile_programs(
    programs: Programs, progress: Progress, *, threads: int, store: ProgramStore | None = None
) -> dict[Key, jax.stages.Compiled]:
    """Every program of `programs.keys()`. What is not in `store` is compiled and put there."""
    keys = programs.keys()
    kept = {} if store is None else _load(store, keys, progress, threads)
    missing = [key for key in keys if key not in kept]

    def tell(jobs: Jobs) -> None:
        progress("compiling", len(kept) + sum(job.done() for job in jobs.values()), len(keys))

    made = _compile(programs, missing, tell, threads, store) if missing else {}
    if store is not None:
        store.tidy()
    return kept | made


def _load(store: ProgramStore, keys: Sequence[Key], progress: Progress, threads: int) -> dict[Key, jax.stages.Compiled]:
    loaded = {}
    with ThreadPoolExecutor(threads) as pool:
        for key, program in zip(keys, pool.map(store.load, keys), strict=True):
            if program is not None:
                loaded[key] = program
                progress("loading programs", len(loaded), len(keys))
    return loaded


def _compile(
    programs: Programs, keys: Sequence[Key], tell: Callable[[Jobs], None], threads: int, store: ProgramStore | None
) -> dict[Key, jax.stages.Compiled]:
    def make(key: Key, lowered: jax.stages.Lowered, after: Sequence[Future] = ()) -> jax.stages.Compiled:
        concurrent.futures.wait(after)
        compiled = programs.compile_lowered(key, lowered)
        if store is not None:
            store.save(key, compiled)
        return compiled

    jobs: Jobs = {}
    with quick_lowering(), ThreadPoolExecutor(1) as one, ThreadPoolExecutor(threads) as pool:
        # Lowering is Python: here, one after another, since threads would only fight for the interpreter.
        for key in filter(programs.is_timed, keys):
            jobs[key] = one.submit(make, key, programs.lower(key))
            tell(jobs)
        alone = list(jobs.values())
        for key in keys:
            if key not in jobs:
                jobs[key] = pool.submit(make, key, programs.lower(key), alone)
                tell(jobs)
        for _ in concurrent.futures.as_completed(jobs.values()):
            tell(jobs)
    return {key: job.result() for key, job in jobs.items()}
