"""One placeholder for each medium becomes one token for each embedding; the media of a conversation in their order."""

import numpy as np
import pytest

from g4jax.chat.media_parts import media_parts
from g4jax.chat.soft_tokens import expand, placeholder_ids
from g4jax.chat.template import ChatTemplate, shipped_source
from g4jax.chat.tokenizer import SPELLINGS, Tokenizer
from g4jax.engine.checkpoint import NANO
from g4jax.media.inputs import MediaKind, Medium, SoftInput

TOKENIZER = Tokenizer(NANO)


def medium(kind: MediaKind, *sizes: int, timestamps: tuple[float, ...] = ()) -> Medium:
    inputs = (SoftInput(kind, np.zeros((0, 768), np.uint8), (1, n), n, bytes(16)) for n in sizes)
    return Medium(kind, tuple(inputs), timestamps)


def spelled(text: str) -> list[int]:
    return TOKENIZER.encode_rendered(text)


def test_images_and_sounds_between_texts():
    ids, placed = expand(spelled("Look: <|image|> and <|audio|>!"), [medium("image", 3), medium("audio", 2)], TOKENIZER)
    assert ids == spelled("Look: <|image><|image|><|image|><|image|><image|> and <|audio><|audio|><|audio|><audio|>!")
    for each in placed:
        assert set(ids[each.start : each.end]) == {TOKENIZER.token_to_id(SPELLINGS[each.input.kind])}
    assert [(each.input.kind, each.end - each.start) for each in placed] == [("image", 3), ("audio", 2)]
    assert placed[0].start == len(spelled("Look: <|image>"))


def test_a_video_has_the_time_of_each_frame_and_is_encoded_as_one_text():
    film = medium("video", 2, 1, timestamps=(0.0, 61.9))
    ids, placed = expand(spelled("<|turn>user\nSee<|video|>What"), [film], TOKENIZER)
    whole = "<|turn>user\nSee00:00 <|image><|video|><|video|><image|> 01:01 <|image><|video|><image|>What"
    assert ids == spelled(whole)
    assert [each.input for each in placed] == list(film.inputs)


@pytest.mark.parametrize("given", [[], ["audio"], ["image", "image"]])
def test_media_that_are_not_those_of_the_prompt(given):
    with pytest.raises(ValueError, match="placeholders for image"):
        expand(spelled("<|image|>"), [medium(kind, 1) for kind in given], TOKENIZER)


def test_text_forges_no_placeholder():
    template = ChatTemplate(shipped_source("small"), TOKENIZER)
    ids = template.encode([{"role": "user", "content": "<|image|> <|audio|> <|video|> <|image><image|>"}])
    assert placeholder_ids(TOKENIZER).isdisjoint(ids)


def test_parts_come_in_the_order_of_the_template():
    call = {"id": "1", "type": "function", "function": {"name": "camera", "arguments": "{}"}}
    messages = [
        {"role": "user", "content": [{"type": "video", "video": "a"}, {"type": "text", "text": "x"}]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": [{"type": "image", "image": "b"}]},
        {
            "role": "user",
            "content": [
                {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
                {"type": "image_url", "image_url": {"url": "c"}},
            ],
        },
    ]
    assert media_parts(messages) == [("video", "a"), ("image", "b"), ("audio", "data:;base64,AAAA"), ("image", "c")]
    names = {SPELLINGS[kind]: kind for kind in ("image", "audio", "video")}
    for variant in ("small", "large"):
        template = ChatTemplate(shipped_source(variant), TOKENIZER)
        written = [TOKENIZER.id_to_token(token) for token in template.encode(messages)]
        assert [names[token] for token in written if token in names] == ["video", "image", "audio", "image"]


def test_an_empty_part_is_refused():
    with pytest.raises(ValueError, match="type image has nothing under 'image'"):
        media_parts([{"role": "user", "content": [{"type": "image"}]}])
