"""Attention for training: all scores at once, of which only the weights are kept for the gradient."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

Kept = tuple[Array, Array, Array, Array, Array]


@jax.custom_vjp
def attention(
    q: Float[Array, "*B T H"], k: Float[Array, "*B S H"], v: Float[Array, "*B S H"], seen: Bool[Array, "*C"]
) -> Float[Array, "*B T H"]:
    """softmax(q k^T) v over the keys of which `seen` (it broadcasts to [*B, T, S]) is true, the softmax in float32.

    A query that sees nothing gets the mean of all values.
    """
    return _forward(q, k, v, seen)[0]


def _forward(q: Array, k: Array, v: Array, seen: Array) -> tuple[Array, Kept]:
    scores = jnp.where(seen, _product("...th,...sh->...ts", q, k), -1e30)
    weights = jax.nn.softmax(scores, axis=-1).astype(q.dtype)
    out = _product("...ts,...sh->...th", weights, v).astype(q.dtype)
    return out, (q, k, v, weights, out)


def _backward(kept: Kept, gradient: Array) -> tuple[Array, Array, Array, None]:
    q, k, v, weights, out = kept
    # sum_s w_s dw_s equals out . gradient, which is much less to read.
    mean = jnp.sum(out.astype(jnp.float32) * gradient.astype(jnp.float32), axis=-1, keepdims=True)
    of_weights = _product("...th,...sh->...ts", gradient, v)
    of_scores = (weights.astype(jnp.float32) * (of_weights - mean)).astype(q.dtype)
    of_q = _product("...ts,...sh->...th", of_scores, k)
    of_k = _product("...ts,...th->...sh", of_scores, q)
    of_v = _product("...ts,...th->...sh", weights, gradient)
    return of_q.astype(q.dtype), of_k.astype(k.dtype), of_v.astype(v.dtype), None


attention.defvjp(_forward, _backward)


def _product(subscripts: str, a: Array, b: Array) -> Array:
    precision = lax.Precision.HIGHEST if a.dtype == jnp.float32 else None
    return jnp.einsum(subscripts, a, b, preferred_element_type=jnp.float32, precision=precision)
