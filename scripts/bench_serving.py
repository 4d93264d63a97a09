"""Speed of an OpenAI-compatible server as its clients see it, by the definitions of SGLang's bench_serving.

    python scripts/bench_serving.py --requests 10 --concurrency 1 --input 610 --output 422 --base-url http://127.0.0.1:30000
    python scripts/bench_serving.py --requests 300 --concurrency 100 --input 1024 --output 1024 --range-ratio 0
    python scripts/bench_serving.py --requests 300 --concurrency 100 --images 2 --input 128 --output 1024

Sends prompts of random token ids to /v1/completions, streamed, with ignore_eos; lengths are uniform between
`--range-ratio` times the given one and the given one. `--shared-prefix N` puts the same N tokens before every prompt.
With `--images N` a prompt is a chat message of N JPEGs, no two alike, and of digits, one token each. `--image-content
random` is noise, as SGLang's data set has it: the largest files there are; `photo` has the detail of a photograph.
Requests are greedy; `--extra-request-body '{"temperature": 1.0, "logprobs": 5}'` asks otherwise.
The same client measures SGLang and vLLM; of a g4jax server it tells the processor time of a token too. Time to first
token (TTFT) ends with the first chunk that has text; time per output token (TPOT) is the rest over the other tokens;
throughput counts the tokens of `usage`. The last line is one JSON object.
"""

import argparse
import asyncio
import base64
import io
import json
import random
import re
import statistics
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass

from PIL import Image

CPU_SECONDS = re.compile(r"^(?:process|g4jax:engine)_cpu_seconds_total\S* (\S+)$", re.MULTILINE)


@dataclass(frozen=True)
class Sample:
    """A prompt as token ids, or the content of a chat message."""

    prompt: list[int] | list[dict]
    output: int


