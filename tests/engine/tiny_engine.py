"""A tiny model whose greedy answers wander, and an engine over it."""

from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from g4jax.engine.engine import Engine
from g4jax.engine.launch import build_engine
from g4jax.engine.options import EngineOptions
from g4jax.engine.request import Request
from g4jax.engine.scheduler import Scheduler
from g4jax.sample.params import SamplingParams
from g4jax.testing.checkpoints import write_checkpoint
from g4jax.testing.configs import Variant, tiny
from g4jax.testing.encoder_configs import tiny_with_encoders

SETTINGS = {"dtype": "float32", "max_batch": 4, "max_model_len": 96, "max_prefill_tokens": 16, "page_size": 4}


def one_layer_of_each_kind(variant: Variant) -> dict[str, Any]:
    """Changes of a config, for programs take a time to compile that grows with the layers. Where some layers share the
    keys of others, there is one of each kind of these too."""
    shared = 2 if tiny(variant)["text_config"]["num_kv_shared_layers"] else 0
    kinds = ["sliding_attention", "full_attention"] * (2 if shared else 1)
    return {"layer_types": kinds, "num_hidden_layers": len(kinds), "num_kv_shared_layers": shared}


def write_wandering(folder: Path, variant: Variant, *, encoders: bool = False) -> None:
    """A random checkpoint in which a token says little of the next: the embedding is weak beside the layers."""
    config = (tiny_with_encoders if encoders else tiny)(variant, **one_layer_of_each_kind(variant))
    write_checkpoint(folder, config, dtype=np.float32)
    tensors = load_file(folder / "model.safetensors")
    tensors["model.language_model.embed_tokens.weight"] *= 0.05
    save_file(tensors, folder / "model.safetensors")


def build(folder: Path, *, compile_ahead: bool = False, **changes) -> Engine:
    options = EngineOptions(model=str(folder), **{**SETTINGS, "decode_steps": 4} | changes)
    return build_engine(options, lambda text, done, total: None, compile_ahead=compile_ahead)


def with_pages(engine: Engine, *, sliding_pages: int, full_pages: int) -> Engine:
    """The same device state under a scheduler that may use fewer pages."""
    old = engine.scheduler
    scheduler = Scheduler(
        sliding_pages=sliding_pages,
        full_pages=full_pages,
        page_size=SETTINGS["page_size"],
        window=8,
        max_model_len=old.max_model_len,
        max_batch=old.max_batch,
        max_prefill_tokens=old.max_prefill_tokens,
        max_prefill_rows=old.max_prefill_rows,
        max_score_tokens=old.max_score_tokens,
        decode_steps=old.decode_steps,
    )
    return Engine(engine.runner, scheduler)


def requests(count: int, *, tokens: int = 20, **params) -> list[Request]:
    """Prompts of 1 to 61 random tokens; every second one is sampled with its own seed."""
    rng = np.random.default_rng(7)
    lengths = rng.integers(1, 62, count)
    prompts = [rng.integers(5, 240, length).tolist() for length in lengths]
    how = [{"temperature": 0.0} if i % 2 else {"temperature": 1.0, "seed": i, "top_k": 50} for i in range(count)]
    return [
        Request(str(i), prompt, SamplingParams(max_tokens=tokens, **how[i] | params), frozenset({3}))
        for i, prompt in enumerate(prompts)
    ]


class OnlyThese:
    """A guide that allows a few tokens."""

    asks = None

    def __init__(self, allowed: set[int]):
        self.error: str | None = None
        self.allowed = allowed
        self.seen: list[int] = []

    def complete(self, row: np.ndarray) -> None:
        for token in self.allowed:
            row[token // 32] |= np.uint32(1 << token % 32)

    def accept(self, token_id: int) -> None:
        self.seen.append(token_id)


def guided(guide: OnlyThese, max_tokens: int = 12, **params) -> Request:
    """A request under a guide."""
    params = SamplingParams(max_tokens=max_tokens, **{"temperature": 1.0, "seed": 5} | params)
    return Request("guided", [5, 6, 7, 8, 9], params, frozenset({3}), guide=guide)


def run(engine: Engine, batch: list[Request]) -> dict[str, list[int]]:
    """The outputs of a batch that is added at once."""
    out: dict[str, list[int]] = {request.id: [] for request in batch}
    for request in batch:
        engine.add_request(request)
    while engine.has_work:
        for update in engine.step():
            out[update.request_id] += update.token_ids
    engine.scheduler.check_integrity()
    return out


def alone(engine: Engine, batch: list[Request]) -> dict[str, list[int]]:
    """The outputs of the same requests one after the other."""
    return {request.id: run(engine, [request])[request.id] for request in batch}
