"""What a decode step must read at least: the physical limit that benchmarks compare with."""

from jaxtyping import DTypeLike

from g4jax.config import TextConfig
from g4jax.weights.abstract import abstract_model

GATHERED = "per_layer_inputs.embed_tokens_per_layer"
"""A table of which a step reads rows, never the whole."""


def decode_weight_bytes(config: TextConfig, batch: int, dtype: DTypeLike = "bfloat16") -> float:
    """Bytes of weights that one step of `batch` tokens reads, each once; experts as uniform routing hits them."""
    share = expert_share(config, batch)
    params = abstract_model(config, dtype).params
    return sum(p.nbytes * (share if ".experts." in p.path else 1.0) for p in params if p.path != GATHERED)


def expert_share(config: TextConfig, batch: int) -> float:
    """Expected share of the experts that `batch` tokens choose, were each choice uniform."""
    if not config.num_experts:
        return 1.0
    return 1.0 - (1.0 - config.top_k_experts / config.num_experts) ** batch


def decode_cache_bytes(config: TextConfig, context: int, itemsize: int = 2) -> int:
    """Bytes of keys and values that a token reads with `context` keys behind it, each layer reading its own."""
    keys = (min(context, spec.window or context) * spec.num_kv_heads * spec.head_dim for spec in config.layers)
    return 2 * itemsize * sum(keys)
