"""The compiled steps of an engine: which there are, what goes in, and how each lies over the mesh.

Arguments are abstract here, so the same programs can be compiled for a GPU on a machine that has none.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from g4jax.cache.pages import KV_AXES
from g4jax.engine.batch import decode_fields, prefill_fields, score_fields
from g4jax.engine.draw_inputs import PLAIN, RICH, DrawInputs, Variant, draw_fields
from g4jax.engine.encoder_batch import HEAR_TOKENS, SEE_SLOTS, hear_fields, see_fields
from g4jax.engine.encoding import Encoding
from g4jax.engine.packing import Fields, packed_size
from g4jax.engine.said_inputs import said_fields
from g4jax.engine.steps import Step
from g4jax.models.text import Stream
from g4jax.sharding import partition_spec
from pallas_kernels.linear.tiles import MAX_WHOLE_ROWS

Key = tuple[Any, ...]
"""("enter", tokens) and then ("prefill", tokens), ("score", tokens), ("decode", rows, variant), ("mixed", tokens,
variant), ("forward", rows); from logits ("draw", rows, variant), and of what was said before it ("count",); of the
encoders ("see", tokens, slots), ("hear", tokens); for those who compare logits ("logits", tokens).
"""

ENCODERS = ("see", "hear")
WITHOUT_LAYERS = ("draw", "count")

MANY_ROWS = ("enter", "prefill", "score", "mixed", *ENCODERS)
VENDOR_PRODUCTS: dict[str, str | bool] = {"xla_gpu_enable_triton_gemm": False}
"""For hundreds of rows and more the vendor's products are as fast as XLA's own, and much faster in the encoders; they
need no dozens of tiles compiled and timed for every shape before the server is ready. A decode step of 100 rows of E2B
is 2.7 % slower with them."""

REPLICATED = PartitionSpec()


class Programs:
    """`leaves`, `pages` and `encoder_leaves` are trees of `jax.ShapeDtypeStruct` with their shardings on `mesh`.

    `encoding`: None for a model that neither sees nor hears.
    """

    def __init__(
        self,
        step: Step,
        leaves: tuple[jax.ShapeDtypeStruct, ...],
        pages: Any,
        mesh: Mesh,
        encoding: Encoding | None = None,
        encoder_leaves: tuple[jax.ShapeDtypeStruct, ...] = (),
    ):
        self.step, self.leaves, self.pages, self.mesh = step, leaves, pages, mesh
        self.encoding, self.encoder_leaves = encoding, encoder_leaves

    def keys(self) -> list[Key]:
        """Every program that serving can need."""
        shapes = self.step.shapes
        prompts = [(part, size) for size in shapes.prefill_tokens for part in ("enter", "prefill")]
        prompts += [("score", shapes.score_tokens)]
        decodes = [("decode", rows, variant) for variant in PLAIN for rows in shapes.decode_rows]
        mixed = [("mixed", size, variant) for variant in PLAIN for size in shapes.mixed_tokens]
        rich = [key for rows in shapes.rich_rows for key in (("decode", rows, "shaped"), ("forward", rows))]
        draws = [("draw", shapes.prefill_rows, variant) for variant in (*PLAIN, "shaped")]
        draws += [("draw", rows, "guided") for rows in sorted({shapes.prefill_rows, *shapes.rich_rows})]
        return prompts + decodes + mixed + rich + draws + [("count",)] + self._encoder_keys()

    def _encoder_keys(self) -> list[Key]:
        if self.encoding is None:
            return []
        shapes = self.encoding.shapes
        sizes = [(tokens, slots) for tokens, some in SEE_SLOTS.items() for slots in some]
        sees = [("see", *size) for size in sizes if shapes.patches_per_token]
        return sees + [("hear", tokens) for tokens in HEAR_TOKENS if shapes.frames_per_token]

    def is_timed(self, key: Key) -> bool:
        """XLA times tiles of its own for the products of the program, which is to be compiled alone: what is compiled
        beside it takes the processors that launch, and some other tile is chosen. Programs with the same products take
        over what was chosen."""
        return self.on_gpu and key[0] == "decode" and key[-1] == "greedy" and key[1] > MAX_WHOLE_ROWS

    def compile(self, key: Key) -> jax.stages.Compiled:
        """From jitted to what runs; the second half, `compile_lowered`, needs no Python and may run beside others."""
        return self.compile_lowered(key, self.lower(key))

    def lower(self, key: Key) -> jax.stages.Lowered:
        return self.jitted(key).lower(*self.arguments(key))

    def compile_lowered(self, key: Key, lowered: jax.stages.Lowered) -> jax.stages.Compiled:
        return lowered.compile(_compiler_options(key) if self.on_gpu else None)

    @property
    def on_gpu(self) -> bool:
        return self.mesh.devices.flat[0].platform != "cpu"

    def arguments(self, key: Key) -> tuple[Any, ...]:
        """What the program of `key` is called with, abstract."""
        if key[0] in WITHOUT_LAYERS:
            return self.inputs(key)
        if key[0] in ENCODERS:
            return (self.encoder_leaves, self.store(), *self.inputs(key))
        return (self.leaves_of(key, self.leaves), self.pages_of(key, self.pages), *self.inputs(key))

    def leaves_of(self, key: Key, leaves: tuple[Any, ...]) -> tuple[Any, ...]:
        """The leaves, None in place of those of layers that are not the program's."""
        layers = self.step.layers
        return tuple(
            leaf if layer is None or self._has(key, layer) else None for leaf, layer in zip(leaves, layers, strict=True)
        )

    def pages_of(self, key: Key, pages: Any) -> Any:
        """Those of the program's layers."""
        return {layer: own for layer, own in pages.items() if self._has(key, layer)}

    def _has(self, key: Key, layer: int) -> bool:
        match key[0]:
            case "enter":
                return layer < self.step.shapes.early.layers
            case "prefill":
                return layer >= self.step.shapes.early.layers
        return True

    def store(self) -> jax.ShapeDtypeStruct:
        """Of soft tokens."""
        assert self.encoding is not None
        return self._input((self.encoding.shapes.slots, self.encoding.hidden_size), self.encoding.dtype)

    def jitted(self, key: Key):
        """The jitted step: over the whole mesh at once, the pages (or the store) donated."""
        function, inputs = self._function(key), jax.tree.map(lambda _: REPLICATED, self.inputs(key))
        if key[0] in WITHOUT_LAYERS:
            return jax.jit(self._mapped(function, inputs, REPLICATED))
        if key[0] in ENCODERS:
            replicated = jax.tree.map(lambda _: REPLICATED, self.encoder_leaves)
            return jax.jit(self._mapped(function, (replicated, REPLICATED, *inputs), REPLICATED), donate_argnums=(1,))
        leaves = jax.tree.map(lambda leaf: leaf.sharding.spec, self.leaves_of(key, self.leaves))
        pages = jax.tree.map(lambda _: partition_spec(KV_AXES), self.pages_of(key, self.pages))
        return jax.jit(self._mapped(function, (leaves, pages, *inputs), (REPLICATED, pages)), donate_argnums=(1,))

    def inputs(self, key: Key) -> tuple[Any, ...]:
        """What the host sends to the program of `key`."""
        shapes = self.step.shapes
        match key:
            case ("enter" | "logits", int(size)):
                return (self._ints(prefill_fields(size, shapes)), *self._soft())
            case ("prefill", int(size)):
                return self._ints(prefill_fields(size, shapes)), self._stream(size)
            case ("score", int(size)):
                return (self._ints(score_fields(size, shapes)), *self._soft())
            case ("see", int(tokens), int(slots)):
                return self._seen(tokens, slots)
            case ("hear", int(tokens)):
                return self._heard(tokens)
            case ("forward", int(rows)):
                return self._ints(decode_fields(rows, shapes.table_width)), *self._left()
            case ("draw", int(rows), variant):
                logits = self._input((rows, self.step.vocab_size), jnp.float32)
                return logits, self._drawing(rows, variant), *self._said(variant)
            case ("count",):
                return self.said(), self._ints(said_fields(shapes.decode_rows[-1]))
            case ("decode", int(rows), variant):
                return *self._decoded(rows, variant), *self._said(variant)
            case ("mixed", int(size), variant):
                prompts = (self._ints(prefill_fields(size, shapes)), self._drawing(shapes.prefill_rows, variant))
                return *prompts, *self._decoded(shapes.decode_rows[-1], variant), *self._soft()
        raise ValueError(f"no program is called {key}")

    def _function(self, key: Key):
        match key:
            case ("enter", int(size)):
                return functools.partial(self.step.enter, tokens=size)
            case ("prefill", int(size)):
                return functools.partial(self.step.prefill, tokens=size)
            case ("logits", int(size)):
                return functools.partial(self.step.prompt_logits, tokens=size)
            case ("score", int(size)):
                return functools.partial(self.step.score, tokens=size)
            case ("see", int(tokens), int(slots)) if self.encoding is not None:
                return functools.partial(self.encoding.see, tokens=tokens, slots=slots)
            case ("hear", int(tokens)) if self.encoding is not None:
                return functools.partial(self.encoding.hear, tokens=tokens)
            case ("forward", int(rows)):
                return functools.partial(self.step.forward, rows=rows)
            case ("draw", int(), variant):
                return functools.partial(self.step.draw, variant=variant)
            case ("count",):
                return self.step.count
            case ("decode", int(rows), variant):
                return functools.partial(self.step.decode, rows=rows, variant=variant)
            case ("mixed", int(size), variant):
                return functools.partial(self.step.mixed, tokens=size, variant=variant)
        raise ValueError(f"no program is called {key}")

    def _mapped(self, function, in_specs, out_specs):
        # One device needs no map. Replication is not checked, because kernels do not say what they replicate.
        if self.mesh.size == 1:
            return function
        return jax.shard_map(function, mesh=self.mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False)

    def _soft(self) -> tuple[jax.ShapeDtypeStruct, ...]:
        return () if self.encoding is None else (self.store(),)

    def _stream(self, size: int) -> Stream:
        """Between the layers of so many tokens."""
        early, dtype = self.step.shapes.early, self.step.dtype
        x: Any = self._input((size, early.hidden), dtype)
        per_layer: Any = self._input((size, early.per_layer), dtype) if early.per_layer else None
        return Stream(x, per_layer)

    def _decoded(self, rows: int, variant: Variant) -> tuple[Any, ...]:
        packed = self._ints(decode_fields(rows, self.step.shapes.table_width))
        return packed, self._drawing(rows, variant), *self._left()

    def _left(self) -> tuple[jax.ShapeDtypeStruct, jax.ShapeDtypeStruct]:
        """The last tokens of the decode and of the prefill launch before."""
        tokens = self._input((self.step.shapes.decode_rows[-1],), jnp.int32)
        return tokens, tokens

    def said(self) -> jax.ShapeDtypeStruct:
        """By the rows of the largest batch."""
        return self._input((self.step.shapes.decode_rows[-1], self.step.vocab_size), jnp.int32)

    def _said(self, variant: Variant) -> tuple[jax.ShapeDtypeStruct, ...]:
        return (self.said(),) if variant in RICH else ()

    def _seen(self, tokens: int, slots: int) -> tuple[jax.ShapeDtypeStruct, ...]:
        assert self.encoding is not None
        shapes = self.encoding.shapes
        pixels = (slots * tokens * shapes.patches_per_token, shapes.patch_size)
        return self._input(pixels, jnp.uint8), self._ints(see_fields(tokens, slots))

    def _heard(self, tokens: int) -> tuple[jax.ShapeDtypeStruct, ...]:
        assert self.encoding is not None
        shapes = self.encoding.shapes
        frames = (tokens * shapes.frames_per_token, shapes.frame_size)
        return self._input(frames, jnp.float32), self._ints(hear_fields(tokens))

    def _drawing(self, rows: int, variant: Variant) -> DrawInputs:
        fields = draw_fields(variant, rows, self.step.vocab_size)
        return DrawInputs(*(self._ints(own) if own else () for own in fields))

    def _ints(self, fields: Fields) -> jax.ShapeDtypeStruct:
        return self._input((packed_size(fields),), jnp.int32)

    def _input(self, shape: tuple[int, ...], dtype) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(self.mesh, REPLICATED))


def _compiler_options(key: Key) -> dict[str, str | bool]:
    return VENDOR_PRODUCTS if key[0] in MANY_ROWS else {}


def abstract(tree: Any) -> Any:
    """Shapes, dtypes and shardings of a tree of arrays."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), tree)
