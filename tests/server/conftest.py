"""A server over the fake engine, in this process: uvicorn and the engine's loop each in a thread."""

import contextlib
import multiprocessing
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import httpx
import openai
import pytest
import uvicorn

from g4jax.chat.template import ChatTemplate, shipped_source
from g4jax.config import Gemma4Config
from g4jax.engine.options import EngineOptions
from g4jax.engine.request import Request
from g4jax.guide.guides import Guides
from g4jax.media.fetch import FetchPolicy
from g4jax.media.processor import MediaProcessor
from g4jax.sample.defaults import GenerationDefaults
from g4jax.testing.byte_tokenizer import byte_tokenizer
from g4jax.testing.configs import Variant, tiny
from g4jax.testing.encoder_configs import tiny_with_encoders
from g4jax.testing.fake_engine import FakeEngine
from server.app import create_app
from server.chat_format import ChatFormat
from server.engine_client import EngineClient
from server.engine_process import serve
from server.media_reader import MediaReader
from server.messages import EngineInfo, Ready, encode
from server.model import ModelInfo

TOKENIZER = byte_tokenizer()
END = TOKENIZER.control.turn_close
MAX_MODEL_LEN = 512
START_S = 300


@dataclass
class Running:
    """A server that runs: its address, its engine, and the official client."""

    url: str
    engine: FakeEngine
    client: openai.OpenAI

    def healthy(self) -> bool:
        return httpx.get(f"{self.url}/health").status_code == 200


def ids(text: str) -> list[int]:
    """Ids of an answer as the model would write it, control tokens spelled out."""
    return TOKENIZER.encode_rendered(text)


def until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    """Waits for what another thread brings about."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.01)


def answers(table: dict[str, str], otherwise: str = "Hello!<turn|>") -> Callable[[Request], list[int]]:
    """A script: the answer whose key is in the last turn of the prompt."""

    def script(request: Request) -> list[int]:
        prompt = TOKENIZER.decode(request.prompt_ids, skip_special_tokens=False).rsplit("<|turn>user", 1)[-1]
        return ids(next((answer for key, answer in table.items() if key in prompt), otherwise))

    return script


def chat_format(**flags: bool) -> ChatFormat:
    return ChatFormat(TOKENIZER, ChatTemplate(shipped_source("small"), TOKENIZER), **flags)


def media_reader(variant: Variant | None = "e4b", **policy) -> MediaReader:
    """Of a model with the encoders of `variant`, or with none. `policy`: what may be fetched."""
    raw = tiny("e4b") if variant is None else tiny_with_encoders(variant)
    if variant is not None:
        raw["vision_config"] = raw["vision_config"] | {"position_embedding_size": 1024}
    return MediaReader(MediaProcessor(Gemma4Config.from_dict(raw), max_soft_tokens=70), FetchPolicy(**policy))


def model_info(**values) -> ModelInfo:
    values = {"defaults": GenerationDefaults(top_k=64, top_p=0.95)} | values
    return ModelInfo(("nano", "org/nano"), "/nano", 1, TOKENIZER.vocab_size, TOKENIZER.stop_ids, **values)


@contextlib.contextmanager
def running(
    engine: FakeEngine,
    *,
    api_key: str | None = None,
    max_queued: int | None = None,
    media: MediaReader | None = None,
    **flags: bool,
) -> Iterator[Running]:
    ours, theirs = multiprocessing.Pipe()
    theirs.send_bytes(encode(Ready(EngineInfo(engine.max_model_len, engine.max_batch, EngineOptions("/nano")))))
    guides = Guides(TOKENIZER, TOKENIZER.vocab_size, TOKENIZER.stop_ids)
    loop = threading.Thread(target=serve, args=(theirs, engine, guides), daemon=True)
    loop.start()
    client = EngineClient(ours)
    media = media or media_reader()
    app = create_app(client, chat_format(**flags), model_info(), media, api_key=api_key, max_queued=max_queued)
    with listening(app) as url:
        official = openai.OpenAI(base_url=f"{url}/v1", api_key=api_key or "none", max_retries=0, timeout=20)
        while client.info is None:
            time.sleep(0.005)
        yield Running(url, engine, official)
    client.close()
    loop.join(5)
    theirs.close()


@contextlib.contextmanager
def listening(app) -> Iterator[str]:
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)  # A client that does not read is felt soon.
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.005)
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    thread.join(10)


@pytest.fixture(scope="module")
def served(request) -> Iterator[Running]:
    """The server of a test module, which names its answers in ANSWERS."""
    with running(FakeEngine(answers(request.module.ANSWERS), max_model_len=MAX_MODEL_LEN, tokens_per_step=3)) as server:
        yield server


@pytest.fixture(scope="session")
def base_url(tmp_path_factory):
    """The whole server as people start it, with the bundled checkpoint; one for all tests of a worker."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = tmp_path_factory.mktemp("server") / "log"
    command = [sys.executable, "-m", "g4jax.server", "--port", str(port), "--max-model-len", "1024"]
    with log.open("w") as out, subprocess.Popen(command, stdout=out, stderr=out) as server:
        try:
            wait_until_ready(f"http://127.0.0.1:{port}/health", server, log)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            server.terminate()
            server.wait(30)


def wait_until_ready(url: str, server: subprocess.Popen, log) -> None:
    end = time.monotonic() + START_S
    while time.monotonic() < end:
        assert server.poll() is None, log.read_text()
        try:
            urllib.request.urlopen(url)
            return
        except urllib.error.URLError:
            time.sleep(0.5)
    raise AssertionError(f"not ready after {START_S} s: {log.read_text()}")
