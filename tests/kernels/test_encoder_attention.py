"""Images in slots: every implementation against a dense float64 softmax, image by image."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pallas_kernels.encoder_attention import encoder_attention, reference, triton
from pallas_kernels.encoder_attention.shapes import SHAPES
from tests.kernels.device import INTERPRET, KERNEL

BLOCKS = triton.Blocks(queries=16, keys=16, warps=4, stages=1)
CASES = [  # heads, head_dim, rows of a slot, rows of each image
    (2, 32, 54, (45, 18, 54)),
    (3, 64, 72, (9, 72, 0)),
    (2, 72, 90, (90, 27)),
    (1, 72, 64, (16, 32, 64)),  # images that end where blocks end, and blocks of padding alone
]


@functools.cache
def make(heads: int, head_dim: int, rows: int, lengths: tuple[int, ...], dtype: str = "float32"):
    """Random q, k and v, and how many rows of each slot are there."""
    rng = np.random.default_rng(head_dim)
    # Scores between about -30 and 30: a softmax that is neither flat nor a choice of one key.
    scales = (head_dim**-0.25 * 2, head_dim**-0.25 * 2, 1)
    operands = [jnp.asarray(s * rng.normal(size=(len(lengths), rows, heads, head_dim)), dtype) for s in scales]
    return *operands, jnp.asarray(lengths, jnp.int32)


def dense(q, k, v, lengths) -> np.ndarray:
    q, k, v = (np.asarray(a, np.float64) for a in (q, k, v))
    out = np.zeros(q.shape)
    for slot, length in enumerate(np.asarray(lengths)):
        if length:
            scores = np.einsum("pnh,snh->nps", q[slot, :length], k[slot, :length])
            p = np.exp(scores - scores.max(axis=2, keepdims=True))
            out[slot, :length] = np.einsum("nps,snh->pnh", p / p.sum(axis=2, keepdims=True), v[slot, :length])
    return out


def attend(implementation: str, args, blocks: triton.Blocks = BLOCKS) -> np.ndarray:
    """The kernel is called past the api, which would fall back to the reference where the kernel declines."""
    if implementation == "reference":
        return np.asarray(encoder_attention(*args, implementation="reference"), np.float64)
    return np.asarray(triton.encoder_attention(*args, interpret=INTERPRET, blocks=blocks), np.float64)


@pytest.mark.parametrize("implementation", ["reference", KERNEL])
@pytest.mark.parametrize("case", CASES)
def test_each_patch_attends_to_its_own_image(case, implementation):
    args = make(*case)
    np.testing.assert_allclose(attend(implementation, args), dense(*args), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("implementation", ["reference", KERNEL])
@pytest.mark.parametrize("case", CASES[1:3])
def test_bfloat16(case, implementation):
    args = make(*case, dtype="bfloat16")
    # Rounding the softmax weights and the result to 8 bits: 2^-8 of values up to about 3.
    np.testing.assert_allclose(attend(implementation, args), dense(*args), rtol=2**-7, atol=3 * 2**-8)


@pytest.mark.parametrize("implementation", ["reference", KERNEL])
def test_padding_gives_zeros_and_touches_nothing(implementation):
    q, k, v, lengths = make(*CASES[2])
    loud = tuple(a.at[1, 27:].set(1e30) for a in (q, k, v))
    got = attend(implementation, (*loud, lengths))
    assert (got[1, 27:] == 0).all()
    np.testing.assert_allclose(got, dense(q, k, v, lengths), rtol=1e-4, atol=1e-5)


def test_the_reference_cuts_long_inputs_and_has_a_gradient(monkeypatch):
    args = make(*CASES[0])
    whole = attend("reference", args)
    monkeypatch.setattr(reference, "BLOCK", 32)
    np.testing.assert_allclose(attend("reference", args), whole, rtol=1e-5, atol=1e-6)
    gradient = jax.grad(lambda q: jnp.sum(encoder_attention(q, *args[1:], implementation="reference") ** 2))(args[0])
    assert bool(jnp.isfinite(gradient).all()) and bool((gradient[1, 18:] == 0).all()) and bool((gradient != 0).any())


def test_a_head_of_72_is_cut_in_64_and_16():
    assert triton.cut(72) == (triton.Part(0, 64, 64), triton.Part(64, 16, 8))
    assert triton.cut(64) == (triton.Part(0, 64, 64),)
    assert triton.cut(32) == (triton.Part(0, 32, 32),)


@pytest.mark.parametrize("name, dtype", [("E2B", "bfloat16"), ("31B", "bfloat16"), ("E2B", "float32")])
def test_one_launch_and_no_spills(name, dtype):
    pytest.importorskip("jax_plugins.xla_cuda13")
    from g4jax.testing.compile_for_gpu import arg, compile_for_gpu

    heads = [arg((2, 2520, *SHAPES[name]), dtype)] * 3
    step = compile_for_gpu(
        triton.encoder_attention,
        *heads,
        arg((2,), "int32"),
        compiler_options={"xla_gpu_fail_ptx_compilation_on_register_spilling": True},
    )
    assert [launch.name.startswith("encoder_attention") for launch in step.launches] == [True]
