from hypothesis import given, settings
from hypothesis import strategies as st

from g4jax.chat.detokenize import Detokenizer, StopStrings
from g4jax.testing.byte_tokenizer import byte_tokenizer

TOKENIZER = byte_tokenizer()
TEXT = st.text(st.characters(exclude_characters="▁", exclude_categories=["Cs"]) | st.sampled_from("日本語🌍👩‍👩‍👧é "))


def cut(sequence, cuts):
    edges = [0, *sorted(c for c in cuts if c < len(sequence)), len(sequence)]
    return [sequence[a:b] for a, b in zip(edges, edges[1:], strict=False)]


@settings(deadline=None, max_examples=100)
@given(TEXT, st.lists(st.integers(0, 100)))
def test_any_cut_gives_whole_characters(text, cuts):
    detokenizer = Detokenizer(TOKENIZER)
    pieces = [detokenizer.feed(ids) for ids in cut(TOKENIZER.encode_text(text), cuts)]
    assert "".join(pieces) == text and detokenizer.flush() == ""
    assert all(text.startswith("".join(pieces[:n])) for n in range(len(pieces)))


@settings(deadline=None, max_examples=100)
@given(st.lists(st.integers(0, TOKENIZER.vocab_size - 1)), st.lists(st.integers(0, 100)))
def test_any_ids_give_what_decode_gives(ids, cuts):
    detokenizer = Detokenizer(TOKENIZER)
    pieces = [detokenizer.feed(piece) for piece in cut(ids, cuts)]
    assert "".join(pieces) + detokenizer.flush() == TOKENIZER.decode(ids)


def test_a_character_without_its_end_is_flushed():
    detokenizer = Detokenizer(TOKENIZER)
    assert detokenizer.feed(TOKENIZER.encode_text("a🌍")[:-1]) == "a"
    assert detokenizer.flush() == "\ufffd" and detokenizer.flush() == ""


def test_control_tokens_are_invisible_unless_asked_for():
    ids = TOKENIZER.encode_rendered("a<turn|>b")
    assert Detokenizer(TOKENIZER).feed(ids) == "ab"
    assert Detokenizer(TOKENIZER, skip_special_tokens=False).feed(ids) == "a<turn|>b"


AB = st.text("ab", max_size=30)


@settings(deadline=None, max_examples=100)
@given(st.lists(st.text("ab", max_size=4), max_size=3), AB, st.lists(st.integers(0, 30)))
def test_stop_strings_find_the_match_that_ends_first(stops, text, cuts):
    finder = StopStrings(stops)
    shown, found = "", None
    for piece in cut(text, cuts):
        emitted, found = finder.feed(piece)
        shown += emitted
    shown += finder.flush()
    ends = [(text.find(s) + len(s), -len(s), s) for s in stops if s and s in text]
    expected = min(ends, default=None)
    assert found == (expected[2] if expected else None)
    assert shown == (text[: expected[0] - len(expected[2])] if expected else text)


def test_only_what_may_become_a_stop_is_held_back():
    finder = StopStrings(["###"])
    assert finder.feed("a#") == ("a", None)
    assert finder.feed("b##") == ("#b", None)
    assert finder.feed("#c") == ("", "###")
    assert finder.feed("d") == ("", "###") and finder.flush() == ""
