"""A conformer block: half a feed-forward, attention, a convolution over time, the other half."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, DTypeLike, Float

from g4jax.models.audio_attention import BandAttention
from g4jax.nn.clipped import ClippedLinear
from g4jax.nn.norm import RMSNorm
from g4jax.nn.param import param
from g4jax.tower_config import AudioConfig


class ConformerBlock(nnx.Module):
    """No token depends on a later one, and the last norm replaces the stream.

    The reference also clamps before its norms, to +-1e10, which changes nothing.
    """

    def __init__(self, config: AudioConfig, dtype: DTypeLike):
        d, eps = config.hidden_size, config.rms_norm_eps
        self.feed_forward1 = FeedForward(config, dtype)
        self.self_attn = BandAttention(config, dtype)
        self.lconv1d = LightConv(config, dtype)
        self.feed_forward2 = FeedForward(config, dtype)
        self.norm_pre_attn = RMSNorm(d, eps, dtype)
        self.norm_post_attn = RMSNorm(d, eps, dtype)
        self.norm_out = RMSNorm(d, eps, dtype)

    def __call__(self, x: Float[Array, "T D"]) -> Float[Array, "T D"]:
        x = self.feed_forward1(x)
        x = x + self.norm_post_attn(self.self_attn(self.norm_pre_attn(x)))
        return self.norm_out(self.feed_forward2(self.lconv1d(x)))


class FeedForward(nnx.Module):
    """x + residual_weight * post(W2 silu(W1 pre(x))), W1 [4D, D], W2 [D, 4D]."""

    def __init__(self, config: AudioConfig, dtype: DTypeLike):
        d, eps = config.hidden_size, config.rms_norm_eps
        self.ffw_layer_1 = ClippedLinear(4 * d, d, config.clipped, dtype)
        self.ffw_layer_2 = ClippedLinear(d, 4 * d, config.clipped, dtype)
        self.pre_layer_norm = RMSNorm(d, eps, dtype)
        self.post_layer_norm = RMSNorm(d, eps, dtype)
        self.residual_weight = config.residual_weight

    def __call__(self, x: Float[Array, "T D"]) -> Float[Array, "T D"]:
        h = self.ffw_layer_2(_silu(self.ffw_layer_1(self.pre_layer_norm(x))))
        return x + self.post_layer_norm(h) * self.residual_weight


class LightConv(nnx.Module):
    """x + end(silu(norm(conv(glu(start(pre(x))))))), start [2D, D]: the second half gates the first."""

    def __init__(self, config: AudioConfig, dtype: DTypeLike):
        d, eps = config.hidden_size, config.rms_norm_eps
        self.linear_start = ClippedLinear(2 * d, d, config.clipped, dtype)
        self.linear_end = ClippedLinear(d, d, config.clipped, dtype)
        self.depthwise_conv1d = CausalConv(d, config.conv_kernel_size, dtype)
        self.pre_layer_norm = RMSNorm(d, eps, dtype)
        self.conv_norm = RMSNorm(d, eps, dtype)

    def __call__(self, x: Float[Array, "T D"]) -> Float[Array, "T D"]:
        h = self.depthwise_conv1d(_glu(self.linear_start(self.pre_layer_norm(x))))
        return x + self.linear_end(_silu(self.conv_norm(h)))


class CausalConv(nnx.Module):
    """Every channel by itself over the token and those before it, weight [D, 1, K]; the last tap is the token's."""

    def __init__(self, channels: int, taps: int, dtype: DTypeLike):
        self.weight = param((channels, 1, taps), (None, None, None), dtype)

    def __call__(self, x: Float[Array, "T D"]) -> Float[Array, "T D"]:
        weight = self.weight[...].astype(jnp.float32)
        taps, tokens = weight.shape[-1], x.shape[0]
        padded = jnp.pad(x.astype(jnp.float32), ((taps - 1, 0), (0, 0)))
        parts = [padded[tap : tap + tokens] * weight[:, 0, tap] for tap in range(taps)]
        return jnp.stack(parts).sum(0).astype(x.dtype)


def _silu(x: Array) -> Array:
    # float32 inside and one rounding at the end, here and below, as the reference.
    return jax.nn.silu(x.astype(jnp.float32)).astype(x.dtype)


def _glu(x: Float[Array, "T D2"]) -> Float[Array, "T D"]:
    value, gate = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return (value * jax.nn.sigmoid(gate)).astype(x.dtype)
