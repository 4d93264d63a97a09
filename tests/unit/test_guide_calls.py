"""Grammars of tool calls: what they take, what they refuse, and how quickly."""

import time

import pytest

from g4jax.chat.template import ChatTemplate, shipped_source
from g4jax.chat.tokenizer import ControlIds
from g4jax.guide import GrammarError, tool_calls
from tests.unit.byte_guides import TOKENIZER, refusal, takes_ids

CONTROL = TOKENIZER.control


def obj(properties: dict, *required: str, **more) -> dict:
    return {"type": "object", "properties": properties, "required": list(required), **more}


def tool(name: str, parameters) -> dict:
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


def takes(grammar: str, text: str) -> bool:
    """Whether `text`, in which control tokens are spelled out, is an answer as a whole."""
    return takes_ids(grammar, TOKENIZER.encode_rendered(text))


def takes_arguments(schema, arguments: str) -> bool:
    """`arguments` in Gemma's notation, with `'` for the string delimiter."""
    grammar = tool_calls([tool("f", schema)], control=CONTROL)
    text = arguments.replace("'", '<|"|>')
    return takes(grammar, f"<|tool_call>call:f{text}<tool_call|>")


def refused(schema) -> str:
    return refusal(lambda: tool_calls([tool("get_x", schema)], control=CONTROL))


def test_which_calls_may_be_made():
    tools = [tool("a", None), {"type": "function", "name": "b.c", "parameters": obj({})}]
    one, other = "<|tool_call>call:a{}<tool_call|>", "<|tool_call>call:b.c{}<tool_call|>"
    several = tool_calls(tools, control=CONTROL)
    assert takes(several, one) and takes(several, one + other + one)
    assert not takes(several, "") and not takes(several, one + "x") and not takes(several, "x" + one)
    single = tool_calls(tools, parallel=False, control=CONTROL)
    assert takes(single, other) and not takes(single, one + other)
    named = tool_calls(tools, name="b.c", control=CONTROL)
    assert takes(named, other) and not takes(named, one) and not takes(named, other + other)
    loose = tool_calls(tools, required=False, control=CONTROL)
    assert (
        takes(loose, "text")
        and takes(loose, "text" + one + other)
        and takes(loose, one)
        and not takes(loose, one + "x")
    )
    assert not takes(loose, "<|tool_call>call:c{}<tool_call|>")


def test_a_call_of_the_chat_template_is_taken():
    """The grammar writes what the model has learned to write: the same order, the same notation."""
    arguments = {
        "zeta": [1, -2.5, True, None, "a b"],
        "Alpha": {"y": "{,}", "X": []},
        "beta": 'line\nline "quoted" it\'s',
        "_private": {},
    }
    any_object = {"type": "object", "additionalProperties": True}
    schema = obj({"beta": {"type": "string"}, "zeta": {"type": "array"}, "Alpha": any_object, "_private": any_object})
    template = ChatTemplate(shipped_source("large"), TOKENIZER)
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": arguments}}
    messages = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "", "tool_calls": [call]}]
    text = template.render(messages)
    text = text[text.index("<|tool_call>") : text.index("<tool_call|>") + len("<tool_call|>")]
    assert takes(tool_calls([tool("f", schema)], control=CONTROL), text)


