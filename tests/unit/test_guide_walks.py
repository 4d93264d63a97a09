"""A model that draws at random among the allowed tokens: whatever it writes must parse and fit."""

import json
import random
import re
from functools import cache
from pathlib import Path

import jsonschema
import numpy as np
import pytest

import g4jax
from g4jax.chat.events import ParsedMessage, collect
from g4jax.chat.output import OutputParser
from g4jax.chat.tokenizer import Tokenizer
from g4jax.guide import Guides, GuideSpec, choice, json_object, json_schema, lark, regex, tool_calls
from g4jax.guide.either import either
from g4jax.guide.masks import fill_masks

TOKENIZER = Tokenizer(Path(g4jax.__file__).parent / "assets" / "nano")
CONTROL = TOKENIZER.control
VOCAB_SIZE = TOKENIZER.vocab_size + 37
FORMATS = jsonschema.Draft202012Validator.FORMAT_CHECKER
CLOSERS = (CONTROL.call_close, CONTROL.channel_close, CONTROL.quote, b'"', b"}", b"]")
STRUCTURE = re.compile(rb'[\[\]{}",:0-9]+')


@cache
def guides() -> Guides:
    return Guides(TOKENIZER, VOCAB_SIZE, TOKENIZER.stop_ids)


@cache
def structural_ids() -> np.ndarray:
    ids = [i for i in range(TOKENIZER.vocab_size) if STRUCTURE.fullmatch(TOKENIZER.token_bytes(i))]
    return np.array(sorted({*ids, *TOKENIZER.control_ids}))


@cache
def ids_that_begin_with(closer: int | bytes) -> np.ndarray:
    if isinstance(closer, int):
        return np.array([closer])
    return np.array([i for i in range(TOKENIZER.vocab_size) if TOKENIZER.token_bytes(i) == closer])


