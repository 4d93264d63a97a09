"""Attention of packed prompt pieces over a paged cache."""

from pallas_kernels.prefill_attention.api import prefill_attention

__all__ = ["prefill_attention"]
