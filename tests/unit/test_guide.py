"""What may come next: thoughts, budgets, ends, and the vocabulary behind it."""

import time

import numpy as np
import pytest

from g4jax.chat.tokenizer import Tokenizer
from g4jax.guide import GrammarError, Guide, Guides, GuideSpec, choice, json_object, lark, regex
from g4jax.guide.masks import fill_masks
from g4jax.guide.vocabulary import Vocabulary
from g4jax.testing.byte_tokenizer import FIRST_BYTE_ID, byte_tokenizer

TOKENIZER = byte_tokenizer()
CONTROL = TOKENIZER.control
STOPS = TOKENIZER.stop_ids
VOCAB_SIZE = TOKENIZER.vocab_size + 45
GUIDES = Guides(TOKENIZER, VOCAB_SIZE, STOPS)
TEXT = {i for i in range(TOKENIZER.vocab_size) if TOKENIZER.token_bytes(i)} - {FIRST_BYTE_ID + 0xFF}


def allowed(guide: Guide) -> set[int]:
    row = np.full(-(-VOCAB_SIZE // 32), 0xFFFFFFFF, np.uint32)
    fill_masks([guide], row[None])
    return set(np.flatnonzero(np.unpackbits(row.view(np.uint8), bitorder="little")).tolist())


def ids(text: str) -> list[int]:
    return TOKENIZER.encode_text(text)


def accept(guide: Guide, tokens: list[int]) -> None:
    for token in tokens:
        assert token in allowed(guide), TOKENIZER.id_to_token(token)
        guide.accept(token)
        assert guide.error is None


def texts(guide: Guide) -> set[str]:
    return {TOKENIZER.decode([i]) for i in allowed(guide) if i < FIRST_BYTE_ID or i >= FIRST_BYTE_ID + 256}


def test_only_what_fits_is_allowed_and_then_only_the_end():
    guide = GUIDES.start(GuideSpec(choice(["value", "via"])))
    accept(guide, ids("v"))
    assert texts(guide) == {"a", "i"} and not allowed(guide) & TOKENIZER.control_ids
    accept(guide, ids("ia"))
    assert allowed(guide) == STOPS and guide.error is None


def test_a_grammar_that_can_go_on_may_also_end():
    guide = GUIDES.start(GuideSpec(regex("ab*")))
    assert texts(guide) == {"a"}
    accept(guide, ids("a"))
    assert allowed(guide) >= STOPS and texts(guide) - {""} == {"b"}
    accept(guide, ids("bb"))
    assert allowed(guide) >= STOPS


def test_the_free_answer_allows_every_id_of_the_model_and_no_more():
    assert allowed(GUIDES.start(GuideSpec())) == set(range(VOCAB_SIZE))


def test_text_holds_no_control_token():
    guide = GUIDES.start(GuideSpec(lark("start: /(?s:.)+/")))
    first = allowed(guide)
    assert not first & TOKENIZER.control_ids and CONTROL.unk not in first
    continuation_bytes = set(range(FIRST_BYTE_ID + 0x80, FIRST_BYTE_ID + 0xC0))
    assert first <= TEXT and not first & continuation_bytes and len(first) > len(TEXT) - 128
    accept(guide, ids("日"))
    assert allowed(guide) - STOPS == first


def test_the_byte_that_marks_control_tokens_cannot_stand_for_one():
    guide = GUIDES.start(GuideSpec(f'start: <[{CONTROL.call_open}]> "x"'))
    assert allowed(guide) == {CONTROL.call_open}


def test_a_thought_may_come_first_or_not():
    spec = GuideSpec(choice(["yes"]), may_think=True)
    direct = GUIDES.start(spec)
    assert CONTROL.channel_open in allowed(direct)
    accept(direct, ids("y"))
    assert CONTROL.channel_open not in allowed(direct)
    guide = GUIDES.start(spec)
    accept(guide, [CONTROL.channel_open])
    assert allowed(guide) == TEXT | {CONTROL.channel_close}
    accept(guide, [*ids("thought\nno, {never}"), CONTROL.channel_close])
    assert texts(guide) == {"y"} and CONTROL.channel_open not in allowed(guide)
    accept(guide, ids("yes"))
    assert allowed(guide) == STOPS


def test_the_answer_begins_in_the_thought_that_the_prompt_opened():
    guide = GUIDES.start(GuideSpec(choice(["yes"]), in_thought=True, thinking_budget=3))
    assert allowed(guide) == TEXT | {CONTROL.channel_close}
    accept(guide, ids("abc"))
    assert allowed(guide) == {CONTROL.channel_close}
    accept(guide, [CONTROL.channel_close])
    assert texts(guide) == {"y"}


def test_without_leave_to_think_there_is_no_thought():
    guide = GUIDES.start(GuideSpec(choice(["yes"])))
    assert CONTROL.channel_open not in allowed(guide)
    guide.accept(CONTROL.channel_open)
    assert guide.error is not None and not allowed(guide)


@pytest.mark.parametrize("budget", [0, 2])
def test_all_thoughts_of_a_free_answer_share_the_budget(budget):
    guide = GUIDES.start(GuideSpec(thinking_budget=budget))
    accept(guide, [*ids("so "), CONTROL.channel_open, *ids("ab")[:budget]])
    assert allowed(guide) == {CONTROL.channel_close}
    accept(guide, [CONTROL.channel_close])
    assert allowed(guide) == set(range(VOCAB_SIZE))
    accept(guide, [*ids("then"), CONTROL.channel_open])
    assert allowed(guide) == {CONTROL.channel_close}


@pytest.mark.parametrize("token", [CONTROL.call_open, CONTROL.turn_close, VOCAB_SIZE + 500, TOKENIZER.vocab_size + 3])
def test_what_cannot_stand_in_a_thought_is_an_error(token):
    guide = GUIDES.start(GuideSpec(choice(["yes"]), in_thought=True))
    assert token not in allowed(guide)
    guide.accept(token)
    assert f"token {token} cannot stand in a thought" in (guide.error or "")
    assert not allowed(guide)


def test_a_token_that_does_not_fit_is_an_error_that_stays():
    guide = GUIDES.start(GuideSpec(choice(["yes"])))
    guide.accept(ids("n")[0])
    assert guide.error is not None and "does not fit the grammar" in guide.error and len(guide.error) < 400
    before = guide.error
    guide.accept(ids("y")[0])
    assert guide.error == before and not allowed(guide)


def test_where_nothing_can_follow_the_guide_says_so():
    guide = GUIDES.start(GuideSpec(lark('start: "a" /[^\\s\\S]/')))
    accept(guide, ids("a"))
    assert not allowed(guide)
    assert guide.error is not None and "nothing can follow" in guide.error


def test_guides_of_one_grammar_do_not_disturb_each_other():
    spec = GuideSpec(choice(["yes", "no"]))
    first, second = GUIDES.start(spec), GUIDES.start(spec)
    accept(first, ids("y"))
    accept(second, ids("n"))
    assert texts(first) == {"e"} and texts(second) == {"o"}
    assert texts(GUIDES.start(spec)) == {"y", "n"}


def test_a_thought_needs_the_token_that_ends_it():
    import tokenizers

    backend = tokenizers.Tokenizer(tokenizers.models.BPE({"<0x41>": 0, "<eos>": 1}, [], byte_fallback=True))
    backend.decoder = tokenizers.decoders.ByteFallback()
    backend.add_special_tokens(["<eos>"])
    guides = Guides(Tokenizer.from_backend(backend), 2, {1})
    guides.check(GuideSpec(regex("A+"), may_think=True))
    with pytest.raises(GrammarError, match="no token that closes"):
        guides.check(GuideSpec(in_thought=True))


def test_an_answer_must_be_able_to_end():
    with pytest.raises(ValueError, match="stop_ids is empty"):
        Vocabulary(TOKENIZER, VOCAB_SIZE, ())


def test_many_are_asked_together_and_get_what_each_gets_alone():
    specs = [GuideSpec(choice(["value", "via"])), GuideSpec(regex("ab*"), may_think=True), GuideSpec(json_object())]
    specs += [GuideSpec(regex("a"), in_thought=True), GuideSpec(), GuideSpec(regex("b"))]
    guides = [GUIDES.start(spec) for spec in specs]
    guides[-1].accept(ids("a")[0])
    assert guides[-1].error is not None
    alone = [allowed(guide) for guide in guides]
    masks = np.full((8, -(-VOCAB_SIZE // 32)), 0xFFFFFFFF, np.uint32)
    fill_masks([None, *guides], masks)
    bits = np.unpackbits(masks.view(np.uint8), axis=1, bitorder="little")
    assert [set(np.flatnonzero(row).tolist()) for row in bits[1:-1]] == alone and alone[-1] == set()
    assert bits[0].all() and bits[-1].all()  # nobody's


def test_a_large_vocabulary_is_read_in_seconds_and_filled_in_no_time():
    tokenizer = byte_tokenizer(vocab_size=60_000)
    guides = Guides(tokenizer, 262_144, tokenizer.stop_ids)
    start = time.process_time()
    guide = guides.start(GuideSpec(json_object()))
    # 0.4 s, and with the types of every call checked, as here, 5 on a busy machine of two cores.
    assert time.process_time() - start < 20
    row = np.zeros(262_144 // 32, np.uint32)
    start = time.process_time()
    for token in tokenizer.encode_text('{"a": "' + "b" * 200):
        fill_masks([guide], row[None])
        guide.accept(token)
    assert time.process_time() - start < 1 and guide.error is None
