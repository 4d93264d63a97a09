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
from g4jax.engine.draw_inputs import RICH, DrawInputs, Variant, draw_inputs, variant_of
from g4jax.engine.encoder_runner import EncoderRunner
from g4jax.engine.encoding import Encoding
from g4jax.engine.plan import DecodePlan, DecodeResult, MixedPlan, MixedResult, PrefillPlan, PrefillResult
from g4jax.engine.program_store import ProgramStore
from g4jax.engine.programs import ENCODERS, WITHOUT_LAYERS, Key, Programs, abstract
from g4jax.engine.report import drawn_logprobs, prompt_logprobs
from g4jax.engine.request import Request
from g4jax.engine.said_inputs import said_inputs
from g4jax.engine.steps import Leaves, Step, UsedLeaves
from g4jax.sharding import named_sharding

Wait = Callable[[], Any]
"""Waits for the result of a launch."""


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
        self._walls: list[jax.Array] = []
        # Where the last decode and the last prefill launch leave their tokens for the next decode launch.
        self._last = self._drawn = self._resident_zeros(step.shapes.decode_rows[-1])
        said = self.programs.said()
        self._nothing_said = jnp.zeros(said.shape, said.dtype, device=said.sharding)

    def compile_all(self, progress: Progress, threads: int, store: ProgramStore | None = None) -> None:
        """Makes every program of `Programs.keys`."""
        self.compiled |= compile_programs(self.programs, progress, threads=threads, store=store)
        self._walls = make_room(self.programs, named_sharding(self.programs.mesh, ()))

    def warm_up(self, progress: Progress) -> None:
        """Runs every program twice: a GPU records one as a graph at its second run, so the first request meets nothing
        new."""
        for done, key in enumerate(self.compiled):
            for _ in range(2):
                jax.block_until_ready(self._run_on_zeros(key))
            progress("warming up", done + 1, len(self.compiled))

    def start(self, plan: PrefillPlan | DecodePlan | MixedPlan) -> Callable[[], Wait]:
        """Launches a plan, but for what needs to know every token before; what is returned launches the rest and waits
        for nothing. Launches run in order."""
        match plan:
            case PrefillPlan():
                wait = self._start_prefill(plan)
            case MixedPlan():
                wait = self._start_mixed(plan)
            case DecodePlan(guided=True):
                return self._start_guided(plan)
            case DecodePlan():
                wait = self._start_decode(plan)
        return lambda: wait

    def _start_prefill(self, plan: PrefillPlan) -> Callable[[], PrefillResult]:
        """Runs prompt pieces; draws the next token of every request whose piece reaches its end."""
        logits, scores = self._prompts(plan)
        requests = tuple(piece.request for piece in plan.pieces)
        finishing = [piece.request for piece in plan.pieces if piece.finishes]
        tokens, report = None, ()
        if finishing:
            # Guides are asked for their masks here, while the device is busy with the prompts.
            drawn = [int(piece.finishes) for piece in plan.pieces]
            tokens, report = self._draw(logits, requests, drawn, variant_of(finishing))
            self._drawn = tokens

        return lambda: _prefill_result(plan, tokens, report, scores)

    def _start_decode(self, plan: DecodePlan) -> Callable[[], DecodeResult]:
        """`plan.steps` tokens of every request, -1 behind its end."""
        shapes, variant = self.step.shapes, variant_of(plan.requests)
        size = bucket(shapes.rich_rows if variant in RICH else shapes.decode_rows, len(plan.requests))
        inputs = self._drawing(plan.requests, plan.budgets, size, variant)
        packed, said = pack_decode(plan, shapes, size), self._said(plan.requests, plan.budgets, variant)
        key = "decode", size, variant
        out, report, self._last = self._run(key, packed, inputs, self._last, self._drawn, *said)
        return lambda: _decode_result(plan, out, report)

    def _start_guided(self, plan: DecodePlan) -> Callable[[], Callable[[], DecodeResult]]:
        """One token of every request. The layers run while the tokens before, which a guide must see, come to be known;
        then the rest draws."""
        logits = self._forward(plan)

        def draw() -> Callable[[], DecodeResult]:
            tokens, report = self._draw(logits, plan.requests, plan.budgets, "guided")
            self._last = tokens
            return lambda: _decode_result(plan, np.asarray(tokens)[None], report)

        return draw

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
        """Logits `[requests, V]` after one token of each through the decode path."""
        return np.asarray(self._forward(plan))[: len(plan.requests)]

    def _forward(self, plan: DecodePlan) -> jax.Array:
        """The logits after one token of each request."""
        size = bucket(self.step.shapes.rich_rows, len(plan.requests))
        return self._run(("forward", size), pack_decode(plan, self.step.shapes, size), self._last, self._drawn)

    def _draw(
        self, logits: jax.Array, requests: Sequence[Request], drawn: Sequence[int], variant: Variant
    ) -> tuple[jax.Array, Any]:
        """Tokens from logits, and their report. Every token before these is known."""
        rows = logits.shape[0]
        inputs, said = self._drawing(requests, drawn, rows, variant), self._said(requests, drawn, variant)
        return self._program(("draw", rows, variant))(logits, inputs, *said)

    def _said(self, requests: Sequence[Request], drawn: Sequence[int], variant: Variant) -> tuple[jax.Array, ...]:
        """What a rich batch has said, by those who have penalties."""
        if variant not in RICH:
            return ()
        said = self._nothing_said
        for packed in said_inputs(requests, drawn, said.shape[0]):
            said = self._program(("count",))(said, packed)
        return (said,)

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
        inputs = jax.tree.map(self._zeros_like, self.programs.inputs(key))
        if key[0] in WITHOUT_LAYERS:
            return self._program(key)(*inputs)
        if key[0] in ENCODERS:
            assert self.encoder is not None
            return self.encoder.run(key, *inputs)
        return self._run(key, *inputs)

    def _zeros_like(self, abstract: jax.ShapeDtypeStruct) -> Any:
        """What was said lies on the device already; from the host it would be megabytes for every row."""
        said = self._nothing_said
        is_said = (abstract.shape, abstract.dtype) == (said.shape, said.dtype)
        return said if is_said else np.zeros(abstract.shape, abstract.dtype)

    def _drawing(self, requests: Sequence[Request], drawn: Sequence[int], rows: int, variant: Variant) -> DrawInputs:
        """What is needed to draw; the device's own zeros where no request has a bias or a guide."""
        return draw_inputs(requests, drawn, rows, variant, self.step.vocab_size, self._resident_zeros)

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
