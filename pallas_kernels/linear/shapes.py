"""The products of the released models, as they stand in a layer."""

from __future__ import annotations

from typing import NamedTuple

from pallas_kernels.linear.reference import Activation


class Shape(NamedTuple):
    """N results of depth K (the weight has 2N rows if gated); `normed`: the operand is the residual stream."""

    model: str
    name: str
    n: int
    k: int
    activation: Activation | None = None
    normed: bool = False
    then: bool = True
    """The stream is normed before the product; the per-layer gate takes it as it stands."""
    summed: bool = False
    """Whoever reads the result sums splits: the next norm of the stream, or what norms and turns q, k, v."""

    @property
    def weight(self) -> tuple[int, int]:
        return (2 * self.n if self.activation == "gated" else self.n, self.k)


def _per_layer(model: str, d: int) -> tuple[Shape, ...]:
    return (
        Shape(model, "per_layer_gate", 256, d, "times", normed=True, then=False),
        Shape(model, "per_layer_projection", d, 256, summed=True),
    )


def _attention(model: str, d: int, kind: str, qkv: int, heads: int) -> tuple[Shape, ...]:
    in_ = Shape(model, f"qkv {kind}", qkv, d, normed=True, summed=True)
    return in_, Shape(model, f"o {kind}", d, heads, summed=True)


def _mlp(model: str, d: int, f: int, *, summed: bool = True) -> tuple[Shape, ...]:
    gate_up = Shape(model, f"gate_up {f}", f, d, "gated", normed=True)
    return gate_up, Shape(model, f"down {f}", d, f, summed=summed)


def _head(model: str, d: int) -> tuple[Shape, ...]:
    return (Shape(model, "head", 262144, d, normed=True),)


SHAPES: tuple[Shape, ...] = (
    *_attention("E2B", 1536, "sliding", 2560, 2048),
    *_attention("E2B", 1536, "full", 5120, 4096),
    *_mlp("E2B", 1536, 6144),
    *_mlp("E2B", 1536, 12288),
    *_per_layer("E2B", 1536),
    *_head("E2B", 1536),
    *_attention("E4B", 2560, "sliding", 3072, 2048),
    *_attention("E4B", 2560, "full", 6144, 4096),
    *_mlp("E4B", 2560, 10240),
    *_per_layer("E4B", 2560),
    *_head("E4B", 2560),
    *_attention("26B-A4B", 2816, "sliding", 8192, 4096),
    *_attention("26B-A4B", 2816, "full", 9216, 8192),
    *_mlp("26B-A4B", 2816, 2112, summed=False),
    Shape("26B-A4B", "router", 128, 2816),
    *_head("26B-A4B", 2816),
    *_attention("31B", 5376, "sliding", 16384, 8192),
    *_attention("31B", 5376, "full", 18432, 16384),
    *_mlp("31B", 5376, 21504),
    *_head("31B", 5376),
)
