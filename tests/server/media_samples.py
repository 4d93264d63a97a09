"""Pictures, sounds and a film as clients send them, and what of them has reached an engine."""

import base64
import contextlib
import http.server
import io
import threading
from collections.abc import Iterator
from fractions import Fraction

import numpy as np
import PIL.Image
import soundfile

from g4jax.engine.request import Request
from tests.server.conftest import TOKENIZER

RATE = 16_000


def picture(width: int = 96, height: int = 64, seed: int = 0, form: str = "PNG") -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    out = io.BytesIO()
    PIL.Image.fromarray(pixels).save(out, form)
    return out.getvalue()


def sound(seconds: float = 1.0, form: str = "WAV", *, silent_from_s: float | None = None, seed: int = 0) -> bytes:
    """Noise; silence for half a second from `silent_from_s` on."""
    samples = np.random.default_rng(seed).normal(0, 0.1, int(seconds * RATE)).astype(np.float32)
    if silent_from_s is not None:
        samples[int(silent_from_s * RATE) : int((silent_from_s + 0.5) * RATE)] = 0
    out = io.BytesIO()
    soundfile.write(out, samples, RATE, format=form)
    return out.getvalue()


def film(num_frames: int = 4, fps: int = 1, brightest: int = 255) -> bytes:
    """From black to a grey."""
    import av

    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=Fraction(fps))
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for shade in np.linspace(0, brightest, num_frames):
            frame = av.VideoFrame.from_ndarray(np.full((64, 96, 3), int(shade), np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return out.getvalue()


def data_url(content: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def text(words: str) -> dict:
    return {"type": "text", "text": words}


def image_part(content: bytes, **more) -> dict:
    return {"type": "image_url", "image_url": {"url": data_url(content), **more}}


def audio_part(content: bytes, form: str = "wav") -> dict:
    return {"type": "input_audio", "input_audio": {"data": base64.b64encode(content).decode(), "format": form}}


def video_part(content: bytes) -> dict:
    return {"type": "video_url", "video_url": {"url": data_url(content, "video/mp4")}}


def placeholders(request: Request) -> list[tuple[str, int, int]]:
    """(name, begin, end) of each run of placeholder tokens in the prompt; every run has its borders around it."""
    control = TOKENIZER.control
    names = {control.image: "image", control.video: "video", control.audio: "audio"}
    borders = {"image": (control.image_open, control.image_close), "audio": (control.audio_open, control.audio_close)}
    borders["video"] = borders["image"]
    ids, runs, at = request.prompt_ids, [], 0
    while at < len(ids):
        begin = at
        while at < len(ids) and ids[at] == ids[begin] and ids[begin] in names:
            at += 1
        if at > begin:
            assert (ids[begin - 1], ids[at]) == borders[names[ids[begin]]]
            runs.append((names[ids[begin]], begin, at))
        at += at == begin
    return runs


def placed(request: Request) -> list[tuple[str, int, int]]:
    """As `placeholders`, of what the engine was given to fill them."""
    return [(each.input.kind, each.start, each.end) for each in request.media]


@contextlib.contextmanager
def web(files: dict[str, bytes]) -> Iterator[str]:
    """The address of a web server with these files; any other path is 404, /slow never answers."""
    end = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/slow":
                end.wait(20)
            content = files.get(self.path)
            self.send_response(404 if content is None else 200)
            self.send_header("Content-Length", str(len(content or b"")))
            self.end_headers()
            self.wfile.write(content or b"")

        def log_message(self, format: str, *args) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    end.set()
    server.shutdown()
    server.server_close()
