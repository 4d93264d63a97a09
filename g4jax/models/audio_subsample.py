"""From log-mel frames to the audio tower's tokens: two convolutions, each halving time and frequency."""

import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, DTypeLike, Float, Int

from g4jax.nn.clipped import Linear
from g4jax.nn.param import param
from g4jax.tower_config import MEL_BINS, AudioConfig


class Subsample(nnx.Module):
    """layer0, layer1, then input_proj_linear [D, 32 C] of a token's 32 bands of C channels, channels fastest."""

    def __init__(self, config: AudioConfig, dtype: DTypeLike):
        first, second = config.subsampling_channels
        self.layer0 = HalvingLayer(1, first, config.rms_norm_eps, dtype)
        self.layer1 = HalvingLayer(first, second, config.rms_norm_eps, dtype)
        self.input_proj_linear = Linear(config.hidden_size, MEL_BINS // 4 * second, dtype)

    def __call__(self, frames: Float[Array, "F 128"], length: Int[Array, ""]) -> Float[Array, "T D"]:
        """The T = F / 4 tokens of frames, of which `length` are sound."""
        x = self.layer0(frames[:, :, None], length)
        x = self.layer1(x, (length + 1) // 2)
        return self.input_proj_linear(x.reshape(x.shape[0], -1))


class HalvingLayer(nnx.Module):
    """relu(norm(conv(x))) of the first `length` frames, those beyond being zeros as those before the beginning are."""

    def __init__(self, channels: int, out: int, eps: float, dtype: DTypeLike):
        self.conv = HalvingConv(channels, out, dtype)
        self.norm = ChannelNorm(out, eps, dtype)

    def __call__(self, x: Float[Array, "F B C"], length: Int[Array, ""]) -> Float[Array, "F2 B2 O"]:
        valid = jnp.arange(x.shape[0]) < length
        return jnp.maximum(self.norm(self.conv(jnp.where(valid[:, None, None], x, 0))), 0)


class HalvingConv(nnx.Module):
    """A 3 x 3 convolution with stride 2 and one zero around, weight [O, C, 3, 3]. Frames and bands must be even.

    One matrix product: the nine taps of every output stand side by side.
    """

    def __init__(self, channels: int, out: int, dtype: DTypeLike):
        self.weight = param((out, channels, 3, 3), (None, None, None, None), dtype)

    def __call__(self, x: Float[Array, "F B C"]) -> Float[Array, "F2 B2 O"]:
        weight = self.weight[...]
        frames, bands, _ = x.shape
        padded = jnp.pad(x.astype(weight.dtype), ((1, 1), (1, 1), (0, 0)))
        taps = [padded[i : i + frames : 2, j : j + bands : 2] for i in range(3) for j in range(3)]
        columns = jnp.stack(taps, axis=-1).reshape(frames // 2, bands // 2, -1)
        precision = lax.Precision.HIGHEST if weight.dtype == jnp.float32 else None
        return jnp.matmul(columns, weight.reshape(weight.shape[0], -1).T, precision=precision)


class ChannelNorm(nnx.Module):
    """(x - mean) * (variance + eps)^-1/2 * weight over the channels, in float32."""

    def __init__(self, channels: int, eps: float, dtype: DTypeLike):
        self.weight = param((channels,), (None,), dtype)
        self.eps = eps

    def __call__(self, x: Float[Array, "*B C"]) -> Float[Array, "*B C"]:
        wide = x.astype(jnp.float32)
        centred = wide - wide.mean(axis=-1, keepdims=True)
        normed = centred * lax.rsqrt(jnp.square(centred).mean(axis=-1, keepdims=True) + self.eps)
        return (normed * self.weight[...].astype(jnp.float32)).astype(x.dtype)