@dataclass
class Answer:
    """Times in seconds; `gaps` lie between chunks."""

    ttft: float
    latency: float
    gaps: list[float]
    output: int
    prompt: int

    @property
    def tpot(self) -> float:
        return (self.latency - self.ttft) / max(self.output - 1, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base-url", default="http://127.0.0.1:30000")
    parser.add_argument("--requests", type=int, default=10)
    parser.add_argument("--concurrency", type=int, default=1, help="most requests under way at once")
    parser.add_argument("--rate", type=float, default=float("inf"), help="arrivals per second, Poisson")
    parser.add_argument("--input", type=int, default=610, help="tokens of a prompt")
    parser.add_argument("--output", type=int, default=422, help="tokens of an answer")
    parser.add_argument("--range-ratio", type=float, default=1.0, help="shortest length over longest")
    parser.add_argument("--shared-prefix", type=int, default=0, help="tokens that all prompts begin with")
    parser.add_argument("--warm-up", type=int, default=2, help="requests before the clock starts")
    parser.add_argument("--vocab-size", type=int, default=200_000, help="ids are drawn below it, from 1,000 on")
    parser.add_argument("--images", type=int, default=0, help="images of a prompt")
    parser.add_argument("--image-content", choices=("random", "photo"), default="random")
    parser.add_argument("--image-size", default="1280x720", help="width x height")
    parser.add_argument("--extra-request-body", type=json.loads, default={}, help="JSON: more fields of each request")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    with urllib.request.urlopen(f"{args.base_url}/v1/models") as response:
        model = json.load(response)["data"][0]["id"]
    samples = image_samples(args) if args.images else random_samples(args)
    asyncio.run(run(args, model, samples[: args.warm_up]))
    cpu, started = server_cpu_seconds(args.base_url), time.perf_counter()
    answers = asyncio.run(run(args, model, samples[args.warm_up :]))
    duration, cpu = time.perf_counter() - started, server_cpu_seconds(args.base_url) - cpu
    print_report(args, model, answers, duration, cpu)


def server_cpu_seconds(base_url: str) -> float:
    """Processor time that both processes of a g4jax server have used so far; 0 where a server does not tell."""
    try:
        with urllib.request.urlopen(f"{base_url}/metrics") as response:
            told = CPU_SECONDS.findall(response.read().decode())
    except urllib.error.URLError:
        return 0.0
    return sum(map(float, told)) if len(told) == 2 else 0.0


def random_samples(args: argparse.Namespace) -> list[Sample]:
    rng, vocabulary = random.Random(args.seed), range(1000, args.vocab_size)

    def length(most: int) -> int:
        return rng.randint(max(1, int(most * args.range_ratio)), most)

    prefix = rng.choices(vocabulary, k=args.shared_prefix)
    return [
        Sample(prefix + rng.choices(vocabulary, k=length(args.input)), length(args.output))
        for _ in range(args.warm_up + args.requests)
    ]


def image_samples(args: argparse.Namespace) -> list[Sample]:
    """Images first, as SGLang's image data set has them."""
    rng, width, height = random.Random(args.seed), *map(int, args.image_size.split("x"))
    make = noise if args.image_content == "random" else photo
    samples = []
    for _ in range(args.warm_up + args.requests):
        images = [
            {"type": "image_url", "image_url": {"url": jpeg(make(rng, width, height))}} for _ in range(args.images)
        ]
        text = {"type": "text", "text": "".join(rng.choices("0123456789", k=args.input))}
        samples.append(Sample([*images, text], args.output))
    return samples


def noise(rng: random.Random, width: int, height: int) -> Image.Image:
    return Image.frombytes("RGB", (width, height), rng.randbytes(3 * width * height))


def photo(rng: random.Random, width: int, height: int) -> Image.Image:
    """Soft shapes under a little noise: 1280 x 720 become 175 kB, about what a camera's picture of that size takes."""
    shapes = noise(rng, max(1, width // 32), max(1, height // 32)).resize((width, height), Image.Resampling.BICUBIC)
    return Image.blend(shapes, noise(rng, width, height), 0.08)


def jpeg(image: Image.Image) -> str:
    """A data URI."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


async def run(args: argparse.Namespace, model: str, samples: list[Sample]) -> list[Answer]:
    """Sends the samples at the given rate, no more than the given number at once."""
    gate = asyncio.Semaphore(args.concurrency)
    rng = random.Random(args.seed)

    async def limited(sample: Sample) -> Answer:
        async with gate:
            return await ask(args.base_url, model, sample, args.extra_request_body)

    jobs = []
    for sample in samples:
        jobs.append(asyncio.create_task(limited(sample)))
        if args.rate != float("inf"):
            await asyncio.sleep(rng.expovariate(args.rate))
    return await asyncio.gather(*jobs)


async def ask(base_url: str, model: str, sample: Sample, extra: dict) -> Answer:
    """One streamed request over a connection of its own: no client library takes part in the times."""
    url = urllib.parse.urlsplit(base_url)
    is_chat = isinstance(sample.prompt[0], dict)
    path = "/v1/chat/completions" if is_chat else "/v1/completions"
    prompt = {"messages": [{"role": "user", "content": sample.prompt}]} if is_chat else {"prompt": sample.prompt}
    body = {
        "model": model,
        **prompt,
        "max_tokens": sample.output,
        "temperature": 0.0,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
        **extra,
    }
    payload = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: {url.netloc}\r\nContent-Type: application/json\r\n"
    reader, writer = await asyncio.open_connection(url.hostname, url.port or 80, limit=2**20)
    started = time.perf_counter()
    writer.write(f"{head}Content-Length: {len(payload)}\r\nConnection: close\r\n\r\n".encode() + payload)
    try:
        return await _read(reader, started, sample)
    finally:
        writer.close()


async def _read(reader: asyncio.StreamReader, started: float, sample: Sample) -> Answer:
    times, output, prompt = [], 0, 0
    status = await reader.readline()
    if b" 200 " not in status:
        raise RuntimeError(f"{status.decode().strip()}: {(await reader.read()).decode()[-500:]}")
    while line := await reader.readline():
        if not line.startswith(b"data: {"):
            continue
        event = json.loads(line[6:])
        if event.get("error"):
            raise RuntimeError(event["error"])
        if event["choices"] and _has_text(event["choices"][0]):
            times.append(time.perf_counter())
        if event.get("usage"):
            output, prompt = event["usage"]["completion_tokens"], event["usage"]["prompt_tokens"]
    ended = time.perf_counter()
    if output != sample.output:
        raise RuntimeError(f"{sample.output} tokens were asked for, {output} came")
    times = times or [ended]  # nothing but control tokens, which random weights may choose
    gaps = [after - before for before, after in zip(times, times[1:], strict=False)]
    return Answer(times[0] - started, ended - started, gaps, output, prompt)


def _has_text(choice: dict) -> bool:
    if "text" in choice:
        return bool(choice["text"])
    return bool(choice["delta"].get("content") or choice["delta"].get("reasoning_content"))


def print_report(
    args: argparse.Namespace, model: str, answers: list[Answer], duration: float, cpu_seconds: float
) -> None:
    outputs = sum(answer.output for answer in answers)
    inputs = sum(answer.prompt for answer in answers)
    figures = {
        "model": model,
        "requests": len(answers),
        "concurrency": args.concurrency,
        "duration_s": duration,
        "input_tokens": inputs,
        "output_tokens": outputs,
        "request_throughput": len(answers) / duration,
        "input_throughput": inputs / duration,
        "output_throughput": outputs / duration,
        "server_cpu_us_per_token": 1e6 * cpu_seconds / outputs,
        **_spread("ttft_ms", [answer.ttft for answer in answers]),
        **_spread("tpot_ms", [answer.tpot for answer in answers if answer.output > 1]),
        **_spread("itl_ms", [gap for answer in answers for gap in answer.gaps]),
        **_spread("latency_ms", [answer.latency for answer in answers]),
    }
    for name, value in figures.items():
        print(f"{name:24} {value:.3f}" if isinstance(value, float) else f"{name:24} {value}")
    print(json.dumps(figures))


def _spread(name: str, seconds: list[float]) -> dict[str, float]:
    if not seconds:
        return {}
    ms = sorted(1e3 * value for value in seconds)
    at = {f"{name}_p{p}": ms[min(len(ms) - 1, len(ms) * p // 100)] for p in (50, 90, 99)}
    return {f"{name}_mean": statistics.fmean(ms), **at}


if __name__ == "__main__":
    main()