DEFINED = {"N": {"anyOf": [{"type": "null"}, {"type": "array", "items": {"$ref": "#/$defs/N"}}]}}
VALUES = [
    ({"type": "string"}, ["''", "'a\"b\n\\'"], ["a", '"a"', "'a"]),
    ({"enum": ["x", "yy", 3, None]}, ["'x'", "3", "null"], ["'y'", "'3'", "'xyy'"]),
    ({"type": "string", "enum": ["x", "long", 3], "maxLength": 2}, ["'x'"], ["3", "'long'"]),
    ({"enum": [{"b": [1, {}], "A": "c"}]}, ["{A:'c',b:[1,{}]}"], ["{b:[1,{}],A:'c'}"]),
    ({"type": "integer", "minimum": 3, "exclusiveMaximum": 10}, ["3", "9"], ["2", "10"]),
    ({"type": "number", "multipleOf": 0.25}, ["1.75", "2"], ["1.7"]),
    ({"type": "number"}, ["-1.5e-3", "0"], [".5", "1.", "NaN", "9" * 30]),
    ({"type": "string", "pattern": "a/b|^c$"}, ["'xa/by'", "'c'"], ["'xc'", "'ab'"]),
    ({"type": "string", "pattern": r"^\d+\$$", "maxLength": 3}, ["'12$'"], ["'123$'", "'12'"]),
    ({"type": "string", "format": "date-time"}, ["'2026-02-28T23:59:00Z'"], ["'2026-02-30T00:00:00Z'", "'now'"]),
    ({"type": "string", "format": "date"}, ["'2024-02-29'", "'2026-12-31'"], ["'2026-02-29'", "'2026-4-1'"]),
    ({"type": "string", "format": "duration"}, ["'P1Y2M'", "'PT3S'", "'P2W'"], ["'P'", "'1D'"]),
    ({"type": "string", "format": "made-up"}, ["'now'"], []),
    ({"type": ["string", "null"]}, ["'null'", "null"], ["1"]),
    ({"type": "string", "nullable": True}, ["'a'", "null"], ["1"]),
    ({"type": "array", "items": {"type": "boolean"}, "minItems": 1, "maxItems": 2}, ["[true]", "[true,false]"], ["[]"]),
    ({"type": "array", "items": {"type": "null"}, "minItems": 2, "maxItems": 2}, ["[null,null]"], ["[null]", "[]"]),
    ({"type": "array", "prefixItems": [{"const": 1}, {"const": 2}], "minItems": 1}, ["[1]", "[1,2]"], ["[]", "[2]"]),
    ({"type": "array", "prefixItems": [{"const": 1}], "items": {"const": 2}}, ["[]", "[1,2,2]"], ["[1,1]", "[2]"]),
    ({"type": "array", "maxItems": 0}, ["[]"], ["[1]"]),
    ({"type": "object"}, ["{}", "{a-b:[1,{c:'d'}],'e f':null}"], ["{a b:1}", "{'':1}"]),
    ({"type": "object", "minProperties": 1, "maxProperties": 2}, ["{a:1}", "{a:1,b:2}"], ["{}", "{a:1,b:2,c:3}"]),
    ({"$ref": "#/$defs/N"}, ["null", "[null,[[null]]]"], ["1"]),
    ({"oneOf": [{"const": "a"}, {"type": "integer"}]}, ["'a'", "1"], ["'b'"]),
    ({"allOf": [{"type": "number", "minimum": 1}, {"type": "integer", "maximum": 2}]}, ["1", "2"], ["0", "3", "1.5"]),
    (
        {"allOf": [obj({"a": {"minimum": 1}}, "a"), obj({"a": {"type": "integer"}, "b": {}})]},
        ["{a:1}"],
        ["{a:0}", "{b:1}"],
    ),
]
OBJECTS = [
    (None, ["{}"], ["{a:1}"]),
    ({"type": "object"}, ["{}"], ["{a:1}"]),
    ({"type": "object", "additionalProperties": True}, ["{}", "{a:1}"], []),
    ({"propertyNames": {"type": "string"}, "additionalProperties": {"type": "integer"}}, ["{a:1}"], ["{a:'b'}"]),
    (obj({"b": {"type": "integer"}, "A": {}}), ["{}", "{b:1}", "{A:null,b:-20}"], ["{b:1,A:null}", "{b:1.0}", "{c:1}"]),
    (obj({"b": {"type": "integer"}}), ["{b:-7}"], ["{b:01}", "{b:'1'}", "{b:1,}", "{ b:1}", "{b: 1}", "{b:1,b:1}"]),
    (obj({"a": {}, "b": {}, "c": {}}, "b"), ["{b:1}", "{a:1,b:1}", "{b:1,c:1}"], ["{}", "{a:1}", "{a:1,c:1}"]),
    (
        obj({}, "a", additionalProperties={"type": "null"}),
        ["{a:null}", "{a:null,b:null}"],
        ["{}", "{a:1}", "{a:null,b:1}"],
    ),
    (
        obj({"a": {}}, additionalProperties={"type": "null"}),
        ["{a:1,'b c':null}"],
        ["{b:1}", "{b:null,a:1}", "{'a':null}"],
    ),
    ({"type": "object", "required": ["a"]}, ["{a:1}"], ["{}", "{a:1,b:1}", "{b:1}"]),
    (obj({"a": {}, "b": {}}, minProperties=1), ["{a:1}", "{b:1}"], ["{}"]),
    (obj({"x y": {}, "k:v": {}}, "x y", "k:v"), ["{'k:v':1,'x y':2}"], ["{k:v:1,x y:2}"]),
    (obj({"x": False, "y": {}}), ["{}", "{y:1}"], ["{x:1}"]),
    ({"anyOf": [obj({"a": {}}, "a"), obj({"b": {}}, "b")]}, ["{a:1}", "{b:1}"], ["{}", "{a:1,b:1}"]),
]


@pytest.mark.parametrize(("schema", "fitting", "unfitting"), VALUES)
def test_values_follow_their_schema(schema, fitting, unfitting):
    whole = obj({"x": schema}, "x", **{"$defs": DEFINED})
    assert [text for text in fitting if not takes_arguments(whole, f"{{x:{text}}}")] == []
    assert [text for text in unfitting if takes_arguments(whole, f"{{x:{text}}}")] == []


@pytest.mark.parametrize(("schema", "fitting", "unfitting"), OBJECTS)
def test_arguments_follow_their_schema(schema, fitting, unfitting):
    assert [text for text in fitting if not takes_arguments(schema, text)] == []
    assert [text for text in unfitting if takes_arguments(schema, text)] == []


def test_options_that_a_discriminator_tells_apart_are_one_of():
    options = [obj({"kind": {"const": kind}, "size": {"type": "integer"}}) for kind in ("a", "b")]
    schema = obj({"x": {"oneOf": options, "discriminator": {"propertyName": "kind"}}}, "x")
    assert takes_arguments(schema, "{x:{kind:'b',size:1}}") and not takes_arguments(schema, "{x:{size:1}}")
    assert "oneOf" in refused(obj({"x": {"oneOf": options}}, "x"))