def allowed_ids(guide) -> np.ndarray:
    row = np.full(-(-VOCAB_SIZE // 32), 0xFFFFFFFF, np.uint32)
    fill_masks([guide], row[None])
    return np.flatnonzero(np.unpackbits(row.view(np.uint8), bitorder="little"))


def draw(allowed: np.ndarray, rng: random.Random, is_tired: bool) -> int:
    """Structure as often as text; when tired, what ends things."""
    stops = np.intersect1d(allowed, list(TOKENIZER.stop_ids))
    if stops.size and (is_tired or rng.random() < 0.1 or stops.size == allowed.size):
        return int(rng.choice(stops))
    for closer in CLOSERS if is_tired and rng.random() < 0.8 else ():
        found = np.intersect1d(allowed, ids_that_begin_with(closer))
        if found.size:
            return int(found[0])
    structure = np.intersect1d(allowed, structural_ids())
    pool = structure if structure.size and rng.random() < 0.5 else allowed
    return int(rng.choice(pool))


def walk(spec: GuideSpec, seed: int, patience: int = 60) -> list[int]:
    """The ids of a whole answer, without its stop id."""
    rng = random.Random(seed)
    guide = guides().start(spec)
    ids: list[int] = []
    while len(ids) < 3000:
        allowed = allowed_ids(guide)
        assert guide.error is None, (guide.error, TOKENIZER.decode(ids, skip_special_tokens=False))
        token = draw(allowed, rng, is_tired=len(ids) > patience)
        if token in TOKENIZER.stop_ids:
            return ids
        guide.accept(token)
        assert guide.error is None
        ids.append(token)
    raise AssertionError("no end: " + TOKENIZER.decode(ids[-200:], skip_special_tokens=False))


def read(ids: list[int], tools: list[dict] | None = None, prompt_ids: tuple[int, ...] = ()) -> ParsedMessage:
    parser = OutputParser(TOKENIZER, prompt_ids=prompt_ids, tools=tools)
    return collect(parser.feed(ids) + parser.finish())


def obj(properties: dict, *required: str, **more) -> dict:
    return {"type": "object", "properties": properties, "required": list(required), **more}


TREE = obj({"value": {"type": "integer"}, "children": {"type": "array", "items": {"$ref": "#"}}}, "value", "children")
SHAPES = {
    "oneOf": [
        obj({"kind": {"const": "circle"}, "radius": {"type": "number"}}, "kind", "radius"),
        obj({"kind": {"const": "box"}, "sides": {"type": "array", "items": {"type": "number"}}}, "kind"),
    ]
}
PARAMETERS = {
    "nothing": obj({}),
    "string": obj({"city": {"type": "string"}}, "city"),
    "all_optional": obj({c: {"type": "integer"} for c in "dabc"}),
    "mixed": obj({c: {"type": "boolean"} for c in "edcba"}, "c", "e"),
    "scalars": obj(
        {"i": {"type": "integer"}, "n": {"type": "number"}, "b": {"type": "boolean"}, "z": {"type": "null"}}
    ),
    "bounds": obj(
        {
            "i": {"type": "integer", "minimum": -3, "maximum": 120},
            "n": {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
            "m": {"type": "integer", "multipleOf": 5, "minimum": 0},
        },
        "i",
        "n",
        "m",
    ),
    "enum": obj({"unit": {"type": "string", "enum": ["C", "F", "", "very long °F", 'quo"te\\n']}}, "unit"),
    "mixed_enum": obj({"x": {"enum": [1, "1", 2.5, None, True, ["a", 1], {"b": "c", "a": []}, {}, []]}}, "x"),
    "const": obj({"x": {"const": 7}, "y": {"const": "seven"}}, "x", "y"),
    "pattern": obj({"code": {"type": "string", "pattern": r"^[A-Z]{2}-\d{3}$|^none$"}}, "code"),
    "found_pattern": obj({"code": {"type": "string", "pattern": "[0-9]"}}, "code"),
    "lengths": obj({"s": {"type": "string", "minLength": 3, "maxLength": 6}}, "s"),
    "pattern_and_length": obj({"s": {"type": "string", "pattern": "^[a-z]+$", "maxLength": 4}}, "s"),
    "formats": obj(
        {name: {"type": "string", "format": name} for name in ("date", "time", "uuid", "ipv4", "ipv6", "email")},
        "date",
        "time",
        "uuid",
        "ipv4",
        "ipv6",
        "email",
    ),
    "type_list": obj({"x": {"type": ["string", "integer", "null"]}}, "x"),
    "nullable_ref": obj(
        {"x": {"anyOf": [{"$ref": "#/$defs/A"}, {"type": "null"}]}},
        "x",
        **{"$defs": {"A": obj({"q": {"type": "string"}}, "q")}},
    ),
    "array": obj({"xs": {"type": "array", "items": {"type": "integer"}, "minItems": 1, "maxItems": 3}}, "xs"),
    "array_of_objects": obj({"xs": {"type": "array", "items": obj({"a": {"type": "string"}, "b": {}}, "a")}}, "xs"),
    "tuple": obj(
        {
            "xs": {
                "type": "array",
                "prefixItems": [{"type": "integer"}, {"type": "string"}],
                "items": False,
                "minItems": 1,
            }
        },
        "xs",
    ),
    "nested": obj(
        {"a": obj({"b": obj({"c": {"type": "string"}, "d": {"type": "number"}}, "c")}, "b"), "z": {"type": "integer"}},
        "a",
    ),
    "tree": TREE,
    "shapes": obj({"shape": SHAPES}, "shape"),
    "any_of": obj(
        {
            "x": {
                "anyOf": [
                    {"type": "integer"},
                    {"type": "array", "items": {"type": "string"}},
                    obj({"p": {"type": "null"}}),
                ]
            }
        },
        "x",
    ),
    "all_of": obj(
        {"x": {"allOf": [obj({"a": {"type": "integer"}}, "a"), obj({"b": {"type": "string", "maxLength": 3}})]}}, "x"
    ),
    "free_object": obj({"payload": {"type": "object"}}, "payload"),
    "map": obj(
        {"headers": {"type": "object", "additionalProperties": {"type": "string"}, "minProperties": 1}}, "headers"
    ),
    "open": obj({"a": {"type": "integer"}}, "a", additionalProperties={"type": "boolean"}),
    "anything": obj({"x": {}}, "x"),
    "odd_keys": obj(
        {
            "a b": {"type": "integer"},
            "x:y": {"type": "integer"},
            "": {"type": "integer"},
            "$id": {"type": "integer"},
            "9": {"type": "integer"},
            "é": {"type": "integer"},
        },
        "a b",
        "x:y",
        "",
        "$id",
        "9",
        "é",
    ),
    "upper_case_types": {"type": "OBJECT", "properties": {"city": {"type": "STRING"}}, "required": ["city"]},
}


def tool(name: str, parameters: dict | None) -> dict:
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


def check_arguments(arguments: str, schema: dict) -> None:
    lowered = json.loads(re.sub(r'"(OBJECT|STRING)"', lambda m: m.group().lower(), json.dumps(schema)))
    jsonschema.validate(json.loads(arguments), lowered, format_checker=FORMATS)


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_forced_call_parses_and_fits_its_schema(name):
    tools = [tool("other", None), tool(name, PARAMETERS[name])]
    spec = GuideSpec(tool_calls(tools, name=name, control=CONTROL))
    for seed in range(8):
        ids = walk(spec, seed, patience=seed * 12)
        message = read(ids, tools)
        assert [call.name for call in message.tool_calls] == [name] and not message.unfinished
        assert message.content is None
        check_arguments(message.tool_calls[0].arguments, PARAMETERS[name])


@pytest.mark.parametrize("parallel", [True, False])
def test_required_calls_call_any_tool_once_or_more(parallel):
    tools = [tool(name, PARAMETERS[name]) for name in ("mixed", "nested", "map", "nothing")]
    spec = GuideSpec(tool_calls(tools, required=True, parallel=parallel, control=CONTROL))
    counts = set()
    names = set()
    for seed in range(30):
        message = read(walk(spec, seed, patience=80), tools)
        assert message.content is None and not message.unfinished
        counts.add(len(message.tool_calls))
        for call in message.tool_calls:
            names.add(call.name)
            check_arguments(call.arguments, PARAMETERS[call.name])
    assert names == {"mixed", "nested", "map", "nothing"}
    assert (max(counts) > 1) == parallel and min(counts) == 1


def test_calls_that_are_not_required_may_be_text():
    tools = [tool("mixed", PARAMETERS["mixed"])]
    spec = GuideSpec(tool_calls(tools, required=False, control=CONTROL))
    messages = [read(walk(spec, seed, patience=20), tools) for seed in range(40)]
    assert any(message.content and not message.tool_calls for message in messages)
    assert any(message.content and message.tool_calls for message in messages)
    for call in (call for message in messages for call in message.tool_calls):
        check_arguments(call.arguments, PARAMETERS["mixed"])


@pytest.mark.parametrize("text", [json_schema(PARAMETERS["nested"]), regex("[a-z ]+"), lark('start: "x" /[0-9]+/')])
def test_calls_may_stand_in_place_of_a_constrained_text(text):
    tools = [tool("mixed", PARAMETERS["mixed"])]
    spec = GuideSpec(either(text, tool_calls(tools, control=CONTROL)))
    messages = [read(walk(spec, seed, patience=10), tools) for seed in range(30)]
    assert {bool(message.tool_calls) for message in messages} == {True, False}
    for message in messages:
        assert (message.content is None) == bool(message.tool_calls)
        for call in message.tool_calls:
            check_arguments(call.arguments, PARAMETERS["mixed"])


SCHEMAS = {
    name: PARAMETERS[name]
    for name in (
        "all_optional",
        "scalars",
        "bounds",
        "mixed_enum",
        "lengths",
        "nested",
        "tree",
        "any_of",
        "map",
        "tuple",
    )
} | {
    "array": {"type": "array", "items": {"type": "string", "pattern": "^[a-c]*$"}, "maxItems": 3},
    "strict": obj(
        {
            "steps": {
                "type": "array",
                "items": obj(
                    {"text": {"type": "string"}, "n": {"type": ["integer", "null"]}},
                    "text",
                    "n",
                    additionalProperties=False,
                ),
            }
        },
        "steps",
        additionalProperties=False,
    ),
    "unknown_format": obj({"path": {"type": "string", "format": "file-path"}}, "path"),
}


@pytest.mark.parametrize("name", SCHEMAS)
def test_json_fits_its_schema(name):
    spec = GuideSpec(json_schema(SCHEMAS[name]))
    for seed in range(8):
        ids = walk(spec, seed, patience=seed * 12)
        assert TOKENIZER.control_ids.isdisjoint(ids)
        jsonschema.validate(json.loads(TOKENIZER.decode(ids)), SCHEMAS[name])


def test_a_json_object_is_one():
    for seed in range(20):
        ids = walk(GuideSpec(json_object()), seed)
        assert isinstance(json.loads(TOKENIZER.decode(ids)), dict) and TOKENIZER.control_ids.isdisjoint(ids)


def test_texts_match_their_regex_choice_and_grammar():
    pattern = r"[a-z]{2,5}(-\d+)?|日本+"
    texts = ["yes", "yes, sir", "no", 'ma"ybe\n']
    gbnf = 'root ::= "(" word ("," word)* ")"\nword ::= [a-c]+\n'
    for seed in range(20):
        assert re.fullmatch(pattern, TOKENIZER.decode(walk(GuideSpec(regex(pattern)), seed)))
        assert TOKENIZER.decode(walk(GuideSpec(choice(texts)), seed)) in texts
        assert re.fullmatch(r"\([a-c]+(,[a-c]+)*\)", TOKENIZER.decode(walk(GuideSpec(lark(gbnf)), seed, patience=5)))


@pytest.mark.parametrize("in_thought", [True, False])
def test_a_thought_may_stand_in_front(in_thought):
    tools = [tool("nested", PARAMETERS["nested"])]
    grammar = tool_calls(tools, control=CONTROL)
    spec = GuideSpec(grammar, may_think=not in_thought, in_thought=in_thought, thinking_budget=25)
    prompt = (CONTROL.channel_open,) if in_thought else ()
    reasoned = 0
    for seed in range(30):
        ids = walk(spec, seed, patience=50)
        message = read(ids, tools, prompt)
        reasoned += message.reasoning is not None
        assert message.tool_calls and message.content is None
        check_arguments(message.tool_calls[0].arguments, PARAMETERS["nested"])
        if CONTROL.channel_close in ids:
            assert ids.index(CONTROL.channel_close) <= 25 + (not in_thought)
    assert reasoned > 3
