"""The command line: flags -> options, then the engine process and the HTTP server."""

import argparse
import logging
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import uvicorn

from g4jax.engine.checkpoint import find_checkpoint
from g4jax.engine.options import EngineOptions, InvalidOption
from g4jax.media.fetch import FetchPolicy
from g4jax.media.processor import BUDGETS
from server.app import create_app
from server.chat_format import ChatFormat
from server.engine_client import EngineClient
from server.engine_process import Builder, build_engine
from server.media_reader import MediaReader
from server.model import ModelInfo
from server.start_report import StartReport

log = logging.getLogger("g4jax")

FLAGS = {"mem_fraction": "--mem-fraction-static", "max_prefill_tokens": "--chunked-prefill-size"}
"""The flags whose names are not those of their option."""

SHUTDOWN_GRACE_S = 3
"""How long a client may take to read its last words."""


@dataclass(frozen=True)
class ServerOptions:
    """The settings of the HTTP process."""

    engine: EngineOptions
    names: tuple[str, ...]
    host: str
    port: int
    api_key: str | None
    max_queued_requests: int | None
    parse_reasoning: bool
    parse_tools: bool
    max_soft_tokens: int | None
    fetch: FetchPolicy
    log_level: str


class FlagParser(argparse.ArgumentParser):
    """One line for a wrong flag instead of the whole usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"g4jax: {message} (--help lists the flags)\n")


def flag_parser() -> argparse.ArgumentParser:
    """The flags. SGLang's and vLLM's names are accepted where they mean the same."""
    parser = FlagParser(
        prog="python -m g4jax.server", description="Serve Gemma 4 to OpenAI clients.", allow_abbrev=False
    )
    model = parser.add_argument_group("model")
    model.add_argument("--model", "--model-path", help="hub id or checkpoint folder (default: the bundled nano model)")
    model.add_argument("--served-model-name", help="the name clients use (default: the value of --model)")
    model.add_argument("--dtype", default="auto", choices=["auto", "bfloat16", "float32"])
    model.add_argument("--load-format", default="auto", choices=["auto", "dummy"], help="dummy: random weights")
    model.add_argument("--trust-remote-code", action="store_true", help="accepted and ignored: no remote code is run")
    engine = parser.add_argument_group("engine")
    engine.add_argument("--mesh", help='devices by axis, such as "tp=2" (default: tp=1)')
    engine.add_argument("--tp", "--tp-size", "--tensor-parallel-size", type=int, help="short for --mesh tp=N")
    engine.add_argument("--max-batch", "--max-running-requests", "--max-num-seqs", type=int, help="sequences at a time")
    engine.add_argument("--max-model-len", "--context-length", type=int, help="tokens of prompt and answer together")
    engine.add_argument("--mem-fraction-static", "--gpu-memory-utilization", type=float, dest="mem_fraction")
    engine.add_argument("--chunked-prefill-size", type=int, dest="max_prefill_tokens", help="prompt tokens a step")
    http = parser.add_argument_group("http")
    http.add_argument("--host", default="127.0.0.1")
    http.add_argument("--port", type=int, default=30000)
    http.add_argument("--api-key", help="clients must send it, as a bearer token or as x-api-key")
    http.add_argument("--max-queued-requests", type=int, help="how many may wait before more are refused with 503")
    http.add_argument(
        "--reasoning-parser", default="gemma4", choices=["gemma4", "none"], help="none: thoughts are content"
    )
    http.add_argument("--tool-call-parser", default="gemma4", choices=["gemma4", "none"], help="none: refuse tools")
    media = parser.add_argument_group("media")
    media.add_argument("--max-soft-tokens", type=int, choices=BUDGETS, help="of an image (default: the checkpoint's)")
    media.add_argument("--allowed-media-path", type=Path, metavar="DIR", help="file addresses below it may be read")
    media.add_argument(
        "--allow-private-media", action="store_true", help="fetch media also from private and local addresses"
    )
    http.add_argument("--log-level", default="info", choices=["debug", "info", "warning", "error"])
    return parser


def parse_options(argv: Sequence[str] | None = None) -> ServerOptions:
    """Flags -> options.

    Raises:
      SystemExit: a flag is unknown or is no number.
      InvalidOption: a value that cannot be, or a checkpoint that is not there.
    """
    args = flag_parser().parse_args(argv)
    if not 0 <= args.port <= 65535:
        raise InvalidOption("port", f"must be from 0 to 65535, got {args.port}")
    if args.max_queued_requests is not None and args.max_queued_requests < 0:
        raise InvalidOption("max_queued_requests", f"must not be negative, got {args.max_queued_requests}")
    if args.allowed_media_path is not None and not args.allowed_media_path.is_dir():
        raise InvalidOption("allowed_media_path", f"{args.allowed_media_path} is no folder")
    folder = find_checkpoint(args.model, with_weights=args.load_format != "dummy")
    given = {name: getattr(args, name) for name in ("max_batch", "max_model_len", "mem_fraction", "max_prefill_tokens")}
    engine = EngineOptions(
        model=str(folder),
        mesh=_mesh(args.mesh, args.tp),
        dtype=args.dtype,
        load_format=args.load_format,
        **{name: value for name, value in given.items() if value is not None},
    )
    return ServerOptions(
        engine=engine,
        names=_names(args.served_model_name, args.model, folder),
        host=args.host,
        port=args.port,
        api_key=args.api_key,
        max_queued_requests=args.max_queued_requests,
        parse_reasoning=args.reasoning_parser != "none",
        parse_tools=args.tool_call_parser != "none",
        max_soft_tokens=args.max_soft_tokens,
        fetch=FetchPolicy(allow_private=args.allow_private_media, local_root=args.allowed_media_path),
        log_level=args.log_level,
    )


def main(argv: Sequence[str] | None = None, build: Builder = build_engine) -> int:
    """Serves until Ctrl-C or SIGTERM. Returns the exit code: 2 for a wrong flag, 1 when the engine did not start."""
    try:
        options = parse_options(argv)
        logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
        logging.getLogger("g4jax").setLevel(options.log_level.upper())
        if "--trust-remote-code" in (sys.argv[1:] if argv is None else argv):
            log.info("--trust-remote-code is ignored: g4jax runs no code of a checkpoint")
        folder = options.engine.model
        chat = ChatFormat.from_folder(folder, parse_reasoning=options.parse_reasoning, parse_tools=options.parse_tools)
        model = ModelInfo.from_folder(folder, options.names, chat.tokenizer.stop_ids)
        media = _media_reader(options)
        listener = _listen(options.host, options.port)
    except InvalidOption as error:
        return _complain(error.field, error.message)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    client = EngineClient.spawn(options.engine, build, options.log_level)
    try:
        app = create_app(client, chat, model, media, api_key=options.api_key, max_queued=options.max_queued_requests)
        return _serve(app, client, listener, options)
    except KeyboardInterrupt:
        return 0
    finally:
        client.close()


def _media_reader(options: ServerOptions) -> MediaReader:
    try:
        return MediaReader.from_folder(options.engine.model, options.fetch, options.max_soft_tokens)
    except ValueError as error:
        raise InvalidOption("model", str(error)) from error


def _serve(app, client: EngineClient, listener: socket.socket, options: ServerOptions) -> int:
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=SHUTDOWN_GRACE_S)
    server = EngineServer(config)
    server.before_shutdown = lambda: client.end_requests("the server is shutting down")
    address = f"http://{options.host}:{listener.getsockname()[1]}"
    report = StartReport(client, options.names[0], address)
    client.on_change = lambda: _watch(server, client, report)
    server.run(sockets=[listener])
    if client.failure is not None and client.info is None:
        if client.failure.by_user:
            return _complain(client.failure.option, client.failure.message)
        return _complain(None, f"the engine did not start: {client.failure.message}", code=1)
    return 0


def _watch(server: uvicorn.Server, client: EngineClient, report: StartReport) -> None:
    """The state of the engine has changed: an engine that does not start ends the server too."""
    report.update()
    if client.failure is not None and client.info is None:
        server.should_exit = True


class EngineServer(uvicorn.Server):
    """Ends the streams before it waits for them."""

    before_shutdown: Callable[[], None]

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.before_shutdown()
        await super().shutdown(sockets)


def _mesh(mesh: str | None, tp: int | None) -> str:
    if tp is None:
        return mesh or "tp=1"
    if tp < 1:
        raise InvalidOption("tp", f"must be at least 1, got {tp}")
    if mesh is not None and mesh.replace(" ", "") != f"tp={tp}":
        raise InvalidOption("tp", f"says {tp}, but --mesh says {mesh}; give one of them")
    return f"tp={tp}"


def _names(served: str | None, model: str | None, folder: Path) -> tuple[str, ...]:
    """The names the model answers to; the first is the one it calls itself."""
    return (served,) if served else tuple(dict.fromkeys([model or "nano", folder.name]))


def _listen(host: str, port: int) -> socket.socket:
    """Bound before anything is loaded, so that a busy port is known at once."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except socket.gaierror:
        raise InvalidOption("host", f"{host!r} is not an address of this machine") from None
    except OSError as error:
        raise InvalidOption("port", f"cannot listen on {host}:{port}: {error.strerror}; choose another one") from None
    return listener


def _complain(field: str | None, message: str, code: int = 2) -> int:
    flag = None if field is None else FLAGS.get(field, "--" + field.replace("_", "-"))
    print(f"g4jax: {flag}: {message}" if flag else f"g4jax: {message}", file=sys.stderr)
    return code
