"""Mixture of experts in plain jax.numpy."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

DENSE_EXPERTS = 8
"""Up to so many experts are all computed for every row."""


def route(
    logits: Float[Array, "R E"],
    per_expert_scale: Float[Array, " E"],
    padding: Bool[Array, " R"] | None = None,
    *,
    k: int,
    factor: float = 1.0,
) -> tuple[Float[Array, "R k"], Int[Array, "R k"]]:
    """See `api.route`."""
    probabilities, ids = lax.top_k(jax.nn.softmax(logits.astype(jnp.float32) * factor, axis=-1), k)
    weights = probabilities / jnp.sum(probabilities, axis=-1, keepdims=True) * per_expert_scale.astype(jnp.float32)[ids]
    return weights, ids if padding is None else jnp.where(padding[:, None], -1, ids)


def experts(
    u: Float[Array, "R D"],
    weights: Float[Array, "R k"],
    ids: Int[Array, "R k"],
    gate_up: Float[Array, "E G D"],
    down: Float[Array, "E D F"],
) -> Float[Array, "R D"]:
    """See `api.experts`. Few experts are computed for every row; of many, each row gathers its own."""
    here = (ids >= 0) & (ids < gate_up.shape[0])
    weights = jnp.where(here, weights.astype(jnp.float32), 0)
    ids = jnp.where(here, ids, 0)
    form = _dense if gate_up.shape[0] <= DENSE_EXPERTS else _gathered
    return form(u, weights, ids, gate_up, down).astype(u.dtype)


def _dense(u, weights, ids, gate_up, down):
    per_expert = jnp.sum(jax.nn.one_hot(ids, gate_up.shape[0], dtype=jnp.float32) * weights[..., None], axis=1)
    h = _activate(_einsum("rd,efd->ref", u, gate_up)).astype(u.dtype)
    return jnp.sum(_einsum("ref,edf->red", h, down) * per_expert[..., None], axis=1)


def _gathered(u, weights, ids, gate_up, down):
    def one_row(row):
        x, w, chosen = row
        h = _activate(_einsum("d,kfd->kf", x, gate_up[chosen])).astype(u.dtype)
        return jnp.einsum("kd,k->d", _einsum("kf,kdf->kd", h, down[chosen]), w, precision=lax.Precision.HIGHEST)

    return lax.map(one_row, (u, weights, ids))


def _activate(gate_and_up: Float[Array, "... G"]) -> Float[Array, "... F"]:
    gate, up = jnp.split(gate_and_up, 2, axis=-1)
    return jax.nn.gelu(gate, approximate=True) * up


def _einsum(subscripts: str, x: Array, w: Array) -> Array:
    return jnp.einsum(subscripts, x, w, precision=lax.Precision.HIGHEST, preferred_element_type=jnp.float32)
