"""The training run: compile, step until the time is up, judge, write."""

import shutil
import time
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from scripts.nano import corpus, encoders, export, network, tokenizer
from scripts.nano.judging import Judge
from scripts.nano.media_judging import MediaJudge
from scripts.nano.media_rows import MediaEncoder, MediaRows, Size
from scripts.nano.media_workers import MediaWorkers
from scripts.nano.optimizer import optimizer, rate
from scripts.nano.packing import Encoder, Workers
from scripts.nano.step import Network, make_step

TEXT_SHARE = 1 / 7
"""Of the data processes: words are drawn much faster than pictures."""


@dataclass(frozen=True)
class Settings:
    """`minutes` is the wall time of the whole run; `steps` ends it earlier. A step sees `rows` rows of text and
    `media_rows` rows about pictures and sounds, `length` tokens each.

    `tokenizer`: a tokenizer.json to take over; None learns one. `judged`: fresh samples per ability. `resume`: a folder
    whose weights the run begins with: what it has learned goes on at half the rate, encoders that it lacks at full.
    """

    out: Path
    minutes: float = 8.5
    steps: int = 1_000_000
    seed: int = 0
    rows: int = 20
    media_rows: int = 26
    length: int = 512
    processes: int = 14
    judged: int = 160
    dtype: str = "bfloat16"
    report_seconds: float = 10.0
    reserve_seconds: float = 40.0
    tokenizer: Path | None = None
    resume: Path | None = None

    @property
    def media_size(self) -> Size:
        return Size.of(self.media_rows, self.length)


def train(settings: Settings) -> dict[str, Any]:
    """Runs everything and returns what the last JSON line says."""
    began = time.perf_counter()
    folder = settings.out
    folder.mkdir(parents=True, exist_ok=True)
    if settings.tokenizer is None:
        say(began, "learning the tokenizer")
        tokenizer.train(corpus.texts(settings.seed, 12_000)).save(str(folder / "tokenizer.json"))
    elif settings.tokenizer.resolve() != (folder / "tokenizer.json").resolve():
        shutil.copyfile(settings.tokenizer, folder / "tokenizer.json")
    writers = max(1, round(settings.processes * TEXT_SHARE))
    with ExitStack() as stack:
        media = MediaWorkers(
            folder,
            seed=settings.seed + 1,
            size=settings.media_size,
            processes=max(1, settings.processes - writers),
            put=lambda batch: MediaRows(*jax.block_until_ready(jax.device_put(tuple(batch)))),
        )
        text = Workers(folder, seed=settings.seed + 1, length=settings.length, rows=settings.rows, processes=writers)
        run = Run(settings, began, stack.enter_context(text), stack.enter_context(media))
        run.steps()
    return run.finish()


class Run:
    """One training run: parameters, judges, clock."""

    def __init__(self, settings: Settings, began: float, text: Workers, media: MediaWorkers):
        self.settings, self.began, self.text, self.media = settings, began, text, media
        self.net = Network(settings.seed)
        known = {} if settings.resume is None else network.load(settings.resume) | encoders.load(settings.resume)
        # Through numpy: what is committed to a mesh would be compiled for once more when the first step returns it.
        self.params = self.net.params | {name: jnp.array(np.asarray(leaf)) for name, leaf in known.items()}
        self.peaks = [0.5 if part.names[0] in known else 1.0 for part in (self.net.text, self.net.encoders)]
        size = sum(leaf.size for leaf in self.params.values())
        say(began, f"{size:,} parameters on {jax.devices()[0].device_kind}")
        self.transform = optimizer(self.params)
        dtype = jnp.dtype(settings.dtype)
        self.step = make_step(self.net, self.transform, dtype)
        self.predict = jax.jit(partial(self.net.predict, dtype=dtype))
        self.predict_media = jax.jit(partial(self.net.predict_media, dtype=dtype))
        self.judge = Judge.draw(
            Encoder(settings.out), per_ability=settings.judged, length=settings.length, multiple=settings.rows
        )
        self.media_judge = MediaJudge.draw(
            MediaEncoder(settings.out), per_ability=settings.judged, size=settings.media_size
        )
        say(began, "fresh samples drawn")
        self.count = 0

    def steps(self) -> None:
        """Steps until the time is up, with a line every few seconds and the abilities at first and every sixth of the
        time, by which the media workers choose what to draw."""
        settings, state, metrics = self.settings, self.transform.init(self.params), None
        self._judge()
        start = said = 0.0
        judged = 0
        for rows, media in zip(self.text, self.media, strict=False):
            progress = self._progress(start) if self.count else 0.0
            if progress >= 1:
                break
            rates = [jnp.float32(peak * rate(progress, self.count)) for peak in self.peaks]
            pending, (self.params, state, metrics) = metrics, self.step(self.params, state, rows, media, *rates)
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
                self._judge()
                self._write()  # should the run be cut short

    def _progress(self, start: float) -> float:
        now, end = time.perf_counter(), self.began + self.settings.minutes * 60 - self.settings.reserve_seconds
        return max(self.count / self.settings.steps, (now - start) / max(1.0, end - start))

    def _report(self, metrics: dict[str, jax.Array], progress: float, seconds: float) -> None:
        losses = " ".join(f"{name} {float(value):.4f}" for name, value in metrics.items())
        say(
            self.began,
            f"step {self.count} ({progress:.0%}) {losses} {1e3 * seconds / self.count:.0f} ms a step "
            f"fresh {self.text.fresh:.0%} and {self.media.fresh:.0%}",
        )

    def _judge(self) -> dict[str, float]:
        """Accuracy by ability, with the weights rounded to bfloat16 as they are written."""
        rounded = {name: leaf.astype(jnp.bfloat16) for name, leaf in self.params.items()}
        scores = self.judge.score(lambda *rows: np.asarray(self.predict(rounded, *rows)), self.settings.rows)
        scores |= self.media_judge.score(lambda media: np.asarray(self.predict_media(rounded, media)))
        self.media.learned(scores)
        say(self.began, line(scores))
        return scores

    def finish(self) -> dict[str, Any]:
        """Writes the folder, then judges; the weights are safe before anything else can fail."""
        self._write()
        say(self.began, f"written to {self.settings.out}")
        scores = self._judge()
        return {"steps": self.count, "seconds": round(time.perf_counter() - self.began), "accuracy": scores}

    def _write(self) -> None:
        export.write(self.settings.out, {name: np.asarray(leaf) for name, leaf in self.params.items()})


def say(began: float, text: str) -> None:
    """A line of progress with the seconds since the start."""
    print(f"[{time.perf_counter() - began:6.1f}s] {text}", flush=True)


def line(scores: dict[str, float]) -> str:
    return "  ".join(f"{ability} {score:.1%}" for ability, score in scores.items())