def test_a_schema_that_refers_to_itself_ends():
    schema = obj({"next": {"$ref": "#"}})
    depth = 31
    assert takes_arguments(schema, "{next:" * depth + "{}" + "}" * depth)
    assert not takes_arguments(schema, "{next:" * 32 + "{}" + "}" * 32)


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        (obj({"a": {"not": {"type": "string"}}}), "get_x.a: not is not supported"),
        (obj({"a": {"type": "array", "uniqueItems": True}}), "get_x.a: uniqueItems"),
        ({"type": "object", "patternProperties": {"^a": {}}}, "get_x: patternProperties"),
        (obj({"a": obj({"b": {"if": {}, "then": {}}})}), "get_x.a.b: if"),
        (obj({"a": {"contains": {}}}), "contains"),
        (obj({"a": {"propertyNames": {"pattern": "^a"}}}), "propertyNames"),
        (obj({"a": {}}, dependentRequired={"a": ["b"]}), "dependentRequired"),
        (obj({"a": {}, "b": {}}, minProperties=2), "minProperties"),
        (obj({"a": {}, "b": {}}, maxProperties=1), "maxProperties"),
        (obj({"a": {"type": "strnig"}}), "'strnig'"),
        (obj({"a": {"type": 3}}), "type must be"),
        (obj({"a": {"minLength": -1}}), "minLength must be"),
        (obj({"a": {"enum": []}}), "enum must be"),
        (obj({"a": 3}), "get_x.a: a schema must be"),
        (obj({"a": {"pattern": "(?=b)"}}), "get_x.a: pattern '(?=b)': look-around"),
        (obj({"a": {"pattern": "[b-"}}), "get_x.a: pattern '[b-'"),
        (obj({"a": {"type": "integer", "minimum": 2, "maximum": 1}}), "get_x.a: integer"),
        (obj({"a": {"type": "integer", "multipleOf": 1_000_003}}), "multipleOf"),
        (obj({"a": {"oneOf": [{"type": "string"}, {"maxLength": 3}]}}), "get_x.a: oneOf"),
        (obj({"a": {"$ref": "#/$defs/b"}}), "leads nowhere"),
        (obj({"a": {"$ref": "other.json"}}), "leads out of the schema"),
        ({"$ref": "#"}, "circle"),
        (obj({"a": {"$ref": "#"}}, "a"), "more than 32 levels"),
        (obj({"a": {"type": "string", "minLength": 3, "maxLength": 2}}, "a"), "nothing fits"),
        ({"type": "string"}, "must describe an object"),
        (obj({"a": {"type": "array", "minItems": 10**9}}), "minItems"),
        (obj({"a": {"type": "string", "minLength": 10**9}}), "minLength"),
        (obj({"a": {"enum": [f"value {i}" for i in range(100_000)]}}), "characters"),
        (obj({f"p{i}": {} for i in range(1001)}), "at most 1000"),
        (obj({f"p{i}": {"$ref": "#"} for i in range(400)}), "too large"),
        (obj({f"p{i}": {"$ref": "#", "minProperties": 0} for i in range(1000)}), "too many combinations"),
        (obj({"a": {"allOf": [{"anyOf": [{"minLength": i} for i in range(20)]}] * 2}}), "alternatives"),
        (obj({"a": {"oneOf": [obj({"k": {"const": i}}, "k") for i in range(400)]}}), "too many combinations"),
    ],
)
def test_what_cannot_be_expressed_is_refused(schema, reason):
    assert reason in refused(schema)


@pytest.mark.parametrize("depth", [40, 5000])
def test_schemas_nested_too_deeply_are_refused(depth):
    schema: dict = {"type": "string"}
    values: list = []
    for _ in range(depth):
        schema, values = obj({"a": schema}, "a"), [values]
    assert "nest" in refused(schema)
    if depth == 5000:
        assert "nest" in refused(obj({"a": {"enum": [values]}}))


def test_references_that_double_at_every_step_are_read_once():
    definitions: dict = {f"d{i}": {"anyOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(20)}
    definitions["d20"] = {"type": "integer"}
    schema = obj({"a": {"$ref": "#/$defs/d0"}}, "a", **{"$defs": definitions})
    start = time.process_time()
    assert takes_arguments(schema, "{a:1}") and not takes_arguments(schema, "{a:true}")
    assert time.process_time() - start < 5


@pytest.mark.parametrize(
    ("tools", "name", "control", "reason"),
    [
        ([], None, CONTROL, "at least one tool"),
        ([tool("a", None)], "b", CONTROL, "no tool 'b'"),
        ([tool("a{", None)], None, CONTROL, "'a{'"),
        ([tool("a", None)], None, ControlIds(), "no tokens for tool calls"),
    ],
)
def test_tools_that_cannot_be_called_are_refused(tools, name, control, reason):
    with pytest.raises(GrammarError, match=reason):
        tool_calls(tools, name=name, control=control)
