"""Sound files opened: libsndfile reads WAV, FLAC, OGG and MP3, FFmpeg what comes in MP4, WebM and the like."""

import io
from collections.abc import Iterator

import numpy as np
from jaxtyping import Float32

from g4jax.media.inputs import MediaError

MAX_SECONDS = 3600
MAX_CHANNELS = 32
MIN_RATE, MAX_RATE = 4_000, 384_000
"""A file beyond these limits is refused by what its header says, before anything is decoded."""

_BLOCK = 1 << 16
_LIBSNDFILE = {"WAV", "WAVEX", "RF64", "W64", "FLAC", "OGG", "MP3", "AIFF", "AU", "CAF"}
# FFmpeg also reads playlists, which name other files and addresses: only these containers may be opened.
_CONTAINERS = "mov,mp4,m4a,3gp,matroska,webm,aac,mpegts,asf,avi,amr,ogg,mp3,wav,flac"
_ENDLESS = 0x7FFF_F000
"""A RIFF chunk of this size or more was written by a program that did not know the length."""

Blocks = Iterator[Float32[np.ndarray, " k"]]


def open_sound(data: bytes) -> tuple[int, Blocks]:
    """The sample rate, and the samples in blocks, the channels averaged. The file's content says what format it is.

    Raises:
        MediaError: at once or from the iterator: no sound, cut short, beyond a limit, or in an unknown format.
    """
    if not data:
        raise MediaError("is empty: a sound file must have content")
    return _with_libsndfile(data) or _with_ffmpeg(data)


def _with_libsndfile(data: bytes) -> tuple[int, Blocks] | None:
    import soundfile

    try:
        file = soundfile.SoundFile(io.BytesIO(data))
    except soundfile.LibsndfileError:
        return None
    if file.format not in _LIBSNDFILE:
        return None
    _check_limits(file.frames / max(file.samplerate, 1), file.samplerate, file.channels)
    if file.format in ("WAV", "WAVEX") and _ends_early(data):
        raise _cut_short()
    return file.samplerate, _libsndfile_blocks(file)


def _libsndfile_blocks(file) -> Blocks:
    import soundfile

    read = 0
    with file:
        try:
            while len(block := file.read(_BLOCK, dtype="float32", always_2d=True)):
                read += len(block)
                yield block.mean(axis=1)
        except soundfile.LibsndfileError as error:
            raise _cut_short() from error
        # The header of an MP3 may only estimate its length.
        if read < file.frames and file.format != "MP3":
            raise _cut_short()


def _ends_early(riff: bytes) -> bool:
    """Whether a WAV file is shorter than its data chunk; libsndfile takes the file's end for the sound's."""
    start = 12
    while start + 8 <= len(riff):
        size = int.from_bytes(riff[start + 4 : start + 8], "little")
        if riff[start : start + 4] == b"data":
            return start + 8 + size > len(riff) and size < _ENDLESS
        start += 8 + size + size % 2
    return False


def _with_ffmpeg(data: bytes) -> tuple[int, Blocks]:
    import av
    from av.error import FFmpegError

    try:
        container = av.open(io.BytesIO(data), mode="r", options={"format_whitelist": _CONTAINERS})
    except (FFmpegError, ValueError) as error:
        raise MediaError(
            "is not a sound file that can be read, or it is cut short: send WAV, FLAC, MP3, OGG, M4A or WebM"
        ) from error
    if not container.streams.audio:
        raise MediaError("has no sound in it: send a file with an audio track")
    stream = container.streams.audio[0]
    _check_limits((container.duration or 0) / av.time_base, stream.codec_context.sample_rate, stream.channels)
    return stream.codec_context.sample_rate, _ffmpeg_blocks(container, stream)


def _ffmpeg_blocks(container, stream) -> Blocks:
    import av
    from av.error import FFmpegError

    to_float = av.AudioResampler(format="fltp")
    with container:
        try:
            for frame in container.decode(stream):
                yield from (part.to_ndarray().mean(axis=0) for part in to_float.resample(frame))
            yield from (part.to_ndarray().mean(axis=0) for part in to_float.resample(None))
        except (FFmpegError, ValueError) as error:
            raise _cut_short() from error


def _check_limits(seconds: float, rate: int, channels: int) -> None:
    if seconds > MAX_SECONDS:
        raise too_long()
    check_rate(rate)
    if not 1 <= channels <= MAX_CHANNELS:
        raise MediaError(f"has {channels} channels: must be at most {MAX_CHANNELS}")


def check_rate(rate: int) -> None:
    if not MIN_RATE <= rate <= MAX_RATE:
        raise MediaError(f"has a sample rate of {rate} Hz: must lie between {MIN_RATE} and {MAX_RATE}")


def too_long() -> MediaError:
    return MediaError(f"lasts longer than {MAX_SECONDS} seconds: send it in parts")


def _cut_short() -> MediaError:
    return MediaError("is a sound file that is damaged or cut short: send the whole file")
