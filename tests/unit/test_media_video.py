import io
import struct
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from g4jax.media import video
from g4jax.media.inputs import MediaError
from g4jax.media.video import frames_of_file, frames_of_list, sample_indices

av = pytest.importorskip("av")


def film(frames: int, *, form: str = "mp4", codec: str = "libx264", fps: int = 10, size=(96, 64)) -> bytes:
    """Frame i is of grey 5 i, red in the quarter at the top left."""
    file = io.BytesIO()
    with av.open(file, "w", format=form) as container:
        stream = container.add_stream(codec, rate=fps)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        for index in range(frames):
            picture = np.full((size[1], size[0], 3), 5 * index, np.uint8)
            picture[: size[1] // 2, : size[0] // 2] = (255, 0, 0)
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return file.getvalue()


def index_first(mp4: bytes, path: Path) -> bytes:
    """As `film`, but what is cut off at the end is pictures and not the index."""
    options = {"movflags": "faststart"}
    with av.open(io.BytesIO(mp4)) as old, av.open(str(path), "w", format="mp4", options=options) as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(old.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                new.mux(packet)
    return path.read_bytes()


def turned(mp4: bytes) -> bytes:
    """Says that a player must turn it by a quarter clockwise."""
    upright = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    at = mp4.index(upright, mp4.index(b"tkhd"))
    return mp4[:at] + struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 64 << 16, 0, 1 << 30) + mp4[at + 36 :]


@pytest.mark.parametrize("total", [32, 33, 100, 1023])
def test_indices_are_those_of_the_reference(total):
    pytest.importorskip("torch")
    from transformers.video_utils import VideoMetadata, default_sample_indices_fn

    expected = default_sample_indices_fn(VideoMetadata(total_num_frames=total), num_frames=32)
    assert sample_indices(total, 32) == expected.tolist()


def test_a_short_video_gives_all_its_frames():
    assert sample_indices(5, 32) == [0, 1, 2, 3, 4] and sample_indices(0, 32) == []


@pytest.mark.parametrize(
    ("form", "codec"), [("mp4", "libx264"), ("webm", "libvpx"), ("avi", "mpeg4"), ("mpegts", "libx264")]
)
def test_frames_at_even_distances(form, codec):
    frames = list(frames_of_file(film(40, form=form, codec=codec), 8))
    assert [seconds for seconds, _ in frames] == [0.5 * k for k in range(8)]
    for k, (_, frame) in enumerate(frames):
        assert frame.mode == "RGB" and frame.size == (96, 64)
        np.testing.assert_allclose(frame.getpixel((90, 60)), 25 * k, atol=4)
        np.testing.assert_allclose(frame.getpixel((5, 5)), (255, 0, 0), atol=8)


def test_a_video_filmed_sideways_is_turned():
    (_, frame), *_ = frames_of_file(turned(film(4)), 4)
    assert frame.size == (64, 96)
    assert frame.getpixel((60, 5))[0] > 200 and frame.getpixel((5, 5))[0] < 50


def test_frames_that_are_at_hand():
    frames = np.arange(10, dtype=np.uint8).repeat(4 * 4 * 3).reshape(10, 4, 4, 3)
    chosen = list(frames_of_list(frames, 4, fps=5.0))
    assert [(seconds, int(frame[0, 0, 0])) for seconds, frame in chosen] == [(0, 0), (0.4, 2), (1.0, 5), (1.4, 7)]
    assert [seconds for seconds, _ in frames_of_list([PIL.Image.new("RGB", (4, 4))] * 3, 32, None)] == [
        0,
        1 / 24,
        2 / 24,
    ]


@pytest.mark.parametrize(
    ("frames", "fps", "match"), [([], None, "no frames"), ([0], 0.0, "above 0"), ([0], float("nan"), "above 0")]
)
def test_frames_that_cannot_be(frames, fps, match):
    with pytest.raises(MediaError, match=match):
        list(frames_of_list(frames, 4, fps))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello " * 100,
        film(4)[:700],
        b"#EXTM3U\n#EXTINF:9,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n",
        b"ffconcat version 1.0\nfile /etc/passwd\n",
    ],
    ids=["empty", "text", "no index", "playlist", "list of files"],
)
def test_what_is_no_video_is_refused(data):
    with pytest.raises(MediaError, match="is not a video that can be read"):
        list(frames_of_file(data, 4))


def test_a_sound_is_no_video():
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format="fltp", layout="mono")
        sound.sample_rate = 16000
        for packet in [*stream.encode(sound), *stream.encode()]:
            container.mux(packet)
    with pytest.raises(MediaError, match="no video in it"):
        list(frames_of_file(file.getvalue(), 4))


def test_a_video_whose_end_is_missing_is_refused(tmp_path):
    data = index_first(film(40), tmp_path / "film.mp4")
    assert len(list(frames_of_file(data, 8))) == 8
    with pytest.raises(MediaError, match="cut short|damaged"):
        list(frames_of_file(data[: len(data) // 2], 8))


@pytest.mark.parametrize(
    ("limit", "value", "match"),
    [
        ("MAX_SECONDS", 3.9, "4 seconds long"),
        ("MAX_FRAME_PIXELS", 96 * 64 - 1, "scale it down"),
        ("MAX_DECODED_PIXELS", 40 * 96 * 64 - 1, "fewer frames"),
    ],
)
@pytest.mark.parametrize(("form", "codec"), [("mp4", "libx264"), ("webm", "libvpx")])
def test_limits_hold_before_a_frame_is_decoded(monkeypatch, limit, value, match, form, codec):
    monkeypatch.setattr(video, limit, value)
    monkeypatch.setattr(video, "_upright", lambda frame: pytest.fail("a frame was decoded"))
    with pytest.raises(MediaError, match=match):
        list(frames_of_file(film(40, form=form, codec=codec), 8))


def test_a_frame_that_outgrows_its_header_is_refused(monkeypatch):
    monkeypatch.setattr(video, "_check", lambda *_: None)
    monkeypatch.setattr(video, "MAX_FRAME_PIXELS", 96 * 64 - 1)
    with pytest.raises(MediaError):
        list(frames_of_file(film(4), 4))
