"""One token per row from its logits: temperature, top-k, top-p, min-p and the draw; and the largest of them."""

from pallas_kernels.draw.api import Rules, capped, draw, largest

__all__ = ["Rules", "capped", "draw", "largest"]
