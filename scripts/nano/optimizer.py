"""The optimiser: Muon for the matrices inside the layers, Adam for tables, routers, convolutions, norms and scalars."""

from collections.abc import Hashable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from scripts.nano.encoders import PARTS

MUON_RATE = 0.02
ADAM_RATE = 3e-3
MOMENTUM = 0.95
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)

Named = dict[str, Array]
"""Parameters or their gradients by name, e.g. `layers.0.mlp.down_proj.weight`."""


def is_encoder(name: str) -> bool:
    """Whether a parameter belongs to the eyes or the ears."""
    return name.startswith(PARTS)


def kind(name: str, leaf: Array) -> str:
    """What takes care of a parameter: Muon of the layers' projections, experts included, nothing of the clamps."""
    if is_encoder(name):
        return "still" if leaf.ndim == 0 else "muon" if leaf.ndim == 2 else "adam"
    return "muon" if name.startswith("layers.") and leaf.ndim >= 2 and "router" not in name else "adam"


def optimizer(params: Named) -> optax.GradientTransformation:
    """Updates for rate 1; scale them by `rate` (warm-up and decay) before they are applied."""
    labels = {name: kind(name, leaf) for name, leaf in params.items()}
    muon = optax.chain(optax.trace(MOMENTUM, nesterov=True), _orthogonalized(), optax.scale(-MUON_RATE))
    adam = optax.chain(optax.scale_by_adam(b1=0.9, b2=0.99), optax.scale(-ADAM_RATE))
    rules: dict[Hashable, optax.GradientTransformation] = {"muon": muon, "adam": adam, "still": optax.set_to_zero()}
    return optax.chain(optax.clip_by_global_norm(1.0), optax.partition(rules, labels))


def rate(progress: float, step: int) -> float:
    """Learning rate factor: warm-up over 100 steps, level, then linear to 0. `progress` runs from 0 to 1."""
    return min(1.0, (step + 1) / 100) * min(1.0, max(0.0, 1 - progress) / 0.6)


def _orthogonalized() -> optax.GradientTransformation:
    def update(updates, state, params=None):
        del params
        return _orthogonal_leaves(updates), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def _orthogonal_leaves(updates):
    """All matrices of one shape go through the iteration together: fewer launches."""
    leaves, tree = jax.tree.flatten(updates)
    by_shape: dict[tuple[int, ...], list[int]] = {}
    for index, leaf in enumerate(leaves):
        by_shape.setdefault(leaf.shape[-2:], []).append(index)
    out = list(leaves)
    for (rows, columns), indices in by_shape.items():
        stack = jnp.concatenate([leaves[index].reshape(-1, rows, columns) for index in indices])
        done, start = orthogonal(stack), 0
        for index in indices:
            count = leaves[index].size // (rows * columns)
            out[index] = done[start : start + count].reshape(leaves[index].shape)
            start += count
    return jax.tree.unflatten(tree, out)


def orthogonal(g: Float[Array, "S M N"]) -> Float[Array, "S M N"]:
    """Roughly U V^T of each g = U S V^T, by five Newton-Schulz steps, times sqrt(max(1, M/N)) (Jordan et al., 2024)."""
    a, b, c = NEWTON_SCHULZ
    rows, columns = g.shape[1:]
    x = g.swapaxes(1, 2) if rows > columns else g
    x = x / (jnp.linalg.norm(x, axis=(1, 2), keepdims=True) + 1e-7)
    for _ in range(5):
        square = x @ x.swapaxes(1, 2)
        x = a * x + (b * square + c * square @ square) @ x
    x = x.swapaxes(1, 2) if rows > columns else x
    return x * max(1.0, rows / columns) ** 0.5
