"""Owns what lives on the device: leaves, pages and compiled steps. A plan goes in, token ids come out."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from g4jax.cache.paged import Pages
from g4jax.engine.batch import Slots, bucket, pack_decode, pack_prefill, pack_score
from g4jax.engine.buffer_room import make_room
from g4jax.engine.compiling import Progress, compile_programs
from g4jax.engine.draw_inputs import DrawInputs, Variant, draw_inputs, variant_of
from g4jax.engine.encoder_runner import EncoderRunner
from g4jax.engine.encoding import Encoding
from g4jax.engine.plan import DecodePlan, DecodeResult, MixedPlan, MixedResult, PrefillPlan, PrefillResult
from g4jax.engine.program_store import ProgramStore
from g4jax.engine.programs import ENCODERS, Key, Programs, abstract
from g4jax.engine.report import drawn_logprobs, prompt_logprobs
from g4jax.engine.request import Request
from g4jax.engine.steps import Leaves, Step, UsedLeaves
from g4jax.sharding import named_sharding


class Runner:
    """Runs plans. After `compile_all` nothing is compiled any more, whatever is asked."""

    def __init__(
        self,
        step: Step,
        leaves: Leaves,
        pages: Pages,
        mesh: Mesh,
        encoding: Encoding | None = None,
        encoder_leaves: Leaves = (),
    ):
        self.step, self.leaves, self.pages = step, leaves, pages
        self.programs = Programs(step, abstract(leaves), abstract(pages), mesh, encoding, abstract(encoder_leaves))
        self.encoder = None if encoding is None else self._encoder(encoding, encoder_leaves)
        self.compiled: dict[Key, jax.stages.Compiled] = {}
        self._leaves_of: dict[Key, UsedLeaves] = {}
        self._zeros: dict[int, jax.Array] = {}
        self._wall: jax.Array | None = None
        # Where the last decode and the last prefill launch leave their tokens for the next decode launch.
        self._last = self._resident_zeros(step.shapes.decode_rows[-1])
        self._drawn = self._resident_zeros(step.shapes.prefill_rows)

    def compile_all(self, progress: Progress, threads: int, store: ProgramStore | None = None) -> None:
        """Makes every program of `Programs.keys`."""
        self.compiled |= compile_programs(self.programs, progress, threads=threads, store=store)
        self._wall = make_room(self.programs, named_sharding(self.programs.mesh, ()))

    def warm_up(self, progress: Progress) -> None:
        """Runs every program twice: a GPU records one as a graph at its second run, so the first request meets nothing
        new."""
        for done, key in enumerate(self.compiled):
            for _ in range(2):
                jax.block_until_ready(self._run_on_zeros(key))
            progress("warming up", done + 1, len(self.compiled))

    def start(self, plan: PrefillPlan | DecodePlan | MixedPlan) -> Callable[[], Any]:
        """Launches a plan; what is returned waits for the result of its kind. Launches run in order."""
        match plan:
            case PrefillPlan():
                return self._start_prefill(plan)
            case DecodePlan():
                return self._start_decode(plan)
            case MixedPlan():
                return self._start_mixed(plan)

    def _start_prefill(self, plan: PrefillPlan) -> Callable[[], PrefillResult]:
        """Runs prompt pieces; draws the next token of every request whose piece reaches its end."""
        logits, scores = self._prompts(plan)
        requests = tuple(piece.request for piece in plan.pieces)
        finishing = [piece.request for piece in plan.pieces if piece.finishes]
        tokens, report = None, ()
        if finishing:
            variant = variant_of(finishing)
            # Guides are asked for their masks here, while the device is busy with the prompts.
            drawn = [int(piece.finishes) for piece in plan.pieces]
            inputs = self._drawing(requests, drawn, self.step.shapes.prefill_rows, variant)
            tokens, report = self._program(("draw", variant))(logits, inputs)
            self._drawn = tokens

        return lambda: _prefill_result(plan, tokens, report, scores)

    def _start_decode(self, plan: DecodePlan) -> Callable[[], DecodeResult]:
        """`plan.steps` tokens of every request, -1 behind its end."""
        variant = variant_of(plan.requests)
        size = bucket(self.programs.rows_of(variant), len(plan.requests))
        inputs = self._drawing(plan.requests, plan.budgets, size, variant)
        packed = pack_decode(plan, self.step.shapes, size)
        out, report, self._last = self._run(("decode", size, variant), packed, inputs, self._last, self._drawn)
        return lambda: _decode_result(plan, out, report)

    def _start_mixed(self, plan: MixedPlan) -> Callable[[], MixedResult]:
        """One token of those that decode, and what `_start_prefill` does for the prompts, in one launch."""
        shapes, prefill, decode = self.step.shapes, plan.prefill, plan.decode
        requests, slots = tuple(piece.request for piece in prefill.pieces), self._encode(prefill)
        size, variant = bucket(shapes.mixed_tokens, prefill.num_tokens), variant_of((*requests, *decode.requests))
        drawn = [int(piece.finishes) for piece in prefill.pieces]
        out, tokens, self._last = self._run(
            ("mixed", size, variant),
            pack_prefill(prefill, shapes, size, slots),
            self._drawing(requests, drawn, shapes.prefill_rows, variant),
            pack_decode(decode, shapes, shapes.decode_rows[-1]),
            self._drawing(decode.requests, decode.budgets, shapes.decode_rows[-1], variant),
            self._last,
            self._drawn,
            *self._store(),
        )
        self._drawn = tokens
        return lambda: MixedResult(_prefill_result(prefill, tokens), _decode_result(decode, out))

    def prompt_logits(self, plan: PrefillPlan) -> np.ndarray:
        """Logits `[tokens of the plan, V]` of every packed token. Compiled when first asked for."""
        size, packed = self._packed(plan)
        return np.asarray(self._run(("logits", size), packed, *self._store()))[: plan.num_tokens]

    def token_logits(self, plan: DecodePlan) -> np.ndarray:
        """Logits `[requests, V]` after one token of each through the decode path. Compiled when first asked for."""
        size = bucket(self.step.shapes.decode_rows, len(plan.requests))
        packed = pack_decode(plan, self.step.shapes, size)
        return np.asarray(self._run(("token", size), packed))[: len(plan.requests)]

    def _prompts(self, plan: PrefillPlan) -> tuple[jax.Array, Any]:
        """Logits of each piece's last token, and the scores of a scored plan."""
        if plan.scored:
            packed = pack_score(plan, self.step.shapes, self._encode(plan))
            return self._run(("score", self.step.shapes.score_tokens), packed, *self._store())
        size, packed = self._packed(plan)
        # Sent once, for both programs.
        packed = jax.device_put(packed, named_sharding(self.programs.mesh, ()))
        stream = self._run(("enter", size), packed, *self._store())
        return self._run(("prefill", size), packed, stream), ()

    def _packed(self, plan: PrefillPlan) -> tuple[int, np.ndarray]:
        """The bucket of a packed prompt, and its input."""
        size = bucket(self.step.shapes.prefill_tokens, plan.num_tokens)
        return size, pack_prefill(plan, self.step.shapes, size, self._encode(plan))

    def _encode(self, plan: PrefillPlan) -> Slots:
        """Launches what of the plan's images and sounds has no soft tokens yet."""
        return {} if self.encoder is None else self.encoder.encode(plan)

    def _store(self) -> tuple[jax.Array, ...]:
        return () if self.encoder is None else (self.encoder.store,)

    def _encoder(self, encoding: Encoding, leaves: Leaves) -> EncoderRunner:
        store = self.programs.store()
        zeros = jnp.zeros(store.shape, store.dtype, device=store.sharding)
        return EncoderRunner(encoding, leaves, zeros, self._program)

    def _run(self, key: Key, *inputs: Any) -> Any:
        """Calls a program that reads and writes the pages."""
        if key not in self._leaves_of:
            self._leaves_of[key] = self.programs.leaves_of(key, self.leaves)
        out, pages = self._program(key)(self._leaves_of[key], self.programs.pages_of(key, self.pages), *inputs)
        self.pages = self.pages | pages
        return out

    def _program(self, key: Key) -> jax.stages.Compiled:
        if key not in self.compiled:
            self.compiled[key] = self.programs.compile(key)
        return self.compiled[key]

    def _run_on_zeros(self, key: Key) -> Any:
        inputs = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), self.programs.inputs(key))
        if key[0] == "draw":
            return self._program(key)(*inputs)
        if key[0] in ENCODERS:
            assert self.encoder is not None
            return self.encoder.run(key, *inputs)
        return self._run(key, *inputs)

    def _drawing(self, requests: Sequence[Request], drawn: Sequence[int], rows: int, variant: Variant) -> DrawInputs:
        """What is needed to draw; the device's own zeros where no request has a bias or a penalty."""
        shapes, vocab_size = self.step.shapes, self.step.vocab_size
        return draw_inputs(requests, drawn, rows, variant, shapes, vocab_size, self._resident_zeros)

    def _resident_zeros(self, size: int) -> jax.Array:
        """Zeros that lie on the device, for inputs that are all padding."""
        if size not in self._zeros:
            self._zeros[size] = jax.device_put(np.zeros(size, np.int32), named_sharding(self.programs.mesh, ()))
        return self._zeros[size]


def _prefill_result(plan: PrefillPlan, tokens: Any, report: Any = (), scores: Any = ()) -> PrefillResult:
    """Waits for what was drawn (`tokens`: None for nothing) and told of the prompts."""
    told = PrefillResult({}, {}, prompt_logprobs(plan, scores))
    if tokens is not None:
        drawn, logprobs = np.asarray(tokens), drawn_logprobs([piece.request for piece in plan.pieces], report)
        for row, piece in enumerate(plan.pieces):
            if piece.finishes:
                told.tokens[piece.request.id] = int(drawn[row])
                told.logprobs[piece.request.id] = logprobs[row]
    return told


def _decode_result(plan: DecodePlan, out: Any, report: Any = ()) -> DecodeResult:
    """Waits for the tokens `[steps, rows]`."""
    tokens = np.asarray(out).T[: len(plan.requests)].tolist()
    return DecodeResult(tokens, drawn_logprobs(plan.requests, report))
