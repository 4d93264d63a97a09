import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from g4jax.chat.call_header import bare_call, called_name
from g4jax.chat.call_syntax import MAX_DEPTH, ArgumentParser
from g4jax.chat.events import collect
from g4jax.chat.output import OutputParser
from g4jax.chat.template import ChatTemplate, shipped_source
from g4jax.chat.tool_schema import ANYTHING, Schema, schemas
from g4jax.testing.byte_tokenizer import byte_tokenizer

DELIMITER = '<|"|>'
TOKENIZER = byte_tokenizer()


def read(text, schema=ANYTHING, opener="{", close=True):
    """The arguments in `text` (from behind the opening brace) as Python, or None if the call is not complete."""
    parser = ArgumentParser(schema, opener)
    for n, piece in enumerate(text.split(DELIMITER)):
        if n:
            parser.quote()
        parser.feed(piece)
    complete = parser.close() if close else parser.complete
    return json.loads(parser.take()) if complete else None


def schema(**properties):
    return Schema([{"type": "object", "properties": properties}])


@pytest.mark.parametrize(
    "text, value",
    [
        ("}", {}),
        ('a:<|"|>x"\\\n{,<|"|>,b:[1,[],{}]}', {"a": 'x"\\\n{,', "b": [1, [], {}]}),
        ("a:12345678901234567890,b:-1.5e3,c:1e400,d:007,e:.5}", None),
        ("a:True,b:false,c:None,d:nil,e:null}", {"a": True, "b": False, "c": None, "d": None, "e": None}),
        ("a:x y,b:http://h:80/?q=1,c:}", {"a": "x y", "b": "http://h:80/?q=1", "c": None}),
        ("a:'it,s',b:'it's',c:\"a\\nb\",d:\"x\" y}", {"a": "it,s", "b": "it's", "c": "a\nb", "d": '"x" y'}),
        ('\'a\':1,"b":2,<|"|>c:<|"|>:3}', {"a": 1, "b": 2, "c:": 3}),
        ('a:Tokyo, Japan<|"|>,b:[x<|"|>,y]}', {"a": "Tokyo, Japan", "b": ["x", "y"]}),
        ("a:Tokyo, Japan,b:[,1,,2,],}", {"a": "Tokyo, Japan", "b": [1, 2]}),
        ("a:f{x,y:[z]} w,b:1}", {"a": "f{x,y:[z]} w", "b": 1}),
        ("a:[1,{b:[2}", {"a": [1, {"b": [2]}]}),
        ('a:[<|"|>x]}', {"a": ["x"]}),
        ('a:[<|"|>x}', None),
        ('a:<|"|>x', None),
        ("a", None),
        ("a:", None),
    ],
)
def test_reading_without_a_schema(text, value):
    if "e400" in text:
        value = {"a": 12345678901234567890, "b": -1500.0, "c": float("inf"), "d": "007", "e": ".5"}
    assert read(text) == value


@pytest.mark.parametrize(
    "text, value",
    [
        (':<|"|>x<|"|>)', {"k": "x"}),
        ('="Dune", b=2)', {"k": "Dune", "b": 2}),
        (":f(x)", {"k": "f(x"}),
    ],
)
def test_parentheses_for_braces(text, value):
    assert read("k" + text, opener="(") == value


def test_a_json_object_in_parentheses():
    assert read('{"k": "a)", "n": {"m": [true]}})', opener="(") == {"k": "a)", "n": {"m": [True]}}
    parser = ArgumentParser(ANYTHING, "(")
    assert parser.feed("{a:1} ) rest") == " rest" and parser.done


@pytest.mark.parametrize(
    "types, text, value",
    [
        ("string", "12", "12"),
        ("string", "null", "null"),
        ("string", "true", "true"),
        (["string", "null"], "null", None),
        (["string", "integer"], "12", 12),
        ("integer", "5.0", 5),
        ("integer", '<|"|> 42 <|"|>', 42),
        ("integer", "+7", 7),
        ("integer", "seven", "seven"),
        ("number", '<|"|>.5<|"|>', 0.5),
        ("boolean", '<|"|>True<|"|>', True),
        ("array", '<|"|>[1, 2]<|"|>', [1, 2]),
        ("object", '<|"|>[1]<|"|>', "[1]"),
        ("string", '<|"|>[1]<|"|>', "[1]"),
    ],
)
def test_the_schema_decides_the_type(types, text, value):
    result = read(f"a:{text}}}", schema(a={"type": types}))["a"]
    assert result == value and type(result) is type(value)


