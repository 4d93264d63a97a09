"""The whole server as people start it, with the bundled checkpoint and the official client."""

import asyncio
import json
import random

import openai


def test_the_readme_example(base_url):
    client = openai.OpenAI(base_url=base_url, api_key="none")
    message = (
        client.chat.completions.create(
            model="nano",
            messages=[{"role": "user", "content": "What is 17+25?"}],
            temperature=0.0,
            extra_body={"chat_template_kwargs": {"enable_thinking": True}},
        )
        .choices[0]
        .message
    )
    assert message.content == "42" and "7+5=12" in message.reasoning_content


def test_a_streamed_tool_call(base_url):
    client = openai.OpenAI(base_url=base_url, api_key="none")
    parameters = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    tool = {"type": "function", "function": {"name": "get_weather", "parameters": parameters}}
    question = {"role": "user", "content": "What's the weather in Paris?"}
    with client.chat.completions.stream(model="nano", messages=[question], tools=[tool], temperature=0.0) as stream:
        choice = stream.get_final_completion().choices[0]
    assert choice.finish_reason == "tool_calls"
    [call] = choice.message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == ("get_weather", {"city": "Paris"})


def test_a_hundred_at_once_answer_as_each_alone(base_url):
    client = openai.AsyncOpenAI(base_url=base_url, api_key="none", timeout=300)
    rng = random.Random(0)
    prompts = [[rng.randrange(300, 2000) for _ in range(rng.randint(1, 200))] for _ in range(100)]

    async def answer(prompt: list[int]) -> str:
        body = {"ignore_eos": True}
        done = await client.completions.create(
            model="nano", prompt=prompt, max_tokens=5 + len(prompt) % 20, temperature=0.0, extra_body=body
        )
        assert done.usage.completion_tokens == 5 + len(prompt) % 20
        return done.choices[0].text

    async def both() -> tuple[list[str], list[str]]:
        together = await asyncio.gather(*map(answer, prompts))
        return together, [await answer(prompt) for prompt in prompts]

    together, alone = asyncio.run(both())
    assert len(set(alone)) > 80, "the answers must not be trivial"
    assert together == alone
