"""Scores a nano checkpoint on fresh samples through the offline API: greedy answers, one right reply each.

    python -m scripts.eval_nano --samples 100

Prints a table and ends with one JSON line. `--model` names another folder, `--dtype float32` another precision.
"""

import argparse
import json
import random
import zlib
from pathlib import Path

from g4jax import LLM, SamplingParams
from scripts.nano import mixture, rendering
from scripts.nano.tasks import Sample

ABILITIES = (*mixture.JUDGED, "tool_call_everyday_new")
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
        samples = [mixture.sample(rng, ability, "eval") for _ in range(given.samples)]
        wrong = judged(llm, samples)
        scores[ability] = 1 - len(wrong) / len(samples)
        mistakes += wrong
        print(f"{ability:24} {scores[ability]:7.1%}", flush=True)
    if given.mistakes:
        given.mistakes.write_text("\n\n".join(mistakes))
    print(
        json.dumps({"model": given.model or "nano", "dtype": given.dtype, "samples": given.samples, "accuracy": scores})
    )


def judged(llm: LLM, samples: list[Sample]) -> list[str]:
    """Prompt, answer and expected answer of every sample that was answered wrongly."""
    prompts = [rendering.prompt(sample, llm.template) for sample in samples]
    ids = [llm.tokenizer.encode_rendered(prompt) for prompt in prompts]
    done = llm.generate(ids, SamplingParams(temperature=0, max_tokens=MAX_TOKENS), progress=False)
    written = [llm.tokenizer.decode(completion.token_ids, skip_special_tokens=False) for completion in done]
    return [
        f"{prompt}\n--- written\n{text}\n--- expected\n{rendering.reply(sample, prompt)}"
        for sample, prompt, text in zip(samples, prompts, written, strict=True)
        if not rendering.is_right(sample, prompt, text)
    ]


if __name__ == "__main__":
    main()
