"""Soft tokens of packed images of different shapes against transformers, which takes them one beside the other."""

import numpy as np
import pytest

from tests.kernels.device import KERNEL
from tests.parity.vision_reference import STORED, VISION_VARIANTS, VisionVariant, our_tokens, reference_tokens

TOLERANCE = 1e-4


def stored(variant: VisionVariant) -> np.ndarray:
    return np.load(STORED / f"vision-{variant}.npz")["tokens"]


@pytest.mark.parametrize("variant", VISION_VARIANTS)
def test_soft_tokens_agree_with_stored_vectors(variant: VisionVariant):
    tokens, expected = our_tokens(variant), stored(variant)
    assert expected.std() > 0.5
    np.testing.assert_allclose(tokens, expected, atol=TOLERANCE)


@pytest.mark.parametrize("variant", ["clipped", "standardized"])
def test_the_kernel_gives_the_same_soft_tokens(variant: VisionVariant):
    np.testing.assert_allclose(our_tokens(variant, KERNEL), stored(variant), atol=TOLERANCE)


@pytest.mark.parametrize("variant", VISION_VARIANTS)
def test_the_stored_vectors_and_all_names_are_the_reference_s(variant: VisionVariant):
    pytest.importorskip("torch")
    # Names: the reference loads our parameters strictly.
    np.testing.assert_allclose(reference_tokens(variant), stored(variant), atol=TOLERANCE)
