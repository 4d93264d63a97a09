"""One token per row from its logits: temperature, top-k, top-p, min-p and the draw."""

from pallas_kernels.draw.api import Rules, capped, draw

__all__ = ["Rules", "capped", "draw"]
