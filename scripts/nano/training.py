"""The training run: compile, step until the time is up, judge, write."""

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from scripts.nano import corpus, export, network, tokenizer
from scripts.nano.judging import Judge
from scripts.nano.optimizer import Named, optimizer, rate
from scripts.nano.packing import Encoder, Rows, Workers

PROMPT_WEIGHT = 0.05
BALANCE_WEIGHT = 0.01


@dataclass(frozen=True)
class Settings:
    """`minutes` is the wall time of the whole run; `steps` ends it earlier. A step sees `rows` rows of `length` tokens.

    `tokenizer`: a tokenizer.json to take over; None learns one. `judged`: fresh samples per ability. `resume`: a folder
    whose weights the run begins with, at half the learning rate.
    """

    out: Path
    minutes: float = 8.0
    steps: int = 1_000_000
    seed: int = 0
    rows: int = 64
    length: int = 512
    processes: int = 14
    judged: int = 256
    dtype: str = "bfloat16"
    report_seconds: float = 10.0
    reserve_seconds: float = 60.0
    tokenizer: Path | None = None
    resume: Path | None = None


class Network:
    """The model as a pure function of named parameters."""

    def __init__(self, seed: int):
        model = network.build(seed)
        self.graph, params, self.rest = nnx.split(model, nnx.Param, ...)
        leaves, self.tree = jax.tree_util.tree_flatten_with_path(params)
        self.names = [network.path_name(path) for path, _ in leaves]
        self.params: Named = {name: leaf for name, (_, leaf) in zip(self.names, leaves, strict=True)}

    def logits(self, params: Named, tokens: jax.Array, segments: jax.Array, dtype: Any) -> tuple[jax.Array, jax.Array]:
        leaves = [params[name].astype(dtype) for name in self.names]
        model = nnx.merge(self.graph, jax.tree_util.tree_unflatten(self.tree, leaves), self.rest)
        return network.packed_logits(model, tokens, segments)

    def predict(self, params: Named, tokens: jax.Array, segments: jax.Array, dtype: Any) -> jax.Array:
        """The likeliest next token at every place."""
        return jnp.argmax(self.logits(params, tokens, segments, dtype)[0], axis=-1).astype(jnp.uint16)


