"""Owns the encoders' leaves and the store of soft tokens on the device, and fills it as prompts need it.

Launches run in their order, so a prompt that was launched has read its rows before a later one overwrites them: what a
plan needs is kept while it is made ready, and no longer.
"""

from collections.abc import Callable
from typing import Any

import jax

from g4jax.engine.batch import Slots
from g4jax.engine.encoder_batch import EncoderLaunch, Key, launches, pack_heard, pack_seen
from g4jax.engine.encoding import Encoding, Leaves
from g4jax.engine.plan import PrefillPlan
from g4jax.engine.soft_slots import SoftSlots
from g4jax.media.inputs import SoftInput


class EncoderRunner:
    """`store`: `[slots, D]`. `program` gives the compiled step of a key."""

    def __init__(self, encoding: Encoding, leaves: Leaves, store: jax.Array, program: Callable[[Key], Any]):
        self.encoding, self.leaves, self.store = encoding, leaves, store
        self.num_runs = 0
        """Inputs that were encoded so far; those found in the store are none."""
        self._program = program
        self._slots = SoftSlots(encoding.shapes.slots)

    def encode(self, plan: PrefillPlan) -> Slots:
        """Launches what is not in the store yet of the inputs of a plan; where the outputs of all of them lie."""
        needed = {placed.input.digest: placed.input for piece in plan.pieces for placed in piece.media}
        slots = {digest: rows for digest in needed if (rows := self._slots.find(digest)) is not None}
        new: list[tuple[SoftInput, Any]] = []
        for digest in needed.keys() - slots.keys():
            slots[digest] = self._slots.take(digest, needed[digest].num_tokens, keep=needed.keys())
            new.append((needed[digest], slots[digest]))
        for launch in launches(new):
            self._launch(launch)
        self.num_runs += len(new)
        return slots

    def run(self, key: Key, *inputs: Any) -> jax.Array:
        """Calls a program, which fills rows of the store."""
        self.store = self._program(key)(self.leaves, self.store, *inputs)
        return self.store

    def forget(self) -> None:
        """Nothing that is in the store is used for a later plan."""
        self._slots.forget()

    def _launch(self, launch: EncoderLaunch) -> None:
        pack = pack_heard if launch.is_heard else pack_seen
        self.run(launch.key, *pack(launch, self.encoding.shapes))
