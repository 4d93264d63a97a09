"""`Keys` over the paged cache: what attention does in a prefill step and in a decode step.

Both hold the pages of the whole model while a step is traced and replace a layer's arrays as it writes, so that every
array is written in place.
"""

import jax.numpy as jnp
from jaxtyping import Array, DTypeLike, Float, Int

from g4jax.cache.pages import LayerPages
from g4jax.config import LayerSpec, RopeSpec
from g4jax.nn.attention import Heads
from g4jax.nn.rope import rope_tables
from pallas_kernels.core import Implementation
from pallas_kernels.decode_attention import attend_decode, decode_attention
from pallas_kernels.prefill_attention import prefill_attention
from pallas_kernels.qkv import qkv_rope, qkv_rope_write

Pages = dict[int, LayerPages]


class RopeCache:
    """cos and sin of a step's positions, made once per kind of layer."""

    def __init__(self, positions: Int[Array, " R"], dtype: DTypeLike):
        self._positions, self._dtype = positions, dtype
        self._tables: dict[RopeSpec, tuple[Array, Array]] = {}

    def __call__(self, spec: RopeSpec) -> tuple[Array, Array]:
        if spec not in self._tables:
            self._tables[spec] = rope_tables(spec, self._positions, self._dtype)
        return self._tables[spec]


class PagedPrefill:
    """T packed tokens of R sequences.

    `positions`, `rows`, `limits` are per token: its place in its sequence, that sequence's row (-1: padding), and the
    last position it may see in layers where images are seen both ways. `starts`, `lengths`, `contexts` are per row:
    first packed token, tokens in this piece, keys in the cache with this piece. The tables give each row's pages.
    """

    def __init__(
        self,
        pages: Pages,
        *,
        positions: Int[Array, " T"],
        rows: Int[Array, " T"],
        limits: Int[Array, " T"],
        starts: Int[Array, " R"],
        lengths: Int[Array, " R"],
        contexts: Int[Array, " R"],
        sliding_table: Int[Array, "R M"],
        full_table: Int[Array, "R M"],
        page_size: int,
        dtype: DTypeLike,
        implementation: Implementation | None,
    ):
        self.pages = pages
        self.padding = rows < 0
        self._limits = limits
        self._pieces = (starts, lengths, contexts)
        self._tables = {True: sliding_table, False: full_table}
        self.positions = positions
        self.slots = {sliding: _slots(table, rows, positions, page_size) for sliding, table in self._tables.items()}
        self._rope = RopeCache(positions, dtype)
        self._implementation: Implementation | None = implementation

    def attend(self, spec: LayerSpec, heads: Heads) -> Float[Array, "T O"]:
        if heads.k_norm is None:
            settings = {"num_heads": heads.num_heads, "k_eq_v": False, "eps": heads.eps}
            q, _, _ = qkv_rope(heads.qkv, heads.q_norm, None, *self._rope(spec.rope), **settings)
        else:
            q = self.keep(spec, heads)
        return self.look(spec, q)

    def keep(self, spec: LayerSpec, heads: Heads) -> Float[Array, "T N H"]:
        pages, slots = self.pages[spec.index], self.slots[spec.is_sliding]
        q, self.pages[spec.index] = _keep(spec, heads, self._rope, pages, slots, self._implementation)
        return q

    def look(self, spec: LayerSpec, q: Float[Array, "R N H"], *, first: int = 0) -> Float[Array, "R O"]:
        """Attends with queries whose keys are kept already; those before row `first` are others', and give zeros."""
        starts, lengths, contexts = self._pieces
        limits = self._limits if spec.sees_both_ways else self.positions
        return prefill_attention(
            q,
            *self.pages[spec.kv_source],
            self._tables[spec.is_sliding],
            starts + first,
            lengths,
            contexts,
            jnp.pad(limits, (first, 0)),
            window=spec.window,
            implementation=self._implementation,
        )


