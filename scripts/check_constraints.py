"""Asks a server for answers of a demanded form, at a temperature where the model talks nonsense, and checks each one.

    python -m g4jax.server --max-model-len 1024 &
    python -m scripts.check_constraints --requests 500

Four kinds: a required tool call, one of a named function, content by a JSON schema, and the same behind a thought.
Every request has schemas of its own, drawn by its seed; every second one is streamed. Calls must be of the tools, and
arguments and content JSON that fits. What reaches the token limit counts as cut. The last line is one JSON object; exit
status 1 if an answer is wrong or a request fails.
"""

import argparse
import asyncio
import json
import random
import sys
import time
from collections import Counter
from typing import Any

import jsonschema
import openai
from openai.types.chat.chat_completion import Choice

DRAFT = jsonschema.Draft202012Validator
KINDS = ("required", "named", "schema", "schema_thinking")
OUTCOMES = ("valid", "invalid", "cut", "error")
KEYS = ("city", "days", "unit", "a_list", "from-date", "two words", "größe", "Zeit", "x1", "note", "inner", "$id2")
WORDS = ("What is", "17+25", "weather", "in Paris", "Hello", "again and again", "list", "?", "now", "zebra", "{", "<b>")
CONSTANTS = ("red", "", 'say "hi"\n', "C:\\dir", "日本", "}{", 0, -7, 2.5, True, None)
LEAVES: tuple[dict[str, Any], ...] = (
    {"type": "string", "minLength": 1, "maxLength": 8},
    {"type": "string", "pattern": "^[A-Z]{2}-[0-9]{1,3}$"},
    {"type": "string", "format": "date"},
    {"type": "integer", "minimum": -3, "maximum": 1200},
    {"type": "number", "minimum": 0, "maximum": 100, "multipleOf": 0.25},
    {"type": "boolean"},
    {"type": ["integer", "null"], "exclusiveMinimum": 0, "maximum": 9},
    {"anyOf": [{"type": "string", "maxLength": 3}, {"type": "array", "items": {"type": "boolean"}, "maxItems": 2}]},
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base-url", default="http://127.0.0.1:30000/v1")
    parser.add_argument("--requests", type=int, default=500, help="of each kind")
    parser.add_argument("--concurrency", type=int, default=32, help="most requests under way at once")
    parser.add_argument("--temperature", type=float, default=1.5)
    parser.add_argument("--max-tokens", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    figures: dict[str, dict[str, float]] = {}
    print(f"{'kind':18}" + "".join(f"{name:>9}" for name in (*OUTCOMES, "seconds")))
    for kind in KINDS:
        began = time.perf_counter()
        common = {"temperature": args.temperature, "max_tokens": args.max_tokens}
        bodies = [request(kind, args.seed + i, **common) for i in range(args.requests)]
        found = asyncio.run(outcomes(args.base_url, bodies, args.concurrency))
        figures[kind] = {name: found[name] for name in OUTCOMES} | {"seconds": round(time.perf_counter() - began, 1)}
        print(f"{kind:18}" + "".join(f"{figure:9}" for figure in figures[kind].values()), flush=True)
    print(json.dumps(vars(args) | {"kinds": figures}))
    sys.exit(any(row["invalid"] or row["error"] for row in figures.values()))


def request(kind: str, seed: int, **more: Any) -> dict[str, Any]:
    """The body of a chat request, the same again with the same seed."""
    rng = random.Random(seed)
    text = " ".join(rng.choices(WORDS, k=rng.randint(1, 8)))
    body = more | {"model": "default", "messages": [{"role": "user", "content": text}], "seed": seed, "top_p": 1}
    extra: dict[str, Any] = {"top_k": 0}  # and top_p 1: every token that the grammar allows may be drawn
    if kind in ("required", "named"):
        tools = [{"name": f"tool_{i}", "parameters": object_schema(rng)} for i in range(rng.randint(1, 3))]
        body["tools"] = [{"type": "function", "function": tool} for tool in tools]
        named = {"type": "function", "function": {"name": rng.choice(tools)["name"]}}
        body["tool_choice"] = named if kind == "named" else kind
    else:
        body["response_format"] = {"type": "json_schema", "json_schema": {"name": "a", "schema": object_schema(rng)}}
    if kind == "schema_thinking":
        extra |= {"chat_template_kwargs": {"enable_thinking": True}, "thinking_token_budget": rng.randint(0, 60)}
    return body | {"extra_body": extra}


def object_schema(rng: random.Random, depth: int = 0) -> dict[str, Any]:
    properties = {key: value_schema(rng, depth + 1) for key in rng.sample(KEYS, rng.randint(1, 3))}
    required = [key for key in properties if rng.random() < 0.6]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def value_schema(rng: random.Random, depth: int) -> dict[str, Any]:
    """Of values that end soon, whatever the model would like. `depth` counts the objects and arrays around it."""
    match rng.choice(("leaf", "leaf", "enum", "object", "array")):
        case "object" if depth < 3:
            return object_schema(rng, depth)
        case "array" if depth < 3:
            least = rng.randint(0, 2)
            return {"type": "array", "items": value_schema(rng, depth + 1), "minItems": least, "maxItems": least + 1}
        case "enum":
            return {"enum": rng.sample(CONSTANTS, rng.randint(1, 4))}
        case _:
            return rng.choice(LEAVES)


async def outcomes(base_url: str, bodies: list[dict[str, Any]], concurrency: int) -> Counter[str]:
    """How many ended in which way; every second one is streamed. What is wrong is told on the standard error."""
    client = openai.AsyncOpenAI(base_url=base_url, api_key="none", max_retries=0, timeout=600)
    gate = asyncio.Semaphore(concurrency)

    async def outcome(body: dict[str, Any], streamed: bool) -> str:
        try:
            async with gate:
                choice = await ask(client, body, streamed)
            if choice.finish_reason == "length":
                return "cut"
            check(body, choice)
            return "valid"
        except (openai.OpenAIError, ValueError, jsonschema.ValidationError) as error:
            print(f"{str(error).splitlines()[0]}: {json.dumps(body)}", file=sys.stderr)
            return "error" if isinstance(error, openai.OpenAIError) else "invalid"

    async with client:
        return Counter(await asyncio.gather(*(outcome(body, i % 2 == 1) for i, body in enumerate(bodies))))


async def ask(client: openai.AsyncOpenAI, body: dict[str, Any], streamed: bool) -> Choice:
    if not streamed:
        return (await client.chat.completions.create(**body)).choices[0]
    async with client.chat.completions.stream(**body) as stream:
        return (await stream.get_final_completion()).choices[0]


def check(body: dict[str, Any], choice: Choice) -> None:
    """ValueError or ValidationError if an answer that was not cut is not what the request demands."""
    content = choice.message.content or ""
    calls = [call.function for call in choice.message.tool_calls or () if call.type == "function"]
    demanded = ("tool_calls", True, False) if "tools" in body else ("stop", False, True)
    if (choice.finish_reason, bool(calls), bool(content)) != demanded:
        raise ValueError(f"{len(calls)} calls, content {content!r}, finish_reason {choice.finish_reason}")
    if content:
        written = [(content, body["response_format"]["json_schema"]["schema"])]
    else:
        schemas = {tool["function"]["name"]: tool["function"]["parameters"] for tool in body["tools"]}
        named = body["tool_choice"]
        if named != "required" and [call.name for call in calls] != [named["function"]["name"]]:
            raise ValueError("not one call of the named function")
        written = [(call.arguments, schemas.get(call.name, False)) for call in calls]
    for text, schema in written:
        jsonschema.validate(json.loads(text), schema, DRAFT, format_checker=DRAFT.FORMAT_CHECKER)


if __name__ == "__main__":
    main()