def loss(net: Network, dtype: Any, params: Named, rows: Rows) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Cross entropy of the next token, replies counting fully and prompts a little, and the balance of the experts."""
    logits, unevenness = net.logits(params, rows.tokens, rows.segments, dtype)
    following = Rows(*(jnp.pad(x[:, 1:], [(0, 0), (0, 1)]) for x in rows))
    entropy = optax.softmax_cross_entropy_with_integer_labels(logits, following.tokens.astype(jnp.int32))
    replies = following.replies.astype(jnp.float32)
    inside = (following.segments == rows.segments) & (rows.segments > 0)
    weights = inside * (replies + PROMPT_WEIGHT * (1 - replies))
    mean = jnp.sum(entropy * weights) / jnp.sum(weights)
    reply_mean = jnp.sum(entropy * replies) / jnp.sum(replies)
    return mean + BALANCE_WEIGHT * unevenness, {"loss": reply_mean, "unevenness": unevenness}


def make_step(net: Network, transform: optax.GradientTransformation, dtype: Any) -> Callable[..., Any]:
    """The compiled step: (params, state, rows, rate) -> (params, state, metrics). The first two are given up."""

    @partial(jax.jit, donate_argnums=(0, 1))
    def step(params: Named, state: optax.OptState, rows: Rows, factor: jax.Array):
        (_, metrics), gradients = jax.value_and_grad(partial(loss, net, dtype), has_aux=True)(params, rows)
        updates, state = transform.update(gradients, state, params)
        updates = jax.tree.map(lambda update: update * factor, updates)
        return optax.apply_updates(params, updates), state, metrics

    return step


def train(settings: Settings) -> dict[str, Any]:
    """Runs everything and returns what the last JSON line says."""
    began = time.perf_counter()
    folder = settings.out
    folder.mkdir(parents=True, exist_ok=True)
    if settings.tokenizer is not None:
        shutil.copyfile(settings.tokenizer, folder / "tokenizer.json")
    else:
        say(began, "learning the tokenizer")
        tokenizer.train(corpus.texts(settings.seed, 12_000)).save(str(folder / "tokenizer.json"))
    with Workers(
        folder, seed=settings.seed + 1, length=settings.length, rows=settings.rows, processes=settings.processes
    ) as workers:
        run = Run(settings, began, workers)
        run.steps()
    return run.finish()


class Run:
    """One training run: parameters, judge, clock."""

    def __init__(self, settings: Settings, began: float, workers: Workers):
        self.settings, self.began, self.workers = settings, began, workers
        self.net = Network(settings.seed)
        self.params = self.net.params if settings.resume is None else network.load(settings.resume)
        self.peak = 1.0 if settings.resume is None else 0.5
        size = sum(leaf.size for leaf in self.params.values())
        say(began, f"{size:,} parameters on {jax.devices()[0].device_kind}")
        self.transform = optimizer(self.params)
        self.step = make_step(self.net, self.transform, jnp.dtype(settings.dtype))
        self.judge = Judge.draw(
            Encoder(settings.out), per_ability=settings.judged, length=settings.length, multiple=settings.rows
        )
        self.count = 0
        self._compiled: dict[Any, Any] = {}

    def steps(self) -> None:
        """Steps until the time is up, with a line every few seconds and the abilities every sixth of the time."""
        settings, state, metrics = self.settings, self.transform.init(self.params), None
        start = said = 0.0
        judged = 0
        for rows in self.workers:
            progress = self._progress(start) if self.count else 0.0
            if progress >= 1:
                break
            factor = jnp.float32(self.peak * rate(progress, self.count))
            pending, (self.params, state, metrics) = metrics, self.step(self.params, state, rows, factor)
            self.count += 1
            if self.count == 1:
                jax.block_until_ready(metrics)
                start = said = time.perf_counter()
                say(self.began, "compiled")
            elif pending is not None:
                jax.block_until_ready(pending)  # at most one step ahead, so that the clock and the rate are true
            if time.perf_counter() - said > settings.report_seconds:
                said = time.perf_counter()
                self._report(metrics, progress, said - start)
            if progress * 6 > judged + 1:
                judged += 1
                say(self.began, line(self.scores(jnp.dtype("bfloat16"))))
                self._write()  # should the run be cut short

    def _progress(self, start: float) -> float:
        now, end = time.perf_counter(), self.began + self.settings.minutes * 60 - self.settings.reserve_seconds
        return max(self.count / self.settings.steps, (now - start) / max(1.0, end - start))

    def _report(self, metrics: dict[str, jax.Array], progress: float, seconds: float) -> None:
        speed = self.count * self.settings.rows * self.settings.length / seconds
        say(
            self.began,
            f"step {self.count} ({progress:.0%}) loss {float(metrics['loss']):.4f} "
            f"unevenness {float(metrics['unevenness']):.2f} {speed / 1e3:,.0f}k tokens/s "
            f"fresh {self.workers.fresh:.0%}",
        )

    def scores(self, dtype: Any) -> dict[str, float]:
        """Accuracy by ability, with the weights rounded to bfloat16 as they are written, computed in `dtype`."""
        rounded = {name: leaf.astype(jnp.bfloat16) for name, leaf in self.params.items()}
        predict = self._compiled.setdefault(dtype, jax.jit(partial(self.net.predict, dtype=dtype)))
        return self.judge.score(lambda *rows: np.asarray(predict(rounded, *rows)), self.settings.rows)

    def finish(self) -> dict[str, Any]:
        """Writes the folder, then judges; the weights are safe before anything else can fail."""
        self._write()
        say(self.began, f"written to {self.settings.out}")
        scores = {}
        for dtype in ("bfloat16", "float32"):
            scores[dtype] = self.scores(jnp.dtype(dtype))
            say(self.began, f"{dtype}: {line(scores[dtype])}")
        return {"steps": self.count, "seconds": round(time.perf_counter() - self.began), "accuracy": scores}

    def _write(self) -> None:
        export.write(self.settings.out, {name: np.asarray(leaf) for name, leaf in self.params.items()})


def say(began: float, text: str) -> None:
    """A line of progress with the seconds since the start."""
    print(f"[{time.perf_counter() - began:6.1f}s] {text}", flush=True)


def line(scores: dict[str, float]) -> str:
    return "  ".join(f"{ability} {score:.1%}" for ability, score in scores.items())
