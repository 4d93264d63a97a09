"""What a model with encoders of random weights makes of media: the whole way, from the request to the device."""

import httpx
import pytest

from g4jax.config import Gemma4Config
from g4jax.engine.launch import build_engine
from g4jax.engine.options import EngineOptions
from g4jax.media.fetch import FetchPolicy
from g4jax.media.processor import MediaProcessor
from g4jax.testing.byte_tokenizer import CONTROL_IDS, byte_tokenizer
from g4jax.testing.checkpoints import write_checkpoint
from g4jax.testing.encoder_configs import tiny_with_encoders
from server.media_reader import MediaReader
from tests.server.conftest import running
from tests.server.media_samples import audio_part, film, image_part, picture, sound, text, video_part

TOKEN_IDS = {f"{kind}_token_id": CONTROL_IDS[kind] for kind in ("image", "audio", "video")}
ROUTE = "/v1/chat/completions"


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny-with-encoders")
    raw = tiny_with_encoders("e4b", vocab_size=512, **TOKEN_IDS)
    write_checkpoint(folder, raw)
    byte_tokenizer(folder)
    options = EngineOptions(
        str(folder), dtype="float32", max_batch=1, max_model_len=768, max_prefill_tokens=128, decode_steps=1
    )
    engine = build_engine(options, lambda *_: None, compile_ahead=False)
    media = MediaReader(MediaProcessor(Gemma4Config.from_dict(raw), max_soft_tokens=70), FetchPolicy())
    with running(engine, media=media) as server:
        yield server


def likeliest(served, *content: dict) -> tuple[list[tuple[str, float]], int]:
    """The first token's candidates, and how much of the prompt was in the cache."""
    body = {"messages": [{"role": "user", "content": list(content)}], "max_tokens": 1, "temperature": 0}
    answer = httpx.post(served.url + ROUTE, json=body | {"logprobs": True, "top_logprobs": 10}, timeout=120).json()
    (entry,) = answer["choices"][0]["logprobs"]["content"]
    cached = answer["usage"]["prompt_tokens_details"]["cached_tokens"]
    return [(top["token"], round(top["logprob"], 4)) for top in entry["top_logprobs"]], cached


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (image_part(picture(seed=1)), image_part(picture(seed=2))),
        (audio_part(sound(3.0, seed=1)), audio_part(sound(3.0, seed=2))),
        (video_part(film(2)), video_part(film(2, brightest=100))),
    ],
)
def test_answer_depends_on_the_medium(served, one, other):
    question = text("What is it?")
    first, _ = likeliest(served, one, question)
    second, _ = likeliest(served, other, question)
    again, cached = likeliest(served, one, question)
    assert first != second and again == first and cached >= 32


def test_same_picture_in_another_place(served):
    """Pages before the first medium are shared, those of another medium never."""
    likeliest(served, image_part(picture(seed=5)), text("x"))
    _, cached = likeliest(served, image_part(picture(seed=6)), text("x"))
    assert cached < 32
