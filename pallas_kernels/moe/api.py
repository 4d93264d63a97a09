"""Mixture of experts: the router's choice and the chosen experts' feed-forward."""

from jaxtyping import Array, Bool, Float, Int

from pallas_kernels.core import Implementation, Unsupported, on_hopper, resolve
from pallas_kernels.moe import reference, triton


def route(
    logits: Float[Array, "R E"],
    per_expert_scale: Float[Array, " E"],
    padding: Bool[Array, " R"] | None = None,
    *,
    k: int,
    factor: float = 1.0,
    implementation: Implementation | None = None,
) -> tuple[Float[Array, "R k"], Int[Array, "R k"]]:
    """Picks `k` experts per row and weighs them.

    Softmax in float32 over `factor` times the logits of all experts, the k largest probabilities (of equal ones the
    lower id first), divided by their sum, times `per_expert_scale` of the chosen expert. The ids of `padding` are -1.

    Returns:
      The weights in float32, and the ids, largest probability first.

    Raises:
      ValueError: if `k` is more than the number of experts.
    """
    if k > logits.shape[1]:
        raise ValueError(f"k = {k} of {logits.shape[1]} experts: choose fewer.")
    chosen = resolve(implementation)
    if chosen != "reference":
        try:
            return triton.route(logits, per_expert_scale, padding, k=k, factor=factor, interpret=chosen == "interpret")
        except Unsupported:
            pass
    return reference.route(logits, per_expert_scale, padding, k=k, factor=factor)


def experts(
    u: Float[Array, "R D"],
    weights: Float[Array, "R k"],
    ids: Int[Array, "R k"],
    gate_up: Float[Array, "E G D"],
    down: Float[Array, "E D F"],
    *,
    implementation: Implementation | None = None,
) -> Float[Array, "R D"]:
    """The weighted sum of the chosen experts: sum_k w_k down_e(gelu_tanh(gate_e u) * (up_e u)).

    Args:
      u: the experts' input.
      weights: the weight of each choice.
      ids: the chosen experts. Ids outside 0 .. E-1 belong to another device and contribute nothing here.
      gate_up: per expert, F rows of gate, then F rows of up (F2 = 2 F).
      down: per expert, the projection back.
      implementation: see `core.resolve`.
    """
    chosen = resolve(implementation)
    if chosen == "triton" and on_hopper():
        try:
            from pallas_kernels.moe import mosaic

            return mosaic.experts(u, weights, ids, gate_up, down)
        except Unsupported:
            pass
    if chosen != "reference":
        try:
            return triton.experts(u, weights, ids, gate_up, down, interpret=chosen == "interpret")
        except Unsupported:
            pass
    return reference.experts(u, weights, ids, gate_up, down)
