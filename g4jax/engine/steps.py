"""The functions that run on the device: prefill, decode, draw. All that is jitted is here.

Each takes the model's flat leaves, the pages (donated) and one packed int32 array, and rebuilds the module inside the
trace. `Step` binds what is static.
"""

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from g4jax.cache.paged import PagedDecode, PagedMixed, PagedPrefill, Pages
from g4jax.engine.batch import Shapes, decode_fields, prefill_fields, score_fields
from g4jax.engine.draw_inputs import DrawInputs, Variant
from g4jax.engine.drawing import Drawing, Said
from g4jax.engine.packing import unpack
from g4jax.engine.report import Report, nothing_reported, packed_report
from g4jax.engine.said_inputs import said_fields
from g4jax.models.text import Stream, TextModel
from g4jax.sample.logits import logprobs_of, with_counts
from g4jax.sample.params import MAX_LOGPROBS
from pallas_kernels.core import Implementation

Leaves = tuple[Array, ...]
UsedLeaves = tuple[Array | None, ...]
"""None for what a program does not use: each leaf that it is called with costs the host one to two microseconds."""

SCORED_TOGETHER = 64
"""Positions whose logits are in memory at once: 64 MiB in float32."""


@dataclasses.dataclass(frozen=True)
class Step:
    """What every compiled step shares.

    Attributes:
        merge: flat leaves -> the model. No part of the repr, by which programs on disk are found (`program_store`).
        layers: of each leaf the layer that it belongs to, None for what is no layer's.
        shapes: the padded sizes.
        dtype: of activations and cache.
        vocab_size: tokens that can be drawn.
        suppressed: token ids that are never drawn.
        implementation: of the kernels.
    """

    merge: Callable[[UsedLeaves], TextModel] = dataclasses.field(repr=False)
    layers: tuple[int | None, ...] = dataclasses.field(repr=False)
    shapes: Shapes
    dtype: jnp.dtype
    vocab_size: int
    suppressed: tuple[int, ...] = ()
    implementation: Implementation | None = None

    def enter(
        self,
        leaves: UsedLeaves,
        pages: Pages,
        packed: Int[Array, " P"],
        store: Float[Array, "S D"] | None = None,
        *,
        tokens: int,
    ) -> tuple[Stream, Pages]:
        """The early layers of a ragged batch of prompt pieces; `pages` are those of these layers.

        `store`: the encoders' output, which the tokens of images and sounds are taken from.
        """
        fields, pages = unpack(prefill_fields(tokens, self.shapes), packed), dict(pages)
        model, stream, keys = self._entered(leaves, pages, fields, store)
        return model.advance(stream, keys, self.shapes.early.layers), pages

    def prefill(
        self, leaves: UsedLeaves, pages: Pages, packed: Int[Array, " P"], stream: Stream, *, tokens: int
    ) -> tuple[Float[Array, "Q V"], Pages]:
        """The other layers, with their pages, and the logits of each row's last token."""
        fields = unpack(prefill_fields(tokens, self.shapes), packed)
        del fields["tokens"]
        fields.pop("soft", None)
        model, pages = self.merge(leaves), dict(pages)
        row_fields, rows = _last_rows(fields)
        keys, row_keys = self._prompt_keys(pages, fields), self._token_keys(pages, row_fields)
        h = model.leave(stream, keys, first=self.shapes.early.layers, rows=rows, row_keys=row_keys)
        return model.logits(h), pages

    def prompt_logits(
        self,
        leaves: UsedLeaves,
        pages: Pages,
        packed: Int[Array, " P"],
        store: Float[Array, "S D"] | None = None,
        *,
        tokens: int,
    ) -> tuple[Float[Array, "T V"], Pages]:
        """All layers of a ragged batch of prompt pieces, and the logits of every token."""
        fields, pages = unpack(prefill_fields(tokens, self.shapes), packed), dict(pages)
        model, stream, keys = self._entered(leaves, pages, fields, store)
        return model.logits(model.leave(stream, keys)), pages

    def score(
        self,
        leaves: UsedLeaves,
        pages: Pages,
        packed: Int[Array, " P"],
        store: Float[Array, "S D"] | None = None,
        *,
        tokens: int,
    ) -> tuple[tuple[Float[Array, "Q V"], Report], Pages]:
        """The logits of each row's last token, and what `logprobs_of` says of each packed token's successor."""
        fields, pages = unpack(score_fields(tokens, self.shapes), packed), dict(pages)
        targets = fields.pop("targets")
        model, stream, keys = self._entered(leaves, pages, fields, store)
        h = model.leave(stream, keys)
        _, rows = _last_rows(fields)

        together = math.gcd(tokens, SCORED_TOGETHER)
        count = tokens // together

        def score_part(part: Int[Array, ""], reports: Report) -> Report:
            places = part * together + jnp.arange(together)  # gathered: a slice would be such a copy as `_with` avoids
            told = logprobs_of(model.logits(h[places]), targets[places], MAX_LOGPROBS, self.implementation)
            return _with(reports, packed_report(*told), part)

        nothing = nothing_reported(tokens).reshape(count, together, -1)
        report = lax.fori_loop(0, count, score_part, nothing).reshape(tokens, -1)
        return (model.logits(h[rows]), report), pages

    def forward(
        self,
        leaves: UsedLeaves,
        pages: Pages,
        packed: Int[Array, " P"],
        before: Int[Array, " M"],
        drawn_before: Int[Array, " M"],
        *,
        rows: int,
    ) -> tuple[Float[Array, "B V"], Pages]:
        """The first half of a `decode` of one token: the logits of each row, from which `draw` takes a token once the
        host knows those before it."""
        fields = unpack(decode_fields(rows, self.shapes.table_width), packed)
        first = _first_tokens(fields, jnp.concatenate([before, drawn_before]))
        model = self.merge(leaves)
        positions = jnp.where((first >= 0) & (fields["budgets"] > 0), fields["positions"], -1)
        h, pages = self._one_token(model, pages, fields, jnp.maximum(first, 0), positions)
        return model.logits(h), pages

    def decode(
        self,
        leaves: UsedLeaves,
        pages: Pages,
        packed: Int[Array, " P"],
        inputs: DrawInputs,
        before: Int[Array, " M"],
        drawn_before: Int[Array, " M"],
        said: Int[Array, "M V"] | None = None,
        *,
        rows: int,
        variant: Variant,
    ) -> tuple[tuple[Int[Array, "N B"], Report, Int[Array, " M"]], Pages]:
        """`shapes.decode_steps` tokens of every row, -1 after a row's stop id or budget.

        `before` and `drawn_before` hold the last tokens of the decode and the prefill launch before, which a row may
        go on from although the host does not know them yet. `said`: by the rows of a shaped batch. Returns with the
        tokens a report of each step and row, and the last token of each row (-1 where a stop id ended it) for the next
        launch.
        """
        fields = unpack(decode_fields(rows, self.shapes.table_width), packed)
        first = _first_tokens(fields, jnp.concatenate([before, drawn_before]))
        model = self.merge(leaves)
        draw = self._drawing(variant, rows, inputs)

        def one_step(step, carry):
            pages, tokens, positions, budgets, ended, said, out, reports = carry
            alive = budgets > 0
            h, pages = self._one_token(model, pages, fields, tokens, jnp.where(alive, positions, -1))
            drawn, report, said = draw.of_states(model, h, said, step)
            reports = jax.tree.map(lambda all_steps, one: _with(all_steps, one, step), reports, report)
            out = _with(out, jnp.where(alive, drawn, -1), step)
            tokens = jnp.where(alive, drawn, tokens)
            ended |= alive & _is_stop(drawn, fields)
            budgets = jnp.where(ended, 0, budgets - 1)
            return pages, tokens, positions + 1, budgets, ended, said, out, reports

        steps = self.shapes.decode_steps
        carry = (
            dict(pages),
            jnp.maximum(first, 0),
            fields["positions"],
            jnp.where(first < 0, 0, fields["budgets"]),
            first < 0,
            () if said is None else said[:rows],
            jnp.full((steps, rows), -1, jnp.int32),
            jax.tree.map(lambda x: jnp.zeros((steps, *x.shape), x.dtype), draw.no_report(rows)),
        )
        pages, tokens, _, _, ended, _, out, reports = lax.fori_loop(0, steps, one_step, carry)
        return (out, reports, self._left(jnp.where(ended, -1, tokens))), pages

    def mixed(
        self,
        leaves: UsedLeaves,
        pages: Pages,
        prompts: Int[Array, " P"],
        prompt_inputs: DrawInputs,
        packed: Int[Array, " I"],
        inputs: DrawInputs,
        before: Int[Array, " M"],
        drawn_before: Int[Array, " M"],
        store: Float[Array, "S D"] | None = None,
        *,
        tokens: int,
        variant: Variant,
    ) -> tuple[tuple[Int[Array, "1 M"], Int[Array, " M"], Int[Array, " M"]], Pages]:
        """Whole prompts and one step of `decode` over the largest batch: each weight is read once.

        Returns the tokens of those that decode, -1 where there is none, the first tokens of the prompts, and the last
        token of each decode row for the next launch.
        """
        count = before.shape[0]
        fields = unpack(decode_fields(count, self.shapes.table_width), packed)
        prompt = unpack(prefill_fields(tokens, self.shapes), prompts)
        first = _first_tokens(fields, jnp.concatenate([before, drawn_before]))
        alive = (first >= 0) & (fields["budgets"] > 0)
        fields["positions"] = jnp.where(alive, fields["positions"], -1)
        model, pages = self.merge(leaves), dict(pages)
        ids = jnp.concatenate([jnp.maximum(first, 0), prompt.pop("tokens")])
        soft, is_soft = _soft(store, prompt, ordinary=count)
        row_fields, rows = _last_rows(prompt)
        both = {name: jnp.concatenate([fields[name], row_fields[name]]) for name in row_fields}
        h = model(
            ids,
            self._mixed_keys(pages, fields, prompt),
            rows=jnp.concatenate([jnp.arange(count), count + rows]),
            row_keys=self._token_keys(pages, both),
            soft=soft,
            is_soft=is_soft,
        )
        logits = model.uncapped_logits(h)
        drawn, _ = self.draw(logits[:count], inputs, variant=variant, cap=model.softcap)
        drawn_first, _ = self.draw(logits[count:], prompt_inputs, variant=variant, cap=model.softcap)
        out = jnp.where(alive, drawn, -1)
        return (out[None], drawn_first, jnp.where(_is_stop(out, fields), -1, out)), pages

    def draw(
        self,
        logits: Float[Array, "B V"],
        inputs: DrawInputs,
        said: Int[Array, "M V"] | None = None,
        *,
        variant: Variant,
        cap: float | None = None,
    ) -> tuple[Int[Array, " M"], Report]:
        """The token of each row, -1 behind them, and a report [1, B]. cap: of logits that are not capped yet."""
        rows = logits.shape[0]
        by_rows: Said = () if said is None else said[:rows]
        drawn, report, _ = self._drawing(variant, rows, inputs)(logits, by_rows, 0, cap=cap)
        return self._left(drawn), jax.tree.map(lambda x: x[None], report)

    def count(self, said: Int[Array, "M V"], packed: Int[Array, " P"]) -> Int[Array, "M V"]:
        """What rows have said, with the counts of some more tokens."""
        return with_counts(said, **unpack(said_fields(said.shape[0]), packed))

    def _left(self, tokens: Int[Array, " B"]) -> Int[Array, " M"]:
        """What the next launch may go on from, -1 behind the rows."""
        return jnp.pad(tokens, (0, self.shapes.decode_rows[-1] - tokens.shape[0]), constant_values=-1)

    def _drawing(self, variant: Variant, rows: int, inputs: DrawInputs) -> Drawing:
        return Drawing(variant, rows, self.vocab_size, self.suppressed, inputs, self.implementation)

    def _entered(
        self, leaves: UsedLeaves, pages: Pages, fields: dict[str, Array], store: Float[Array, "S D"] | None
    ) -> tuple[TextModel, Stream, PagedPrefill]:
        """The model, what the first layer of packed prompts gets, and their keys; `pages` will be written to."""
        model = self.merge(leaves)
        stream = model.enter(fields.pop("tokens"), *_soft(store, fields))
        return model, stream, self._prompt_keys(pages, fields)

    def _prompt_keys(self, pages: Pages, fields: dict[str, Array]) -> PagedPrefill:
        """Of packed prompts; `pages` is written to."""
        return PagedPrefill(
            pages,
            **fields,
            page_size=self.shapes.page_size,
            dtype=self.dtype,
            implementation=self.implementation,
        )

    def _token_keys(self, pages: Pages, fields: dict[str, Array]) -> PagedDecode:
        """Of one token in each row; `pages` is written to."""
        return PagedDecode(
            pages,
            positions=fields["positions"],
            sliding_table=fields["sliding_table"],
            full_table=fields["full_table"],
            dtype=self.dtype,
            implementation=self.implementation,
        )

    def _mixed_keys(self, pages: Pages, fields: dict[str, Array], prompt: dict[str, Array]) -> PagedMixed:
        """Of one token in each row, and of packed prompts."""
        return PagedMixed(
            self._token_keys(pages, fields),
            self._prompt_keys(pages, prompt),
            page_size=self.shapes.page_size,
            dtype=self.dtype,
            implementation=self.implementation,
        )

    def _one_token(self, model: TextModel, pages: Pages, fields, tokens, positions):
        pages = dict(pages)
        keys = self._token_keys(pages, fields | {"positions": positions})
        return model(tokens, keys), pages


