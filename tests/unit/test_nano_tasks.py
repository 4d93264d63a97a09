"""The synthetic tasks of nano: what is asked has the stated answer, and nothing judged was ever trained on."""

import json
import random
import re
from pathlib import Path

import pytest

from g4jax.chat.events import collect
from g4jax.chat.output import OutputParser
from g4jax.chat.template import ChatTemplate, shipped_source
from g4jax.chat.tokenizer import Tokenizer
from scripts.nano import arithmetic, mixture, rendering, tools, words
from scripts.nano.packing import Encoder, laid_out
from scripts.nano.tasks import assistant

NANO = Path(__file__).parents[2] / "g4jax" / "assets" / "nano"


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer(NANO)


@pytest.fixture(scope="module")
def template(tokenizer: Tokenizer) -> ChatTemplate:
    return ChatTemplate(shipped_source("small"), tokenizer)


@pytest.mark.parametrize("ability", mixture.JUDGED)
@pytest.mark.parametrize("split", ["train", "eval"])
def test_the_servers_parser_reads_the_intended_reply(ability, split, tokenizer, template):
    rng = random.Random(5)
    for _ in range(25):
        sample = mixture.sample(rng, ability, split)
        prompt = rendering.prompt(sample, template)
        written = rendering.reply(sample, prompt)
        declared = [tool.declaration() for tool in sample.tools]
        parser = OutputParser(tokenizer, prompt_ids=tokenizer.encode_rendered(prompt), tools=declared)
        ids = tokenizer.encode_rendered(written)
        message = collect([*parser.feed(ids), *parser.finish()])
        assert ids[-1] in tokenizer.stop_ids
        assert (message.content or "") == sample.reply.text
        assert message.reasoning == sample.reply.thought
        assert [(call.name, json.loads(call.arguments)) for call in message.tool_calls] == list(sample.reply.calls)
        assert rendering.is_right(sample, prompt, written)


def test_a_past_call_is_rendered_as_the_model_writes_it(template):
    rng = random.Random(6)
    for _ in range(50):
        sample = mixture.sample(rng, "tool_call", "train")
        history = [*sample.messages, assistant(sample.reply)]
        declared = [tool.declaration() for tool in sample.tools]
        prompt = template.render(sample.messages, declared)
        assert template.render(history, declared) == prompt + rendering.answer(sample.reply)


def test_other_replies_are_wrong(template):
    sample = mixture.sample(random.Random(7), "arithmetic", "eval")
    prompt = rendering.prompt(sample, template)
    right = rendering.reply(sample, prompt)
    assert rendering.is_right(sample, prompt, right.replace(sample.reply.thought or "", "any thought"))
    for wrong in (right.replace("<turn|>", "1<turn|>"), rendering.answer(sample.reply), right.removesuffix("<turn|>")):
        assert not rendering.is_right(sample, prompt, wrong)


def test_arithmetic_is_right_and_its_thought_ends_in_the_answer():
    for a in range(100):
        for b in range(100):
            for op in "+-":
                task = arithmetic.Problem(a, op, b)
                assert task.answer == str(a + b if op == "+" else a - b)
                assert re.split(r"[\n ]", task.thought)[-1] == task.answer
                for terms, result in re.findall(r"([\d+-]+)=(\d+)", task.thought):
                    assert int(result) == sum(int(term) for term in re.findall(r"[+-]?\d+", terms))


def test_training_never_shows_what_is_judged():
    rng = random.Random(8)
    trained = [arithmetic.problem(rng, "train") for _ in range(2000)]
    judged = [arithmetic.problem(rng, "eval") for _ in range(2000)]
    assert not set(trained) & set(judged)
    for pool, parts in words.POOLS.items():
        assert parts["train"] and parts["eval"], pool
        assert not set(parts["train"]) & set(parts["eval"])
    assert not {words.made_up(rng, "train") for _ in range(3000)} & {words.made_up(rng, "eval") for _ in range(3000)}
    drawn = [tools.drawn_tool(rng, "eval") for _ in range(300)]
    assert all(words.held_out(tool.task[1]) for tool in drawn)
    assert all(words.held_out(p.name) for tool in drawn for p in tool.parameters)


def test_every_everyday_sentence_gives_every_required_argument():
    for family in tools.FAMILIES:
        slots = {re.split(r"[/:]", text)[0] for text in family.parameters if "?" not in text}
        for sentence in family.sentences:
            assert slots <= set(re.findall(r"\{(\w+)\}", sentence)), (family.names[0], sentence)


def test_a_word_has_the_same_tokens_wherever_it_stands(tokenizer):
    rng = random.Random(9)
    for _ in range(200):
        word = words.made_up(rng, "eval")
        alone = tokenizer.encode_text(word)
        spaced = tokenizer.encode_text(f"in {word}? {{{word}_1")
        assert str(alone)[1:-1] in str(spaced)
        assert str(spaced).count(str(alone)[1:-1]) == 2
        assert tokenizer.decode(spaced) == f"in {word}? {{{word}_1"


def test_digits_are_single_tokens_and_anything_can_be_spelled(tokenizer):
    assert len(tokenizer.encode_text("1234")) == 4
    assert tokenizer.decode(tokenizer.encode_text("日本 😀 <|turn>")) == "日本 😀 <|turn>"


def test_packed_rows_hold_the_samples_end_to_end():
    encoder = Encoder(NANO)
    pairs = encoder([mixture.any_sample(random.Random(n), "train") for n in range(3)])
    rows = laid_out([pairs], sum(len(p) + len(r) for p, r in pairs) + 5)
    for segment, (prompt, reply) in enumerate(pairs, start=1):
        mine = rows.segments[0] == segment
        assert rows.tokens[0][mine].tolist() == prompt + reply
        assert rows.tokens[0][mine & (rows.replies[0] == 1)].tolist() == reply
    assert rows.segments[0, -5:].tolist() == [0] * 5
