"""Grammars for text: what they take, what they refuse, and how quickly."""

import pytest

from g4jax.guide import choice, json_object, json_schema, lark, regex
from tests.unit.byte_guides import TOKENIZER, refusal, takes_ids


def takes(grammar: str, text: str) -> bool:
    """Whether `text` as a whole is an answer."""
    return takes_ids(grammar, TOKENIZER.encode_text(text))


def refused(make, *arguments) -> str:
    return refusal(lambda: make(*arguments))


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("{}", True),
        ('{"a": 1, "b":[true,null, {"c": "日本 \\n"}]}', True),
        ('{"a":  1}', False),
        ('{\n"a":1}', False),
        ('{"a": 01}', False),
        ('{"a": "\t"}', False),
        ("[]", False),
        ("{} ", False),
        ('{"a":1', False),
    ],
)
def test_a_json_object(text, fits):
    assert takes(json_object(), text) == fits


def test_a_schema_keeps_its_order_and_the_types():
    schema = {
        "type": "object",
        "properties": {"b": {"type": "integer"}, "a": {"type": "string", "format": "made-up"}},
        "required": ["b"],
        "additionalProperties": False,
    }
    grammar = json_schema(schema)
    assert takes(grammar, '{"b": 1}') and takes(grammar, '{"b":1,"a":"x"}')
    assert not takes(grammar, '{"a":"x","b":1}') and not takes(grammar, '{"b":1,"c":1}')
    assert not takes(grammar, '{"b":"1"}') and not takes(grammar, '{"a":"x"}')


def test_a_property_may_be_named_like_a_keyword():
    schema = {"type": "object", "properties": {"format": {"type": "string"}}, "required": ["format"]}
    assert takes(json_schema(schema), '{"format":"x"}') and not takes(json_schema(schema), "{}")


def test_bounds_that_are_far_out_are_drawn_in():
    schema = {"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1}
    assert takes(json_schema(schema), str(2**53 - 1)) and not takes(json_schema(schema), str(2**70))


def test_a_client_cannot_turn_off_the_style_of_json():
    schema = {"type": "object", "x-guidance": {"whitespace_flexible": True, "lenient": True}, "properties": {"a": {}}}
    assert not takes(json_schema(schema), '{ "a":   1}')
    assert "uniqueItems" in refused(json_schema, schema | {"uniqueItems": True})


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ({"type": "array", "uniqueItems": True}, "uniqueItems"),
        ({"not": {"type": "string"}}, "not"),
        ({"type": "strnig"}, "strnig"),
        ({"type": "string", "pattern": "(?=a)b"}, "look-around"),
        ({"type": "string", "pattern": "[a-"}, "character class"),
        ({"$ref": "https://example.com/schema.json"}, "example.com"),
        ({"$ref": "#/$defs/nothing"}, "nothing"),
        ({"$ref": "#"}, "no token fits"),
        ({"enum": []}, "empty"),
        ({"oneOf": [{"type": "string"}, {"type": "string", "maxLength": 3}]}, "oneOf"),
        ({"type": "integer", "minimum": 3, "maximum": 2}, "minimum"),
        ([], "must be an object"),
        ({"enum": [f"value {i}" for i in range(100_000)]}, "characters"),
        ({"properties": {f"p{i}": {} for i in range(1001)}}, "1001 properties"),
        ({"items": {"type": "integer", "multipleOf": 1_000_003}}, "multipleOf"),
        ({"allOf": [{"multipleOf": 9973}, {"multipleOf": 9967}]}, "multipleOf"),
    ],
)
def test_a_schema_that_cannot_be_followed_is_refused(schema, reason):
    assert reason in refused(json_schema, schema)


@pytest.mark.parametrize("depth", [200, 100_000])
def test_a_schema_nested_without_end_is_refused(depth):
    schema: dict = {}
    for _ in range(depth):
        schema = {"type": "array", "items": schema}
    assert "nested" in refused(json_schema, schema) or depth == 200


def test_a_regex_matches_the_whole():
    assert takes(regex(r"^\d{2}/\w+$"), "12/ab") and takes(regex(r"\d{2}/\w+"), "12/é")
    assert not takes(regex(r"\d{2}"), "123") and not takes(regex(r"\d{2}"), "1")


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [("", "empty"), ("(", "unclosed group"), (r"\bfoo", "lookaround"), (r"(a)\1", "backreferences")],
)
def test_a_regex_that_cannot_be_followed_is_refused(pattern, reason):
    assert reason in refused(regex, pattern)


def test_a_choice_takes_its_texts_and_nothing_else():
    texts = ["a", "ab", '"q\\"\n\x7f', "😀", "<|turn>"]
    assert all(takes(choice(texts), text) for text in texts)
    assert not takes(choice(texts), "abc") and not takes(choice(texts), "")


@pytest.mark.parametrize("texts", [[], ["a", ""]])
def test_a_choice_of_nothing_is_refused(texts):
    assert "choice" in refused(choice, texts)


def test_grammars_in_lark_and_in_gbnf():
    sums = 'start: sum\nsum: NUMBER ("+" NUMBER)*\nNUMBER: /[0-9]+/\n'
    gbnf = 'root ::= number ("+" number)*\nnumber ::= [0-9]+ # digits\n'
    for text in (sums, gbnf):
        assert takes(lark(text), "1+23+4") and not takes(lark(text), "1+") and not takes(lark(text), "x")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "neither Lark"),
        ("just words", "neither Lark"),
        ('{"grammars": []}', "neither Lark"),
        ("start: nowhere", 'unknown name: "nowhere"'),
        ("start: a\na: a\n", "no token fits"),
        ("root ::= nowhere\n", "nowhere"),
        ('root ::= "a', "GBNF"),
        ("root ::= " + "(" * 3000 + '"a"' + ")" * 3000, "recursion"),
        ('start: "n" %json {"multipleOf": 1000003}', "multipleOf"),
        ("start: <[99999]>", "range end too large"),
        ("start: " + '"a" ' * 300_000, "characters"),
        ("root ::= " + '"a" ' * 30_000, "characters"),
        ("start: %json " + "[" * 5000, "recursion"),
    ],
)
def test_a_grammar_that_cannot_be_followed_is_refused(text, reason):
    assert reason in refused(lark, text)


def test_a_date_is_one_of_the_calendar():
    schema = {"type": "object", "properties": {"a": {"type": "string", "format": "date"}}, "required": ["a"]}
    grammar = json_schema(schema | {"additionalProperties": False})
    assert takes(grammar, '{"a":"2024-02-29"}') and takes(grammar, '{"a":"1999-12-31"}')
    assert takes(grammar, '{"a":"2000-02-29"}') and not takes(grammar, '{"a":"1900-02-29"}')
    assert not takes(grammar, '{"a":"0869-02-29"}') and not takes(grammar, '{"a":"2024-04-31"}')


def test_a_date_under_a_pattern_is_still_one_of_the_calendar():
    date = {"type": "string", "format": "date", "pattern": "^20"}
    grammar = json_schema({"type": "object", "properties": {"a": date}, "required": ["a"]})
    assert takes(grammar, '{"a":"2024-02-29"}')
    assert not takes(grammar, '{"a":"2023-02-29"}') and not takes(grammar, '{"a":"1999-12-31"}')


@pytest.mark.parametrize("value", [[], {}, ["date"], 3, None])
def test_a_format_that_is_no_text_says_nothing(value):
    schema = {"type": "object", "properties": {"a": {"type": "string", "format": value}}, "required": ["a"]}
    assert takes(json_schema(schema), '{"a":"x"}')
