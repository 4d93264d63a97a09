"""Mixture of experts: the router's choice and the experts' feed-forward."""

from pallas_kernels.moe.api import experts, route

__all__ = ["experts", "route"]
