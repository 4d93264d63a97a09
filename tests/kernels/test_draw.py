"""The draw: the reference against its definition by sorting, and the kernels against the reference."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pallas_kernels.draw import Rules, largest, lines, reference, threefry, triton
from tests.kernels.device import INTERPRET, KERNEL

V = 24
OFF = dict(temperature=1.0, top_k=0, top_p=1.0, min_p=0.0, seed=0, index=0)
DTYPES = dict(top_k=np.int32, seed=np.uint32, index=np.int32)

jitted_draw = jax.jit(reference.draw, static_argnames=("cap", "barred"))


def make_rules(rows: int, **fields) -> Rules:
    values = {name: np.broadcast_to(value, rows) for name, value in (OFF | fields).items()}
    return Rules(**{name: jnp.array(v, DTYPES.get(name, np.float32)) for name, v in values.items()})


def draw(logits, rows: int, **fields) -> np.ndarray:
    """`rows` draws from one row of logits, each with a seed of its own."""
    batch = make_rules(rows, **({"seed": np.arange(rows)} | fields))
    return np.asarray(jitted_draw(jnp.broadcast_to(jnp.array(logits, jnp.float32), (rows, len(logits))), batch))


def oracle(logits, *, temperature=1.0, top_k=0, top_p=1.0, min_p=0.0) -> np.ndarray:
    """Probabilities by sorting, in float64: the definition, ties with the last kept token included."""
    scaled = np.asarray(logits, np.float64) / temperature
    if top_k > 0:
        scaled[scaled < np.sort(scaled)[::-1][min(top_k, len(scaled)) - 1]] = -np.inf
    if top_p < 1:
        p = softmax(scaled)
        better = np.array([p[scaled > value].sum() for value in scaled])
        scaled[(better >= top_p) & (scaled < scaled.max())] = -np.inf
    p = softmax(scaled)
    return softmax(np.where(p >= min_p * p.max(), scaled, -np.inf))


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max())
    return e / e.sum()


FILTERS = [
    {},
    {"top_k": 1},
    {"top_k": 5},
    {"top_k": V},
    {"top_k": 2**31 - 1},
    {"top_k": -1},
    {"top_p": 0.0},
    {"top_p": 0.3},
    {"top_p": 0.9},
    {"min_p": 0.1},
    {"min_p": 1.0},
    {"temperature": 0.3, "top_p": 0.8},
    {"temperature": 3.0, "min_p": 0.4},
    {"temperature": 1.7, "top_k": 9, "top_p": 0.7, "min_p": 0.2},
]


@pytest.mark.parametrize("fields", FILTERS, ids=str)
def test_draws_follow_the_sorted_definition(fields):
    logits = np.random.default_rng(1).normal(size=V) * 2
    expected = oracle(logits, **fields) * 4096
    seen = np.bincount(draw(logits, 4096, **fields), minlength=V)
    assert not seen[expected == 0].any()
    usual = expected > 5
    chi2 = ((seen - expected)[usual] ** 2 / expected[usual]).sum()
    assert chi2 < usual.sum() + 5 * np.sqrt(2 * usual.sum()), "further from the distribution than 5 sigma"


def test_equal_logits_are_kept_together():
    logits = [3.0, 1.0, 1.0, 1.0, 0.0]
    assert set(draw(logits, 512, temperature=3.0, top_k=2)) == {0, 1, 2, 3}
    assert set(draw([0.0] * 5, 512, top_p=0.1)) == {0, 1, 2, 3, 4}
    assert set(draw([0.0, -0.0, -1.0], 512, top_k=1)) == {0, 1}


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_what_is_kept_is_what_the_oracle_keeps(data):
    logits = data.draw(st.lists(st.integers(-40, 40), min_size=V, max_size=V).map(lambda x: np.array(x) / 4))
    fields = dict(
        top_k=data.draw(st.integers(-1, V + 2)),
        top_p=data.draw(st.sampled_from([0.0, 0.15, 0.55, 0.85, 0.999, 1.0])),
        min_p=data.draw(st.sampled_from([0.0, 0.03, 0.31, 1.0])),
    )
    # So hot that nearly every kept token is drawn; the filters see the scaled logits, as the oracle does.
    seen = np.bincount(draw(logits * 8, 4096, temperature=8.0, **fields), minlength=V)
    expected = oracle(logits * 8, temperature=8.0, **fields)
    assert not seen[expected == 0].any() and seen[expected > 0.01].all()


def test_a_large_vocabulary_and_its_tail():
    size, rows = 70_000, 64
    logits = np.full(size, -14.0)
    logits[17] = 0.0
    tail = 1 - oracle(logits)[17]
    drawn = draw(logits, rows)
    assert 0.02 < tail < 0.06 and 0 < (drawn != 17).sum() < 11
    assert set(draw(logits, rows, top_k=[1, 0] * 32, top_p=[1.0, 0.9] * 32)) == {17}


def test_a_vocabulary_that_fills_no_whole_number_of_lines():
    assert set(draw(np.arange(1100) / 1000, 64, top_k=3)) == {1097, 1098, 1099}


def test_the_noise_that_wins_is_fine_grained():
    """With jax's 2^23 random values half of these would be equal, and tokens below 1e-7 would hardly ever be drawn."""
    size = 2**22
    # This seed also draws a number so near 1 that float32 has no other name for it.
    noise = np.asarray(reference._gumbel_row(jnp.uint32(7), jnp.int32(2), vocab_size=size), np.float64)
    assert np.isfinite(noise).all()
    large = np.sort(noise)[-400:]
    assert len(set(large)) > 390
    below = np.exp(-np.exp(-large[0]))
    assert abs((1 - below) * size - 400) < 5 * np.sqrt(400)
    assert abs(noise.mean() - np.euler_gamma) < 0.01 and abs(noise.std() - np.pi / np.sqrt(6)) < 0.01


