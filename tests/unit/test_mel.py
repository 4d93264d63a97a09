"""Log-mel frames against the published counts and values, and against transformers where it is installed."""

import numpy as np
import pytest

from g4jax.media.inputs import MediaError
from g4jax.media.mel import LONGEST, RATE, log_mel, soft_tokens, waveform_frames


def tone(samples: int, frequency: float = 440.0) -> np.ndarray:
    return np.sin(2 * np.pi * frequency * np.arange(samples) / RATE).astype(np.float32)


def noise(samples: int, loudness: float = 0.3) -> np.ndarray:
    return (loudness * np.random.default_rng(samples).standard_normal(samples)).astype(np.float32)


@pytest.mark.parametrize(
    "samples, frames, tokens",
    [(161, 1, 1), (321, 2, 1), (1_000, 6, 2), (16_000, 99, 25), (160_000, 999, 250), (480_000, 2_999, 750)],
)
def test_frames_and_tokens_of_a_length(samples, frames, tokens):
    mel = log_mel(tone(samples))
    assert mel.shape == (frames, 128) and mel.dtype == np.float32
    assert soft_tokens(frames) == tokens


def test_values_of_one_second_of_440_hz():
    mel = log_mel(tone(RATE))
    np.testing.assert_allclose(mel[0, :4], [-6.90776, 1.50148, 0.31608, 1.31304], atol=1e-4)
    np.testing.assert_allclose(mel[50, 24:28], [4.22040, 3.89104, 3.29670, 2.83293], atol=1e-4)
    np.testing.assert_allclose(mel.mean(), -4.66036, atol=1e-4)


def test_what_comes_after_half_a_minute_is_not_heard():
    long = noise(LONGEST + 5_000)
    np.testing.assert_array_equal(log_mel(long), log_mel(long[:LONGEST]))
    np.testing.assert_array_equal(waveform_frames(long), waveform_frames(long[:LONGEST]))


def test_silence_is_the_floor():
    np.testing.assert_allclose(log_mel(np.zeros(1_000, np.float32)), np.log(0.001), rtol=1e-6)


def test_too_short_for_a_frame():
    with pytest.raises(MediaError, match="160 samples.* at least 161"):
        log_mel(tone(160))
    with pytest.raises(MediaError, match="empty"):
        waveform_frames(tone(0))


def test_waveform_frames_are_filled_up_with_zeros():
    samples = noise(1_000)
    frames = waveform_frames(samples)
    assert frames.shape == (2, 640)
    np.testing.assert_array_equal(frames.reshape(-1)[:1_000], samples)
    assert not frames[1, 360:].any()
    assert waveform_frames(noise(1_280)).shape == (2, 640)
    assert waveform_frames(noise(LONGEST)).shape == (750, 640)


@pytest.mark.parametrize("samples", [161, 321, 480, 481, 5_000, 16_127, 48_000, 479_999, 500_000])
def test_equal_to_the_reference(samples):
    pytest.importorskip("torch")
    from transformers import Gemma4AudioFeatureExtractor

    waveform = noise(samples) * np.linspace(0, 1, samples, dtype=np.float32) ** 4
    both = Gemma4AudioFeatureExtractor()([waveform], return_tensors="np")
    valid = both["input_features_mask"][0]
    assert valid[: valid.sum()].all()
    np.testing.assert_allclose(log_mel(waveform), both["input_features"][0][valid], atol=1e-4)


def test_waveform_frames_equal_to_the_reference():
    pytest.importorskip("torch")
    from transformers.models.gemma4_unified.feature_extraction_gemma4_unified import Gemma4UnifiedAudioFeatureExtractor

    waveform = noise(3_333)
    expected = Gemma4UnifiedAudioFeatureExtractor()([waveform], return_tensors="np")["input_features"][0]
    np.testing.assert_array_equal(waveform_frames(waveform), expected)
