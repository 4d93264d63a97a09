"""The attention layers of the released models, and the loads they are timed with."""

from pallas_kernels.qkv.shapes import PAGE_SIZE, SHAPES, Shape

__all__ = ["BATCHES", "CONTEXTS", "PAGE_SIZE", "SHAPES", "Shape"]

CONTEXTS = (1024, 8192, 32768)
BATCHES = (1, 8, 32, 100)