class PagedDecode:
    """One token of each of B sequences, at `positions` (-1: an unused row)."""

    def __init__(
        self,
        pages: Pages,
        *,
        positions: Int[Array, " B"],
        sliding_table: Int[Array, "B M"],
        full_table: Int[Array, "B M"],
        dtype: DTypeLike,
        implementation: Implementation | None,
    ):
        self.pages = pages
        self.padding = None if len(positions) == 1 else positions < 0  # A single row is always used.
        self.positions = positions
        self._tables = {True: sliding_table, False: full_table}
        self._rope = RopeCache(jnp.maximum(positions, 0), dtype)
        self._implementation: Implementation | None = implementation

    def attend(self, spec: LayerSpec, heads: Heads) -> Float[Array, "B O"]:
        o, *pages = attend_decode(
            heads.qkv,
            heads.q_norm,
            heads.k_norm,
            *self._rope(spec.rope),
            *self.pages[spec.kv_source],
            self._tables[spec.is_sliding],
            self.positions,
            num_heads=heads.num_heads,
            k_eq_v=spec.k_eq_v,
            window=spec.window,
            eps=heads.eps,
            implementation=self._implementation,
        )
        if spec.owns_kv:
            self.pages[spec.index] = LayerPages(*pages)
        return o

    def keep(self, spec: LayerSpec, heads: Heads) -> Float[Array, "B N H"]:
        pages = self.pages[spec.index]
        slots = self.slots(is_sliding=spec.is_sliding, page_size=pages.k.shape[2])
        q, self.pages[spec.index] = _keep(spec, heads, self._rope, pages, slots, self._implementation)
        return q

    def slots(self, *, is_sliding: bool, page_size: int) -> tuple[Int[Array, " B"], Int[Array, " B"]]:
        """Where each token's key goes: page and place in it."""
        rows = jnp.where(self.positions < 0, -1, jnp.arange(len(self.positions)))
        return _slots(self._tables[is_sliding], rows, jnp.maximum(self.positions, 0), page_size)

    def look(self, spec: LayerSpec, q: Float[Array, "B N H"]) -> Float[Array, "B O"]:
        return decode_attention(
            q,
            *self.pages[spec.kv_source],
            self._tables[spec.is_sliding],
            self.positions + 1,
            window=spec.window,
            implementation=self._implementation,
        )


class PagedMixed:
    """The first packed rows are the tokens of `decode`, the others those of `prefill`; both hold the same pages.

    The keys of all are kept before anybody attends: pages that are read between two writes would be copied.
    """

    def __init__(
        self,
        decode: PagedDecode,
        prefill: PagedPrefill,
        *,
        page_size: int,
        dtype: DTypeLike,
        implementation: Implementation | None,
    ):
        self._decode, self._prefill, self._rows = decode, prefill, len(decode.positions)
        unused = jnp.zeros(self._rows, bool) if decode.padding is None else decode.padding
        self.padding = jnp.concatenate([unused, prefill.padding])
        self._rope = RopeCache(jnp.concatenate([jnp.maximum(decode.positions, 0), prefill.positions]), dtype)
        self._slots: dict[bool, tuple[Array, Array]] = {}
        for is_sliding, (page, place) in prefill.slots.items():
            own_page, own_place = decode.slots(is_sliding=is_sliding, page_size=page_size)
            self._slots[is_sliding] = jnp.append(own_page, page), jnp.append(own_place, place)
        self._implementation: Implementation | None = implementation

    def attend(self, spec: LayerSpec, heads: Heads) -> Float[Array, "R O"]:
        q = self.keep(spec, heads)
        o = self._prefill.look(spec, q, first=self._rows)
        # Not `at[].set`: XLA would copy on another stream in every layer, which slowed the launches of all programs.
        return jnp.concatenate([self._decode.look(spec, q[: self._rows]), o[self._rows :]])

    def keep(self, spec: LayerSpec, heads: Heads) -> Float[Array, "R N H"]:
        pages, slots = self._prefill.pages, self._slots[spec.is_sliding]
        q, pages[spec.index] = _keep(spec, heads, self._rope, pages[spec.index], slots, self._implementation)
        return q


def _keep(
    spec: LayerSpec,
    heads: Heads,
    rope: RopeCache,
    pages: LayerPages,
    slots: tuple[Int[Array, " R"], Int[Array, " R"]],
    implementation: Implementation | None,
) -> tuple[Float[Array, "R N H"], LayerPages]:
    """q, and the pages with k and v of the rows in their slots."""
    q, *written = qkv_rope_write(
        heads.qkv,
        heads.q_norm,
        heads.k_norm,
        *rope(spec.rope),
        *pages,
        *slots,
        num_heads=heads.num_heads,
        k_eq_v=spec.k_eq_v,
        eps=heads.eps,
        implementation=implementation,
    )
    return q, LayerPages(*written)


def _slots(
    table: Int[Array, "R M"], rows: Int[Array, " T"], positions: Int[Array, " T"], page_size: int
) -> tuple[Int[Array, " T"], Int[Array, " T"]]:
    """Where each token's key goes: page and place in it; padding goes to page 0."""
    page = table[jnp.maximum(rows, 0), positions // page_size]
    return jnp.where(rows >= 0, page, 0), positions % page_size
