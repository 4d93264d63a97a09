from concurrent.futures import ThreadPoolExecutor

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from g4jax.chat.tokenizer import SPELLINGS, Tokenizer
from g4jax.testing.byte_tokenizer import CONTROL_IDS, byte_tokenizer

TOKENIZER = byte_tokenizer()
# U+2581 is Gemma's own sign for a blank: no encoding can keep it.
TEXT = st.text(st.characters(exclude_characters="▁", exclude_categories=["Cs"]), max_size=20)
MIXED = st.lists(TEXT | st.sampled_from(sorted(SPELLINGS.values())), max_size=6)


@settings(deadline=None, max_examples=100)
@given(MIXED.map("".join))
def test_text_never_becomes_a_control_token_and_survives(text):
    ids = TOKENIZER.encode_text(text)
    assert TOKENIZER.control_ids.isdisjoint(ids)
    assert TOKENIZER.decode(ids) == text


@settings(deadline=None, max_examples=100)
@given(MIXED.map("".join))
def test_rendered_text_is_encoded_as_the_library_does(text):
    library = tokenizers.Tokenizer.from_str(TOKENIZER._backend.to_str())
    library.encode_special_tokens = False
    assert TOKENIZER.encode_rendered(text) == library.encode(text, add_special_tokens=False).ids


def test_control_ids_come_from_the_file(tmp_path):
    byte_tokenizer(tmp_path)
    tokenizer = Tokenizer(tmp_path)
    assert {name: getattr(tokenizer.control, name) for name in CONTROL_IDS} == CONTROL_IDS
    assert tokenizer.stop_ids == {1, 106, 50}
    assert tokenizer.encode_rendered('<|turn>user\n<|"|>') == [105, tokenizer.token_to_id("user"), 107, 52]


def test_missing_control_tokens_are_none():
    backend = tokenizers.Tokenizer(tokenizers.models.BPE({"<0x41>": 0, "<eos>": 1}, [], byte_fallback=True))
    backend.decoder = tokenizers.decoders.ByteFallback()
    backend.add_special_tokens(["<eos>"])
    tokenizer = Tokenizer.from_backend(backend)
    assert tokenizer.eos_id == 1 and tokenizer.bos_id is None and tokenizer.stop_ids == {1}
    assert tokenizer.encode_prompt("A<eos>A") == [0, 1, 0]


def test_a_vocabulary_that_merges_up_to_a_control_token_still_cannot_be_forged():
    vocab = {"<0x41>": 0, "<": 1, "e": 2, ">": 3, "<e": 4, "<e>": 5}
    bpe = tokenizers.models.BPE(vocab, [("<", "e"), ("<e", ">")], byte_fallback=True)
    backend = tokenizers.Tokenizer(bpe)
    backend.decoder = tokenizers.decoders.ByteFallback()
    backend.add_special_tokens(["<e>"])
    tokenizer = Tokenizer.from_backend(backend)
    assert 5 not in tokenizer.encode_text("<e>e<e>") and tokenizer.encode_rendered("<e>") == [5]


def test_prompts_get_one_bos():
    assert TOKENIZER.encode_prompt("A") == TOKENIZER.encode_prompt("<bos>A") == [2, *TOKENIZER.encode_text("A")]


def test_threads_share_a_tokenizer():
    texts = [f"<|turn>{n} 日本語 <turn|>" * 20 for n in range(50)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(TOKENIZER.encode_text, texts)) == [TOKENIZER.encode_text(text) for text in texts]
        assert list(pool.map(TOKENIZER.encode_rendered, texts)) == [TOKENIZER.encode_rendered(text) for text in texts]


def test_unusable_checkpoints_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="tokenizer.json"):
        Tokenizer(tmp_path)
    tokenizers.Tokenizer(tokenizers.models.BPE()).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(ValueError, match="ByteFallback"):
        Tokenizer(tmp_path)
