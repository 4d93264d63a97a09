"""The functions that run on the device: prefill, decode, draw. All that is jitted is here.

Each takes the model's flat leaves, the pages (donated) and one packed int32 array, and rebuilds the module inside the
trace. `Step` binds what is static.
"""

import dataclasses
from collections.abc import Callable

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from g4jax.cache.paged import PagedDecode, PagedPrefill, Pages
from g4jax.engine.batch import Shapes, decode_fields, prefill_fields
from g4jax.engine.drawing import Drawing, Variant
from g4jax.engine.packing import unpack
from g4jax.models.text import TextModel
from pallas_kernels.core import Implementation

Leaves = tuple[Array, ...]


@dataclasses.dataclass(frozen=True)
class Step:
    """What every compiled step shares.

    Attributes:
        merge: flat leaves -> the model.
        shapes: the padded sizes.
        dtype: of activations and cache.
        vocab_size: tokens that can be drawn.
        suppressed: token ids that are never drawn.
        implementation: of the kernels.
    """

    merge: Callable[[Leaves], TextModel]
    shapes: Shapes
    dtype: jnp.dtype
    vocab_size: int
    suppressed: tuple[int, ...] = ()
    implementation: Implementation | None = None

    def prefill(
        self, leaves: Leaves, pages: Pages, packed: Int[Array, " P"], *, tokens: int, all_logits: bool = False
    ) -> tuple[Float[Array, "Q V"], Pages]:
        """Runs a ragged batch of prompt pieces; logits of each row's last token, or of all `tokens` packed ones."""
        fields = unpack(prefill_fields(tokens, self.shapes.prefill_rows, self.shapes.table_width), packed)
        model, ids = self.merge(leaves), fields.pop("tokens")
        common = {"dtype": self.dtype, "implementation": self.implementation}
        keys = PagedPrefill(dict(pages), **fields, page_size=self.shapes.page_size, **common)
        if all_logits:
            return model.logits(model(ids, keys)), keys.pages
        last = jnp.where(fields["lengths"] > 0, fields["contexts"] - 1, -1)
        tables = {name: fields[name] for name in ("sliding_table", "full_table")}
        row_keys = PagedDecode(keys.pages, positions=last, **tables, **common)
        rows = jnp.maximum(fields["starts"] + fields["lengths"] - 1, 0)
        return model.logits(model(ids, keys, rows=rows, row_keys=row_keys)), keys.pages

    def decode_logits(
        self, leaves: Leaves, pages: Pages, packed: Int[Array, " P"], *, rows: int
    ) -> tuple[Float[Array, "B V"], Pages]:
        """One token of each row through the decode path, and the logits after it."""
        fields = unpack(decode_fields(rows, self.shapes.table_width), packed)
        return self._one_token(self.merge(leaves), pages, fields, fields["tokens"], fields["positions"])

    def decode(
        self,
        leaves: Leaves,
        pages: Pages,
        packed: Int[Array, " P"],
        sampling: Int[Array, " S"],
        shaping: Int[Array, " H"],
        *,
        rows: int,
        variant: Variant,
    ) -> tuple[Int[Array, "N B"], Pages]:
        """`shapes.decode_steps` tokens of every row, -1 after a row's stop id or budget.

        `sampling` and `shaping` are empty arrays where the variant does not need them.
        """
        fields = unpack(decode_fields(rows, self.shapes.table_width), packed)
        model = self.merge(leaves)
        draw = Drawing(variant, rows, self.shapes.history, self.vocab_size, self.suppressed, sampling, shaping)

        def one_step(step, carry):
            pages, tokens, positions, budgets, counts, out = carry
            alive = budgets > 0
            logits, pages = self._one_token(model, pages, fields, tokens, jnp.where(alive, positions, -1))
            drawn, counts = draw(logits, counts, step)
            out = lax.dynamic_update_index_in_dim(out, jnp.where(alive, drawn, -1), step, 0)
            stopped = jnp.any(drawn[:, None] == fields["stop_ids"], axis=1)
            budgets = jnp.where(stopped, 0, budgets - 1)
            return pages, jnp.where(alive, drawn, tokens), positions + 1, budgets, counts, out

        steps = self.shapes.decode_steps
        carry = (
            dict(pages),
            fields["tokens"],
            fields["positions"],
            fields["budgets"],
            draw.counts(),
            jnp.full((steps, rows), -1, jnp.int32),
        )
        pages, *_, out = lax.fori_loop(0, steps, one_step, carry)
        return out, pages

    def draw(
        self,
        logits: Float[Array, "B V"],
        sampling: Int[Array, " S"],
        shaping: Int[Array, " H"],
        *,
        variant: Variant,
    ) -> Int[Array, " B"]:
        """The first token of each row, from the logits of its prompt."""
        rows = logits.shape[0]
        draw = Drawing(variant, rows, self.shapes.history, self.vocab_size, self.suppressed, sampling, shaping)
        return draw(logits, draw.counts(), 0)[0]

    def _one_token(self, model: TextModel, pages: Pages, fields, tokens, positions):
        keys = PagedDecode(
            dict(pages),
            positions=positions,
            sliding_table=fields["sliding_table"],
            full_table=fields["full_table"],
            dtype=self.dtype,
            implementation=self.implementation,
        )
        logits = model.logits(model(tokens, keys))
        return logits, keys.pages
