"""Logits of the engine against transformers: at every position, prefilled in pieces and decoded one by one.

The window (8) is shorter than the prompt (37), pieces (10) and pages (4) are no multiples of each other.
"""

import numpy as np
import pytest

from g4jax.engine.engine import Engine
from g4jax.engine.launch import build_engine
from g4jax.engine.options import EngineOptions
from g4jax.engine.scoring import decode_logits, prompt_logits
from g4jax.testing.configs import VARIANTS, Variant
from tests.parity.reference import LENGTH, STORED, reference_logits, reference_model, tokens, write_case

TOLERANCE = 1e-4


def engine(folder, **changes) -> Engine:
    settings = {"max_prefill_tokens": 10, "page_size": 4, "decode_steps": 1, "max_batch": 1, "dtype": "float32"}
    options = EngineOptions(model=str(folder), max_model_len=LENGTH + 1, **settings | changes)
    return build_engine(options, lambda text, done, total: None, compile_ahead=False)


@pytest.mark.parametrize("variant", VARIANTS)
def test_engine_agrees_with_stored_vectors(variant: Variant, tmp_path):
    write_case(tmp_path, variant)
    expected = np.load(STORED / f"{variant}.npz")["logits"]
    assert expected.std() > 0.1
    built, ids = engine(tmp_path), tokens(variant)
    np.testing.assert_allclose(np.concatenate([*prompt_logits(built, ids)]), expected, atol=TOLERANCE)
    np.testing.assert_allclose(np.concatenate([*decode_logits(built, ids)]), expected, atol=TOLERANCE)


@pytest.mark.parametrize("variant", VARIANTS)
def test_engine_agrees_with_a_checkpoint_that_transformers_wrote(variant: Variant, tmp_path):
    pytest.importorskip("torch")
    model = reference_model(variant, write_case(tmp_path / "ours", variant))
    model.save_pretrained(tmp_path / "theirs")
    expected = reference_logits(model, tokens(variant))
    # The stored vectors are this reference's.
    np.testing.assert_allclose(expected, np.load(STORED / f"{variant}.npz")["logits"], atol=TOLERANCE)
    logits = np.concatenate([*prompt_logits(engine(tmp_path / "theirs"), tokens(variant))])
    np.testing.assert_allclose(logits, expected, atol=TOLERANCE)
