"""The router's choice as one Pallas kernel (Triton): a warp per row holds all experts in registers."""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plt
from jaxtyping import Array, Bool, Float, Int

from pallas_kernels.core import Unsupported, launcher

MOST_EXPERTS = 1024


@launcher("k", "factor", "interpret")
def route(
    logits: Float[Array, "R E"],
    per_expert_scale: Float[Array, " E"],
    padding: Bool[Array, " R"] | None = None,
    *,
    k: int,
    factor: float = 1.0,
    interpret: bool = False,
) -> tuple[Float[Array, "R k"], Int[Array, "R k"]]:
    """See `api.route`."""
    num_rows, num_experts = logits.shape
    if num_experts > MOST_EXPERTS:
        raise Unsupported(f"{num_experts} experts do not fit the registers of a warp.")
    anywhere = pl.BlockSpec(memory_space=pl.ANY)
    inputs = [logits, per_expert_scale, *(() if padding is None else (padding.astype(jnp.int32),))]
    return pl.pallas_call(
        functools.partial(_kernel, k=k, factor=factor),
        grid=(num_rows,),
        in_specs=[anywhere] * len(inputs),
        out_specs=[anywhere] * 2,
        out_shape=[jax.ShapeDtypeStruct((num_rows, k), jnp.float32), jax.ShapeDtypeStruct((num_rows, k), jnp.int32)],
        interpret=interpret,
        name="moe_route",
        compiler_params=plt.CompilerParams(num_warps=1, num_stages=1),
    )(*inputs)


def _kernel(logits_ref, scale_ref, *refs, k: int, factor: float):
    *padding_ref, weights_ref, ids_ref = refs
    row, num_experts = pl.program_id(0), logits_ref.shape[1]
    expert = lax.iota(jnp.int32, pl.next_power_of_2(num_experts))
    slot = lax.iota(jnp.int32, pl.next_power_of_2(k))
    exists = expert < num_experts
    logits = plt.load(logits_ref.at[row, jnp.minimum(expert, num_experts - 1)]).astype(jnp.float32)
    logits = jnp.where(exists, logits * factor, -jnp.inf)
    p = jnp.exp(logits - jnp.max(logits))
    p = jnp.where(exists, p / jnp.sum(p), -1)

    def choose(i, carry):
        p, top, ids = carry
        best = jnp.max(p)
        # The first of equals; a row of NaN has no best and names the last expert, inside every array.
        chosen = jnp.minimum(jnp.min(jnp.where(p == best, expert, num_experts)), num_experts - 1)
        return jnp.where(expert == chosen, -1, p), jnp.where(slot == i, best, top), jnp.where(slot == i, chosen, ids)

    _, top, ids = lax.fori_loop(0, k, choose, (p, jnp.zeros(slot.shape, jnp.float32), jnp.zeros_like(slot)))
    weights = top / jnp.sum(top) * plt.load(scale_ref.at[ids]).astype(jnp.float32)
    place = jnp.where(slot < k, slot, k)
    plt.store(weights_ref.at[row, place], weights, mask=slot < k)
    for padding in padding_ref:
        ids = jnp.where(plt.load(padding.at[row]) > 0, -1, ids)
    plt.store(ids_ref.at[row, place], ids, mask=slot < k)
