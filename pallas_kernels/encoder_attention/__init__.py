"""Attention of an encoder: whole images, packed end to end."""

from pallas_kernels.encoder_attention.api import encoder_attention

__all__ = ["encoder_attention"]
