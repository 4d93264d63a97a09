"""Logits after images, sounds and videos against transformers: through the encoders, the store and the paged engine.

On causal models pieces of 7 tokens cut the images; on the others a piece holds every image whole.
"""

import numpy as np
import pytest

from g4jax.engine.engine import Engine
from g4jax.engine.launch import build_engine
from g4jax.engine.options import EngineOptions
from g4jax.engine.scoring import decode_logits, prompt_logits
from g4jax.testing.configs import VARIANTS, Variant
from g4jax.testing.reference_logits import reference_logits
from tests.parity.media_reference import prompt, write_case
from tests.parity.reference import STORED

TOLERANCE = 1e-4


def engine(folder, **changes) -> Engine:
    settings = {"max_prefill_tokens": 7, "page_size": 4, "decode_steps": 1, "max_batch": 1, "dtype": "float32"}
    options = EngineOptions(model=str(folder), max_model_len=128, **settings | changes)
    return build_engine(options, lambda text, done, total: None, compile_ahead=False)


@pytest.fixture(scope="module", params=VARIANTS)
def case(request, tmp_path_factory) -> tuple[Variant, Engine]:
    folder = tmp_path_factory.mktemp(request.param)
    write_case(folder, request.param)
    return request.param, engine(folder)


def test_engine_agrees_with_stored_vectors(case):
    variant, built = case
    expected = np.load(STORED / f"media_{variant}.npz")["logits"]
    assert expected.std() > 0.1
    ids, media = prompt(variant)
    np.testing.assert_allclose(np.concatenate([*prompt_logits(built, ids, media)]), expected, atol=TOLERANCE)
    # Behind the last medium, through the decode step.
    decoded = np.concatenate([*decode_logits(built, ids, media[-1].end + 1, media)])
    np.testing.assert_allclose(decoded, expected, atol=TOLERANCE)


def test_the_media_matter(case):
    variant, built = case
    ids, media = prompt(variant)
    logits = np.concatenate([*prompt_logits(built, ids, media)])
    for placed in media:
        others = tuple(other for other in media if other is not placed)
        without = np.concatenate([*prompt_logits(built, ids, others)])
        assert np.abs(logits - without)[placed.start :].max() > 100 * TOLERANCE


@pytest.mark.parametrize("variant", VARIANTS)
def test_stored_vectors_are_those_of_transformers(variant: Variant, tmp_path):
    pytest.importorskip("torch")
    write_case(tmp_path, variant)
    expected = reference_logits(str(tmp_path), *prompt(variant), "float32")
    np.testing.assert_allclose(np.load(STORED / f"media_{variant}.npz")["logits"], expected, atol=TOLERANCE)