def test_a_row_depends_on_its_seed_and_index_alone():
    logits = jnp.array(np.random.default_rng(2).normal(size=(6, V)), jnp.float32)
    batch = make_rules(6, seed=[1, 2, 3, 1, 2, 3], index=[0, 7, 0, 1, 7, 0], top_k=[0, 3, 9, 0, 3, 9], top_p=0.9)
    together = np.asarray(jitted_draw(logits, batch))
    for row in range(6):
        alone = jax.tree.map(lambda field, row=row: field[row : row + 1], batch)
        assert jitted_draw(logits[row : row + 1], alone)[0] == together[row]
    order = np.array([3, 5, 0, 1, 4, 2])
    assert (jitted_draw(logits[order], jax.tree.map(lambda field: field[order], batch)) == together[order]).all()


def test_seed_and_index_each_change_the_draw():
    by_index = draw(np.zeros(V), 256, seed=5, index=np.arange(256))
    by_seed = draw(np.zeros(V), 256)
    assert len(set(by_index)) == len(set(by_seed)) == V and (by_index != by_seed).any()
    assert (by_index == draw(np.zeros(V), 256, seed=5, index=np.arange(256))).all()


@pytest.mark.parametrize("temperature", [0.0, 1e-40, 1e-6])
def test_no_temperature_is_greedy_in_a_mixed_batch(temperature):
    logits = jnp.array(np.random.default_rng(3).normal(size=(8, V)), jnp.float32)
    batch = make_rules(8, seed=np.arange(8), temperature=[temperature, 1.0] * 4)
    assert (jitted_draw(logits, batch)[::2] == jnp.argmax(logits, axis=-1)[::2]).all()


HARD = {
    "huge": [3e38, -3e38, 3e38],
    "inf": [-np.inf, 1.0, -np.inf],
    "one of many": [-np.inf] * (V - 1) + [-50.0],
    "nan": [np.nan, 1.0, -np.inf],
    "tiny": [1e-45, 0.0, -1e-45],
}


@pytest.mark.parametrize("name", HARD)
@pytest.mark.parametrize(
    "fields", [{}, {"temperature": 1e-3}, {"temperature": 100.0, "top_k": 2, "top_p": 0.5}], ids=str
)
def test_only_tokens_that_can_be_drawn_are(name, fields):
    logits = np.array(HARD[name])
    possible = np.flatnonzero(np.nan_to_num(logits, nan=-np.inf) > -1e38)
    assert set(draw(logits, 64, **fields)) <= set(possible)


def test_nothing_to_draw_is_still_a_token():
    assert set(draw([-np.inf] * V, 8)) <= set(range(V)) and set(draw([np.nan] * V, 8, top_k=3)) <= set(range(V))


def kernel_draw(logits, rules: Rules, **more) -> np.ndarray:
    return np.asarray(triton.draw(jnp.array(logits, jnp.float32), rules, **more, interpret=INTERPRET))


LINED = 80 * lines.LINE + 128
"""More lines than are looked at, and no multiple of what is looked at together."""
RULES = [
    {"top_k": 64, "top_p": 0.95},
    {"top_k": 1},
    {"top_k": [0, 1, 7, 64, 65, 900, -1, 3]},
    {"temperature": [0.0, 1.0] * 4, "top_k": [0, 64] * 4},
    {"top_p": [0.0, 0.3, 0.9, 0.999] * 2},
    {"top_k": 40, "top_p": 0.8, "min_p": [0.0, 0.05, 0.5, 1.0] * 2, "temperature": 3.0},
    {"min_p": 1.0},
    {"temperature": 1.3},
    {"temperature": [0.2, 1.0, 4.0, 40.0] * 2, "top_p": [0.95] * 4 + [0.5] * 4},
    {"temperature": 30.0, "min_p": [0.9, 0.3] * 4},
]


