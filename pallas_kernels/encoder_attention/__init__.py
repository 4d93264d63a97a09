"""Attention of an encoder: every patch of an image to all of its patches."""

from pallas_kernels.encoder_attention.api import encoder_attention

__all__ = ["encoder_attention"]
