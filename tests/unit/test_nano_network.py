"""What nano is trained with is the model itself, with parts that learn faster: they must go on fitting into it."""

import jax.numpy as jnp
import numpy as np

from scripts.nano.network import PackedKeys, WatchedRouter, build, sparse


def test_the_network_of_the_training_runs():
    model = build(0)
    segments = jnp.asarray(np.repeat([[1, 2]], 4, axis=1), jnp.uint16)
    tokens = jnp.arange(8, dtype=jnp.int32) + 5
    logits = model.logits(model(tokens, PackedKeys(segments, jnp.float32)))
    assert bool(jnp.isfinite(logits).all())
    routers = [sparse(layer).router for layer in model.layers]
    assert all(isinstance(router, WatchedRouter) and router.unevenness[...] > 0 for router in routers)
