"""Frames of a video at even distances, with the second in which each is shown."""

import io
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import PIL.Image

from g4jax.media.inputs import MediaError

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

FPS = 24.0
"""Where nothing says how many frames are shown in a second."""

MAX_FRAME_PIXELS = 2**24
MAX_SECONDS = 3600.0
MAX_DECODED_PIXELS = 2**36
"""Every frame up to the last wanted one is decoded; these are half an hour of 1280 x 720 at 30 frames a second."""

OPTIONS = {
    "format_whitelist": "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,flv,ogg,gif",
    "protocol_whitelist": "",
}
"""Containers that hold their video themselves: playlists, which name other files and hosts, are not among them."""


def sample_indices(total: int, num_frames: int) -> list[int]:
    """k * total // n for n = num_frames, as `default_sample_indices_fn` in transformers; of a video with fewer frames,
    which that refuses, all of them."""
    count = min(total, num_frames)
    return [k * total // count for k in range(count)]


def frames_of_list(
    frames: Sequence[Any] | np.ndarray, num_frames: int, fps: float | None
) -> Iterator[tuple[float, Any]]:
    """The chosen ones of frames that are at hand, each with its second; MediaError where there are none."""
    if not len(frames):
        raise MediaError("has no frames: a video must have at least one")
    if fps is not None and not fps > 0:
        raise MediaError(f"has {fps} frames a second: must be above 0")
    for index in sample_indices(len(frames), num_frames):
        yield index / (fps or FPS), frames[index]


def frames_of_file(data: bytes, num_frames: int) -> Iterator[tuple[float, PIL.Image.Image]]:
    """Decodes a file forward and yields `num_frames` of it at most, RGB and upright, each with its second.

    Raises:
        MediaError: no video in it, a format that is not read, too long or too large, or cut short.
    """
    import av
    from av.error import FFmpegError

    try:
        with av.open(io.BytesIO(data), "r", options=OPTIONS) as file:
            if not file.streams.video:
                raise MediaError("has no video in it: send a video file, such as mp4 or webm")
            yield from _chosen(file, file.streams.video[0], data, num_frames)
    except (FFmpegError, OSError) as error:
        raise MediaError(f"is not a video that can be read, or it is damaged: {error.strerror}") from None


def _chosen(
    file: "InputContainer", stream: "VideoStream", data: bytes, num_frames: int
) -> Iterator[tuple[float, PIL.Image.Image]]:
    total, fps = stream.frames or _count(data), float(stream.average_rate or 0) or FPS
    _check(total, fps, stream.codec_context.width * stream.codec_context.height)
    wanted = sample_indices(total, num_frames)
    stream.thread_type = "AUTO"
    stream.codec_context.options = {"max_pixels": str(MAX_FRAME_PIXELS)}
    found = 0
    for index, frame in enumerate(file.decode(stream)):
        if index == wanted[found]:
            yield index / fps, _upright(frame)
            found += 1
        if found == len(wanted):
            return
    # Containers count a few frames that are never shown; more than those means that the rest is missing.
    if found < len(wanted) - max(1, len(wanted) // 8):
        raise MediaError(f"is cut short: it says it has {total} frames and the end of them is missing")


def _count(data: bytes) -> int:
    """How many frames a file has that does not say so, without decoding them."""
    import av

    with av.open(io.BytesIO(data), "r", options=OPTIONS) as file:
        return sum(packet.size > 0 for packet in file.demux(file.streams.video[0]))


def _check(total: int, fps: float, pixels: int) -> None:
    if total < 1:
        raise MediaError("has no frames: a video must have at least one")
    if pixels > MAX_FRAME_PIXELS:
        raise MediaError(f"has frames of {pixels} pixels: at most {MAX_FRAME_PIXELS} are decoded; scale it down")
    if total / fps > MAX_SECONDS:
        raise MediaError(f"is {total / fps:.0f} seconds long: at most {MAX_SECONDS:.0f}; cut it")
    if total * pixels > MAX_DECODED_PIXELS:
        raise MediaError(
            f"has {total} frames of {pixels} pixels: at most {MAX_DECODED_PIXELS} pixels are decoded; "
            "scale it down, cut it, or send fewer frames a second"
        )


def _upright(frame: "VideoFrame") -> PIL.Image.Image:
    """Turned as a player turns it: phones film sideways and say so."""
    if frame.width * frame.height > MAX_FRAME_PIXELS:
        raise MediaError(f"has a frame of {frame.width} x {frame.height}: at most {MAX_FRAME_PIXELS} pixels")
    image = PIL.Image.fromarray(frame.to_ndarray(format="rgb24"))
    return image.rotate(frame.rotation, expand=True) if frame.rotation else image
