"""What is differentiated and compiled: the loss of a batch of text and one of media, and the step that lowers it."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import lax

from scripts.nano import encoders, network
from scripts.nano.media_rows import MediaRows
from scripts.nano.optimizer import Named, is_encoder
from scripts.nano.packing import Rows

PROMPT_WEIGHT = 0.05
BALANCE_WEIGHT = 0.01


class Part:
    """A module as a pure function of named parameters."""

    def __init__(self, module: nnx.Module):
        self.graph, params, self.rest = nnx.split(module, nnx.Param, ...)
        leaves, self.tree = jax.tree_util.tree_flatten_with_path(params)
        self.names = [network.path_name(path) for path, _ in leaves]
        self.params: Named = {name: leaf for name, (_, leaf) in zip(self.names, leaves, strict=True)}

    def merged(self, params: Named, dtype: Any) -> Any:
        """The module with these parameters, cast to `dtype`. Single numbers, the clamps', have no gradient."""
        leaves = [params[name].astype(dtype) for name in self.names]
        leaves = [lax.stop_gradient(leaf) if leaf.ndim == 0 else leaf for leaf in leaves]
        return nnx.merge(self.graph, jax.tree_util.tree_unflatten(self.tree, leaves), self.rest)


class Network:
    """The text model and its encoders, with random parameters to begin with."""

    def __init__(self, seed: int):
        self.text, self.encoders = Part(network.build(seed)), Part(encoders.build(seed))
        self.params: Named = self.text.params | self.encoders.params

    def logits(
        self, params: Named, dtype: Any, rows: Rows | None, media: MediaRows | None
    ) -> tuple[jax.Array, jax.Array]:
        """Logits of the text rows and then the media rows, and the routers' unevenness."""
        parts = [part for part in (rows, media) if part is not None]
        tokens = jnp.concatenate([part.tokens for part in parts])
        segments = jnp.concatenate([part.segments for part in parts])
        model = self.text.merged(params, dtype)
        if media is None:
            return network.packed_logits(model, tokens, segments)
        towers = self.encoders.merged(params, dtype)
        soft = encoders.embeddings(towers, media.pixels, media.grids, media.frames, media.lengths, dtype)
        source = jnp.pad(media.source, [(len(tokens) - len(media.source), 0), (0, 0)])
        return network.packed_logits(model, tokens, segments, soft, source)

    def predict(self, params: Named, tokens: jax.Array, segments: jax.Array, dtype: Any) -> jax.Array:
        """The likeliest next token at every place of text rows."""
        rows = Rows(tokens, segments, None)
        return jnp.argmax(self.logits(params, dtype, rows, None)[0], axis=-1).astype(jnp.uint16)

    def predict_media(self, params: Named, media: MediaRows, dtype: Any) -> jax.Array:
        """The same of media rows."""
        return jnp.argmax(self.logits(params, dtype, None, media)[0], axis=-1).astype(jnp.uint16)


def loss(
    net: Network, dtype: Any, params: Named, rows: Rows, media: MediaRows
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The mean cross entropy of both kinds of rows, one as much as the other, and the balance of the experts."""
    logits, unevenness = net.logits(params, dtype, rows, media)
    count = len(rows.tokens)
    text, text_replies = _entropy(logits[:count], rows, jnp.zeros_like(rows.tokens, jnp.int32))
    seen, seen_replies = _entropy(logits[count:], Rows(media.tokens, media.segments, media.replies), media.source)
    metrics = {"loss": text_replies, "media": seen_replies, "unevenness": unevenness}
    return text + seen + BALANCE_WEIGHT * unevenness, metrics


def _entropy(logits: jax.Array, rows: Rows, source: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean cross entropy of the next token, replies counting fully, prompts a little and embeddings not at all; and
    that of the replies alone."""
    tokens, segments, replies, taken = (jnp.pad(x[:, 1:], [(0, 0), (0, 1)]) for x in (*rows, source))
    right = jnp.arange(logits.shape[-1]) == tokens.astype(jnp.int32)[..., None]
    entropy = jax.nn.logsumexp(logits, axis=-1) - jnp.sum(jnp.where(right, logits, 0), axis=-1)
    replies = replies.astype(jnp.float32)
    inside = (segments == rows.segments) & (rows.segments > 0) & (taken == 0)
    weights = inside * (replies + PROMPT_WEIGHT * (1 - replies))
    return jnp.sum(entropy * weights) / jnp.sum(weights), jnp.sum(entropy * replies) / jnp.sum(replies)


def make_step(net: Network, transform: optax.GradientTransformation, dtype: Any) -> Callable[..., Any]:
    """The compiled step: (params, state, rows, media, text rate, encoder rate) -> (params, state, metrics). The first
    two are given up."""

    @partial(jax.jit, donate_argnums=(0, 1))
    def step(params: Named, state: optax.OptState, rows: Rows, media: MediaRows, text: jax.Array, encoder: jax.Array):
        graded = jax.value_and_grad(partial(loss, net, dtype), has_aux=True)
        (_, metrics), gradients = graded(params, rows, media)
        updates: Any
        updates, state = transform.update(gradients, state, params)
        params = {name: x + (encoder if is_encoder(name) else text) * updates[name] for name, x in params.items()}
        return params, state, metrics

    return step
