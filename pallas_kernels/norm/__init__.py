"""RMS norm, and the residual stream between two blocks of a layer."""

from pallas_kernels.norm.api import Residual, Splits, add_rms_norm, rms_norm, sum_rms_norm

__all__ = ["Residual", "Splits", "add_rms_norm", "rms_norm", "sum_rms_norm"]
