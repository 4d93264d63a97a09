"""The command line: every wrong flag is one line, and both processes end together."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from g4jax.media.fetch import FetchPolicy
from g4jax.testing.byte_tokenizer import byte_tokenizer
from g4jax.testing.configs import tiny
from server import cli

ROOT = Path(__file__).parents[2]

FAKE_SERVER = """
import sys
from g4jax.testing.fake_engine import build_fake_engine
from server.cli import main
if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], build_fake_engine))
"""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tiny-gemma")
    byte_tokenizer(folder)
    (folder / "model.safetensors").touch()
    (folder / "config.json").write_text(json.dumps(tiny("e2b", vocab_size=512)))
    generation = {"temperature": 0.7, "top_k": 64, "top_p": 0.95, "eos_token_id": [1, 106, 50]}
    (folder / "generation_config.json").write_text(json.dumps(generation))
    return folder


def test_flags_become_options(checkpoint):
    argv = ["--model-path", str(checkpoint), "--tp", "2", "--max-running-requests", "8", "--context-length", "4096"]
    argv += ["--mem-fraction-static", "0.8", "--chunked-prefill-size", "512", "--tool-call-parser", "none"]
    argv += ["--max-queued-requests", "32", "--max-soft-tokens", "560", "--allowed-media-path", str(checkpoint)]
    options = cli.parse_options([*argv, "--trust-remote-code"])
    engine = options.engine
    assert (engine.model, engine.mesh, engine.max_batch, engine.max_model_len) == (str(checkpoint), "tp=2", 8, 4096)
    assert (engine.mem_fraction, engine.max_prefill_tokens) == (0.8, 512)
    assert (options.parse_reasoning, options.parse_tools, options.max_queued_requests) == (True, False, 32)
    assert (options.max_soft_tokens, options.fetch) == (560, FetchPolicy(local_root=checkpoint))
    assert options.names == (str(checkpoint), checkpoint.name)
    private = cli.parse_options(["--model", str(checkpoint), "--allow-private-media"])
    assert (private.max_soft_tokens, private.fetch) == (None, FetchPolicy(allow_private=True))


@pytest.mark.parametrize(
    ("flags", "flag"),
    [
        (["--model", "/no/such/folder"], "--model"),
        (["--model", "no-such-folder"], "--model"),
        (["--mesh", "tp=0"], "--mesh"),
        (["--mesh", "two"], "--mesh"),
        (["--tp", "0"], "--tp"),
        (["--tp", "2", "--mesh", "tp=4"], "--tp"),
        (["--dtype", "float64"], "--dtype"),
        (["--load-format", "gguf"], "--load-format"),
        (["--max-batch", "0"], "--max-batch"),
        (["--max-model-len", "1"], "--max-model-len"),
        (["--mem-fraction-static", "1.5"], "--mem-fraction-static"),
        (["--chunked-prefill-size", "-1"], "--chunked-prefill-size"),
        (["--max-queued-requests", "-1"], "--max-queued-requests"),
        (["--max-soft-tokens", "100"], "--max-soft-tokens"),
        (["--allowed-media-path", "/no/such/folder"], "--allowed-media-path"),
        (["--port", "70000"], "--port"),
        (["--port", "http"], "--port"),
        (["--host", "not a host"], "--host"),
        (["--reasoning-parser", "qwen3"], "--reasoning-parser"),
        (["--log-level", "loud"], "--log-level"),
        (["--no-such-flag"], "--no-such-flag"),
    ],
)
def test_wrong_flag_is_one_line(checkpoint, capfd, flags, flag):
    try:
        code = cli.main(["--model", str(checkpoint), *flags])
    except SystemExit as error:
        code = error.code
    lines = capfd.readouterr().err.splitlines()
    assert code == 2
    assert len(lines) == 1 and flag in lines[0], lines


def test_busy_port_is_known_before_anything_loads(checkpoint, capfd):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert cli.main(["--model", str(checkpoint), "--port", port]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert "--port" in line and port in line


def test_broken_tokenizer_names_the_model(checkpoint, tmp_path, capfd):
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((checkpoint / name).read_bytes())
    (tmp_path / "tokenizer.json").write_text("{")
    assert cli.main(["--model", str(tmp_path)]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert "--model" in line


def test_foreign_module_named_server(tmp_path):
    (tmp_path / "server.py").write_text("raise SystemExit('the foreign module ran')")
    run = _python("-m", "g4jax.server", "--help", cwd=tmp_path)
    out, err = run.communicate(timeout=30)
    assert run.returncode == 2
    assert len(err.splitlines()) == 1 and str(tmp_path / "server.py") in err


@pytest.mark.parametrize("sig", [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_both_processes_and_the_streams(checkpoint, tmp_path, sig):
    run, address, children = _started(checkpoint, tmp_path, "--api-key", "k")
    try:
        assert httpx.get(f"{address}/health").status_code == 200
        assert httpx.get(f"{address}/v1/models").status_code == 401
        body = {"prompt": [5, 6], "stream": True, "max_tokens": 10**5, "ignore_eos": True}
        headers = {"Authorization": "Bearer k"}
        with httpx.stream("POST", f"{address}/v1/completions", json=body, headers=headers) as answer:
            lines = answer.iter_lines()
            assert next(lines).startswith("data: {")
            run.send_signal(sig)
            events = [line for line in lines if line]
        assert "shutting down" in events[-2] and events[-1] == "data: [DONE]"
        assert run.wait(timeout=20) == 0
        assert run.stderr.read() == ""
        _wait_for_end_of(children)
    finally:
        run.kill()


def test_killed_server_leaves_no_engine(checkpoint, tmp_path):
    run, _, children = _started(checkpoint, tmp_path)
    run.kill()
    run.wait()
    _wait_for_end_of(children)


def _started(checkpoint: Path, tmp_path: Path, *flags: str) -> tuple[subprocess.Popen[str], str, list[str]]:
    """A server over the fake engine in its own process: (it, its address, the ids of its children)."""
    script = tmp_path / "fake_server.py"
    script.write_text(FAKE_SERVER)
    run = _python(str(script), "--model", str(checkpoint), "--port", "0", "--max-model-len", "1000000", *flags)
    line = next(line for line in run.stderr if "ready at" in line)
    children = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
    return run, line.partition("ready at ")[2].split("/v1")[0], children


def _python(*argv: str, cwd: Path = ROOT) -> subprocess.Popen[str]:
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, *argv], cwd=cwd, env=env, **pipes)


def _wait_for_end_of(children: list[str]) -> None:
    """The engine, and multiprocessing's own resource tracker, which ends shortly after its parent."""
    deadline = time.monotonic() + 10
    while any(_alive(pid) for pid in children):
        assert time.monotonic() < deadline, "the engine process outlived the server"
        time.sleep(0.05)


def _alive(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
