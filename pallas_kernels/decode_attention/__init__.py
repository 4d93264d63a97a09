"""Attention of one new token per sequence to a paged cache."""

from pallas_kernels.decode_attention.api import attend_decode, decode_attention

__all__ = ["attend_decode", "decode_attention"]
