"""Owns what lives on the device: leaves, pages and compiled steps. A plan goes in, token ids come out."""

import concurrent.futures
from collections.abc import Callable

import jax
import numpy as np
from jax.sharding import Mesh

from g4jax.cache.paged import Pages
from g4jax.engine.batch import pack_decode, pack_prefill, pack_sampling, pack_shaping
from g4jax.engine.drawing import Variant, variant_of
from g4jax.engine.programs import Key, Programs, abstract
from g4jax.engine.request import Request
from g4jax.engine.scheduler import DecodePlan, PrefillPlan
from g4jax.engine.steps import Leaves, Step

Progress = Callable[[str, int, int], None]

NOTHING = np.zeros((0,), np.int32)


class Runner:
    """Runs plans. After `compile_all` nothing is compiled any more, whatever is asked."""

    def __init__(self, step: Step, leaves: Leaves, pages: Pages, mesh: Mesh):
        self.step, self.leaves, self.pages = step, leaves, pages
        self.programs = Programs(step, abstract(leaves), abstract(pages), mesh)
        self._compiled: dict[Key, jax.stages.Compiled] = {}

    def compile_all(self, progress: Progress, threads: int) -> None:
        """Compiles every program of `Programs.keys` and runs it, so that the first request meets nothing new."""
        keys = self.programs.keys()
        progress("compiling", 0, len(keys))
        with concurrent.futures.ThreadPoolExecutor(threads) as pool:
            jobs = {pool.submit(self.programs.compile, key): key for key in keys}
            for done, job in enumerate(concurrent.futures.as_completed(jobs)):
                self._compiled[jobs[job]] = job.result()
                progress("compiling", done + 1, len(keys))
        for done, key in enumerate(keys):
            self._warm(key)
            progress("warming up", done + 1, len(keys))

    def prefill(self, plan: PrefillPlan) -> dict[str, int]:
        """Runs prompt pieces; the next token of every request whose piece reaches its end."""
        size, packed = pack_prefill(plan, self.step.shapes)
        logits = self._run(("prefill", size), packed)
        finishing = tuple(piece.request for piece in plan.pieces if piece.finishes)
        if not finishing:
            return {}
        variant = variant_of(finishing)
        requests = tuple(piece.request for piece in plan.pieces)
        drawing = self._drawing(requests, self.step.shapes.prefill_rows, variant)
        tokens = np.asarray(self._program(("draw", variant))(logits, *drawing))
        return {piece.request.id: int(tokens[row]) for row, piece in enumerate(plan.pieces) if piece.finishes}

    def decode(self, plan: DecodePlan) -> list[list[int]]:
        """`plan.steps` tokens of every request, -1 behind its end."""
        size, packed = pack_decode(plan, self.step.shapes)
        variant = variant_of(plan.requests)
        out = self._run(("decode", size, variant), packed, *self._drawing(plan.requests, size, variant))
        return np.asarray(out).T[: len(plan.requests)].tolist()

    def prompt_logits(self, plan: PrefillPlan) -> np.ndarray:
        """Logits `[tokens of the plan, V]` of every packed token. Compiled when first asked for."""
        size, packed = pack_prefill(plan, self.step.shapes)
        return np.asarray(self._run(("score", size), packed))[: plan.num_tokens]

    def token_logits(self, plan: DecodePlan) -> np.ndarray:
        """Logits `[requests, V]` after one token of each through the decode path. Compiled when first asked for."""
        size, packed = pack_decode(plan, self.step.shapes)
        return np.asarray(self._run(("token", size), packed))[: len(plan.requests)]

    def _run(self, key: Key, *inputs: np.ndarray) -> jax.Array:
        """Calls a program that reads and writes the pages."""
        out, self.pages = self._program(key)(self.leaves, self.pages, *inputs)
        return out

    def _program(self, key: Key) -> jax.stages.Compiled:
        if key not in self._compiled:
            self._compiled[key] = self.programs.compile(key)
        return self._compiled[key]

    def _warm(self, key: Key) -> None:
        # A GPU records a program as a graph at its second run: two runs leave nothing for the first request.
        for _ in range(2):
            inputs = [np.zeros(x.shape, x.dtype) for x in self.programs.inputs(key)]
            out = self._program(key)(*inputs) if key[0] == "draw" else self._run(key, *inputs)
            jax.block_until_ready(out)

    def _drawing(self, requests: tuple[Request, ...], rows: int, variant: Variant) -> tuple[np.ndarray, np.ndarray]:
        sampling = NOTHING if variant == "greedy" else pack_sampling(requests, rows)
        shaping = NOTHING if variant != "shaped" else pack_shaping(requests, rows, self.step.shapes.history)
        return sampling, shaping
