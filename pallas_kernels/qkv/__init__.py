"""The head norms, the rotation, and the write of new keys and values into the paged cache."""

from pallas_kernels.qkv.api import qkv_rope, qkv_rope_write

__all__ = ["qkv_rope", "qkv_rope_write"]
