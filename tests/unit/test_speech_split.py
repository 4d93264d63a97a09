"""Where long speech is cut."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from g4jax.media.mel import RATE
from g4jax.media.speech_split import LEAST_S, split_at_silences


def speech(seconds: float, pauses: list[tuple[float, float]], hush: float = 0.01) -> np.ndarray:
    """Noise, quiet from the first to the second time of every pause."""
    samples = np.random.default_rng(0).normal(0, 0.2, int(seconds * RATE)).astype(np.float32)
    for start, stop in pauses:
        samples[int(start * RATE) : int(stop * RATE)] *= hush
    return samples


def test_short_sound_is_one_piece():
    assert split_at_silences(speech(30, [(10, 11)])) == [(0, 30 * RATE)]
    assert split_at_silences(np.zeros(0, np.float32)) == [(0, 0)]


@pytest.mark.parametrize("hush", [0.01, 0.0])
def test_cuts_in_the_middle_of_pauses(hush):
    pieces = split_at_silences(speech(75, [(5, 6), (24, 25), (26.9, 27), (50, 50.5)], hush))
    cuts = [stop / RATE for _, stop in pieces[:-1]]
    assert len(cuts) == 2
    # The long pause and not the gap within a word at 26.9; the pause at 5 s lies outside the search.
    assert 24.1 < cuts[0] < 24.9 and 50.1 < cuts[1] < 50.4


def test_takes_the_longest_part_that_is_all_alike():
    silent = split_at_silences(np.zeros(45 * RATE, np.float32))
    assert len(silent) == 2
    assert 20 <= silent[0][1] / RATE <= 30


def test_leaves_no_snippet_behind():
    pieces = split_at_silences(speech(30 + 1 / RATE, [(29.9, 30)]))
    assert [stop for _, stop in pieces][-1] == 30 * RATE + 1
    assert all(stop - start >= LEAST_S * RATE for start, stop in pieces)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 40 * RATE), st.floats(3, 12), st.integers(0, 100))
def test_covers_everything_in_pieces_that_fit(length, most_s, seed):
    rng = np.random.default_rng(seed)
    samples = rng.normal(size=length).astype(np.float32) * np.repeat(rng.random(length // 500 + 1) ** 4, 500)[:length]
    pieces = split_at_silences(samples.astype(np.float32), most_s)
    assert pieces[0][0] == 0 and pieces[-1][1] == length
    assert all(stop == start for (_, stop), (start, _) in zip(pieces, pieces[1:], strict=False))
    assert all(0 < stop - start <= most_s * RATE for start, stop in pieces)
