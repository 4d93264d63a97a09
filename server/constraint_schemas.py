"""The fields of a request that demand a form of the answer: OpenAI's, SGLang's and vLLM's names for the same things."""

from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from server.body import Body, wrong


def _text_or_schema(value: Any) -> str:
    return "<text>" if isinstance(value, str) else "<schema>"


JsonSchema = Annotated[
    Annotated[str, Tag("<text>")] | Annotated[dict[str, Any], Tag("<schema>")], Discriminator(_text_or_schema)
]
"""A schema, or the JSON text of one."""

Choices = Annotated[list[str], Field(min_length=1)]


class NamedSchema(Body):
    """`strict` false is held as well: an answer always has the form of the schema."""

    name: str
    schema_: dict[str, Any] = Field(alias="schema")
    strict: bool | None = None


class ResponseFormat(Body):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: NamedSchema | None = None

    @model_validator(mode="after")
    def _schema_where_needed(self) -> Self:
        if self.type == "json_schema" and self.json_schema is None:
            raise wrong("json_schema", "is missing: type json_schema needs it")
        return self


class StructuredOutputs(Body):
    """vLLM's name for all of them."""

    json_: JsonSchema | None = Field(None, alias="json")
    json_object: bool | None = None
    regex: str | None = None
    choice: Choices | None = None
    grammar: str | None = None


class ConstraintBody(Body):
    """At most one of these fields may be given. Each goes with both endpoints.

    regex: the whole answer matches it. choice: the answer is one of these texts. ebnf, grammar: a grammar.
    json_schema: as response_format of that type. The names with guided_ are older ones for the same.
    """

    response_format: ResponseFormat | None = None
    regex: str | None = None
    ebnf: str | None = None
    grammar: str | None = None
    choice: Choices | None = None
    json_schema: JsonSchema | None = None
    guided_json: JsonSchema | None = None
    guided_regex: str | None = None
    guided_choice: Choices | None = None
    guided_grammar: str | None = None
    structured_outputs: StructuredOutputs | None = None