def _last_rows(fields: dict[str, Array]) -> tuple[dict[str, Array], Int[Array, " R"]]:
    """Of each prompt piece: its last token's position (-1: no piece) and pages, and its place among the packed."""
    last = jnp.where(fields["lengths"] > 0, fields["contexts"] - 1, -1)
    tables = {name: fields[name] for name in ("sliding_table", "full_table")}
    return {"positions": last, **tables}, jnp.maximum(fields["starts"] + fields["lengths"] - 1, 0)


def _soft(
    store: Float[Array, "S D"] | None, fields: dict[str, Array], *, ordinary: int = 0
) -> tuple[Float[Array, "T D"] | None, Bool[Array, " T"] | None]:
    """What stands in the place of embeddings, and where, behind so many `ordinary` tokens; nothing for a model without
    encoders."""
    if store is None:
        return None, None
    rows = jnp.pad(fields.pop("soft"), (ordinary, 0), constant_values=-1)
    return store[jnp.maximum(rows, 0)], rows >= 0


def _with(all_steps: Array, one: Array, step: Int[Array, ""]) -> Array:
    """An array [N, ...] with `one` at `step`.

    Not an update in place: XLA would make it a copy on a stream of its own.
    """
    is_place = jnp.arange(len(all_steps)) == step
    return jnp.where(is_place.reshape(-1, *[1] * one.ndim), one, all_steps)


def _first_tokens(fields: dict[str, Array], before: Int[Array, " S"]) -> Int[Array, " B"]:
    """What each row goes on from: a token that the host sent or one left on the device; -1 where it had ended."""
    sources = fields["sources"]
    left = before[jnp.maximum(sources, 0)]
    left = jnp.where(_is_stop(left, fields), -1, left)
    return jnp.where(sources < 0, fields["tokens"], left)


def _is_stop(tokens: Int[Array, " B"], fields: dict[str, Array]) -> Bool[Array, " B"]:
    return jnp.any(tokens[:, None] == fields["stop_ids"], axis=1)
