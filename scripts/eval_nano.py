"""Scores a nano checkpoint on fresh samples through the offline API: greedy answers, one right reply each.

    python -m scripts.eval_nano --samples 100

Prints a table and ends with one JSON line. `--model` names another folder, `--dtype float32` another precision.
"""

import argparse
import json
import random
import zlib
from collections.abc import Iterator
from pathlib import Path

from g4jax import LLM, SamplingParams
from g4jax.llm import ChatCompletion
from scripts.nano import mixture, rendering, senses
from scripts.nano.tasks import Sample

ABILITIES = (*mixture.JUDGED, "tool_call_everyday_new", *senses.JUDGED)
MAX_TOKENS = 240


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="folder of the checkpoint (default: the bundled one)")
    parser.add_argument("--samples", type=int, default=100, help="samples of each ability")
    parser.add_argument("--abilities", nargs="+", choices=ABILITIES, default=ABILITIES)
    parser.add_argument("--dtype", default="auto", choices=["auto", "bfloat16", "float32"])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--mistakes", type=Path, help="file for the wrong answers")
    given = parser.parse_args()
    llm = LLM(given.model, dtype=given.dtype)
    scores, mistakes = {}, []
    for ability in given.abilities:
        rng = random.Random(zlib.crc32(ability.encode()) + given.seed)
        samples = [drawn(rng, ability) for _ in range(given.samples)]
        wrong = judged(llm, samples)
        scores[ability] = 1 - len(wrong) / len(samples)
        mistakes += wrong
        print(f"{ability:24} {scores[ability]:7.1%}", flush=True)
    if given.mistakes:
        given.mistakes.write_text("\n\n".join(mistakes))
    print(
        json.dumps({"model": given.model or "nano", "dtype": given.dtype, "samples": given.samples, "accuracy": scores})
    )


def drawn(rng: random.Random, ability: str) -> Sample:
    return senses.sample(rng, ability) if ability in senses.JUDGED else mixture.sample(rng, ability, "eval")


def judged(llm: LLM, samples: list[Sample]) -> list[str]:
    """Prompt, answer and expected answer of every sample that was answered wrongly."""
    wrong = []
    for sample, text in zip(samples, written(llm, samples), strict=True):
        prompt = rendering.prompt(sample, llm.template)
        if not rendering.is_right(sample, prompt, text):
            wrong.append(f"{prompt}\n--- written\n{text}\n--- expected\n{rendering.reply(sample, prompt)}")
    return wrong


def written(llm: LLM, samples: list[Sample]) -> list[str]:
    """What the model writes after each prompt, control tokens spelled out."""
    params = SamplingParams(temperature=0, max_tokens=MAX_TOKENS)
    if any(senses.media_parts(samples[0].messages)):
        done = list(_chatted(llm, samples, params))
    else:
        prompts = [rendering.prompt(sample, llm.template) for sample in samples]
        done = llm.generate([llm.tokenizer.encode_rendered(prompt) for prompt in prompts], params, progress=False)
    return [llm.tokenizer.decode(completion.token_ids, skip_special_tokens=False) for completion in done]


def _chatted(llm: LLM, samples: list[Sample], params: SamplingParams) -> Iterator[ChatCompletion]:
    """Conversations with pictures and sounds: those with and those without thinking are two batches."""
    answers = {
        thinking: iter(llm.chat(group, sampling_params=params, progress=False, enable_thinking=thinking))
        for thinking in (False, True)
        if (group := [sample.messages for sample in samples if sample.thinking == thinking])
    }
    return (next(answers[sample.thinking]) for sample in samples)


if __name__ == "__main__":
    main()