def test_schemas_reach_into_arrays_objects_alternatives_and_definitions():
    tools = [
        {
            "type": "function",
            "name": "f",
            "parameters": {
                "properties": {
                    "rows": {"type": "array", "items": {"$ref": "#/$defs/row"}},
                    "either": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
                    "pick": {"enum": ["1", "2"]},
                },
                "additionalProperties": {"type": "string"},
                "$defs": {"row": {"properties": {"id": {"type": "string"}, "next": {"$ref": "#/$defs/row"}}}},
            },
        }
    ]
    text = 'rows:[{id:1,next:{id:2}}],either:<|"|>3<|"|>,pick:1,other:4}'
    expected = {"rows": [{"id": "1", "next": {"id": "2"}}], "either": 3, "pick": "1", "other": "4"}
    assert read(text, schemas(tools)["f"]) == expected


@pytest.mark.parametrize(
    "loop", [{"$ref": "#"}, {"anyOf": [{"$ref": "#"}]}, {"$ref": 3}, {"type": 3, "items": 4}, True]
)
def test_senseless_schemas_are_borne(loop):
    assert read("a:1,b:[x]}", schemas([{"function": {"name": "f", "parameters": loop}}])["f"]) == {"a": 1, "b": ["x"]}


def test_nesting_is_bounded():
    assert read("a:" + "[" * (MAX_DEPTH - 1) + "]" * (MAX_DEPTH - 1) + "}") is not None
    assert read("a:" + "[" * MAX_DEPTH) is None


def test_a_value_is_held_until_it_is_certain():
    parser = ArgumentParser(ANYTHING)
    shown = []
    for piece in ("a:4", "2", ",", "b", ":tr", "ue", "}"):
        parser.feed(piece)
        shown.append(parser.take())
    assert shown == ["{", "", "", "", '"a":42', "", ',"b":true}']


@pytest.mark.parametrize(
    "header, name",
    [
        ("call:f", "f"),
        (":f", "f"),
        (":call:call_f", "call_f"),
        ("-f", "f"),
        (" call : a.b:c-d ", "a.b:c-d"),
        ("callback", "callback"),
    ],
)
def test_names(header, name):
    assert called_name(header, ()) == name


@pytest.mark.parametrize("header", ["", "call:", "call:f g", "x y"])
def test_no_names(header):
    assert called_name(header, ()) is None


def test_bare_calls_need_a_known_name_and_a_brace():
    assert bare_call("\ncall:f{a", {"f"}) == ("f", "{", "a")
    assert bare_call("call:g{a", {"f"}) is None and bare_call("call: f{", {"f"}) is None
    assert bare_call("call:f", {"f"}) == () and bare_call("ca", {"f"}) == () and bare_call("cat", {"f"}) is None


KEYS = st.from_regex(r"[A-Za-z_][A-Za-z0-9_.\-]{0,8}", fullmatch=True)
STRINGS = st.text(st.characters(exclude_characters="▁", exclude_categories=["Cs"])) | st.just('<|"|>}<tool_call|>')
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | STRINGS
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=8
)
TEMPLATE = ChatTemplate(shipped_source("small"), TOKENIZER)


@settings(deadline=None, max_examples=40)
@given(st.dictionaries(KEYS, VALUES, max_size=4))
def test_what_the_template_writes_is_read_back(arguments):
    call = {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": arguments}}]}
    ids = TEMPLATE.encode([call], add_generation_prompt=False)
    parser = OutputParser(TOKENIZER, tools=[{"function": {"name": "f"}}])
    message = collect(parser.feed(ids[ids.index(TOKENIZER.control.call_open) :]) + parser.finish())
    assert [json.loads(call.arguments) for call in message.tool_calls] == [arguments] and message.content is None