@pytest.mark.parametrize("rules", RULES, ids=str)
@pytest.mark.parametrize("size", [256, LINED])
def test_the_kernel_draws_what_the_reference_draws(size: int, rules: dict):
    logits = jnp.array(np.random.default_rng(size).normal(size=(8, size)) * 6, jnp.float32)
    batch = make_rules(8, seed=np.arange(8), index=5, **rules)
    for more in ({}, {"cap": 30.0, "barred": (3, int(jnp.argmax(logits[0])))}):
        expected = np.asarray(jitted_draw(logits, batch, **more))
        np.testing.assert_array_equal(kernel_draw(logits, batch, **more), expected)
        assert more == {} or not set(expected) & set(more["barred"])


@pytest.mark.parametrize("size", [lines.LINE, LINED])
def test_nothing_past_the_end_is_drawn(size: int):
    """A soft cap must make no ordinary token of what is no number or not there."""
    logits = np.full((16, size), np.nan)
    logits[:, 5] = -1e9
    for top_k in (0, 64):
        drawn = kernel_draw(logits, make_rules(16, seed=np.arange(16), temperature=50.0, top_k=top_k), cap=30.0)
        assert set(drawn) == {5}


@pytest.mark.parametrize("top_k", [0, 2, 64])
def test_the_kernel_keeps_hard_logits_apart(top_k: int):
    rng = np.random.default_rng(0)
    rows = [
        np.full(LINED, -np.inf),
        np.full(LINED, np.nan),
        np.where(np.arange(LINED) == 8200, -50.0, -np.inf),
        np.where(rng.random(LINED) < 0.5, np.nan, rng.normal(size=LINED)),
        np.where(np.arange(LINED) % 500 == 7, 3e38, -3e38),
        np.where(np.arange(LINED) == LINED - 1, 1e-45, -1e-45),
    ]
    batch = make_rules(len(rows), top_k=top_k, temperature=0.5)
    np.testing.assert_array_equal(kernel_draw(rows, batch), jitted_draw(jnp.array(rows, jnp.float32), batch))


def test_of_equal_lines_the_kernel_takes_the_first():
    """Where more lines are equal than it looks at, the reference keeps the tokens of all."""
    drawn = kernel_draw(np.zeros((64, LINED)), make_rules(64, seed=np.arange(64), top_k=2))
    assert len(set(drawn)) > 50 and max(drawn) < lines.PIECE


def test_the_lines_are_those_with_the_largest_maxima():
    rng = np.random.default_rng(1)
    maxima = np.stack([rng.normal(size=200), rng.integers(0, 3, 200), -np.arange(200.0), np.full(200, -np.inf)])
    found, top, left_out = lines.best_lines(jnp.array(maxima, jnp.float32), interpret=INTERPRET)
    order = np.argsort(-maxima, axis=1, kind="stable")
    np.testing.assert_array_equal(found, np.sort(order[:, : lines.LINES], axis=1))
    largest = np.take_along_axis(maxima, order[:, [0, lines.LINES]], axis=1).astype(np.float32)
    np.testing.assert_array_equal(np.stack([top, left_out], axis=1), largest)


def test_few_lines_are_all_looked_at():
    found, *_ = lines.best_lines(jnp.zeros((1, 5)), interpret=INTERPRET)
    assert found[0, :5].tolist() == [0, 1, 2, 3, 4]


def test_random_bits_are_those_of_jax():
    element = jnp.arange(1000, dtype=jnp.uint32)
    for seed, index in [(0, 0), (7, 3), (2**32 - 1, 2**31 - 1)]:
        seed, index = jnp.uint32(seed), jnp.uint32(index)
        expected = jax.random.bits(jax.random.fold_in(jax.random.key(seed, impl="threefry2x32"), index), (1000,))
        np.testing.assert_array_equal(threefry.bits(threefry.fold_in(seed, index), element), expected)


@pytest.mark.parametrize("implementation", ["reference", KERNEL])
@pytest.mark.parametrize("size", [256, LINED])
def test_the_largest_are_those_of_a_stable_sort(size: int, implementation):
    rng = np.random.default_rng(size)
    logits = np.stack([rng.normal(size=size), rng.integers(0, 3, size), np.zeros(size), -np.arange(size)])
    ids, values = largest(jnp.array(logits, jnp.float32), 20, implementation=implementation)
    expected = np.argsort(-logits, axis=1, kind="stable")[:, :20]
    np.testing.assert_array_equal(ids, expected)
    np.testing.assert_array_equal(values, np.take_along_axis(logits, expected, axis=1).astype(np.float32))


@pytest.mark.parametrize("implementation", ["reference", KERNEL])
def test_what_is_no_number_is_not_among_the_largest(implementation):
    logits = np.where(np.arange(LINED) % 3 == 0, np.nan, np.arange(LINED, dtype=np.float32))
    ids, values = largest(jnp.array(logits)[None], 5, implementation=implementation)
    expected = [token for token in range(LINED - 1, 0, -1) if token % 3][:5]
    assert ids[0].tolist() == expected == values[0].tolist()
