"""Sound files and arrays: what comes out of good ones, and how bad ones are refused."""

import io
import struct
import wave

import numpy as np
import pytest

from g4jax.media.inputs import MediaError
from g4jax.media.sound import decode_sound, resample
from g4jax.media.sound_files import MAX_SECONDS

soundfile = pytest.importorskip("soundfile")
soxr = pytest.importorskip("soxr")
av = pytest.importorskip("av")


def tones(rate: int, seconds: float = 1.0, channels: int = 2) -> np.ndarray:
    """Another frequency in each channel, `[n, channels]`."""
    time = np.arange(int(rate * seconds)) / rate
    return 0.3 * np.stack([np.sin(2 * np.pi * 300 * (c + 1) * time) for c in range(channels)], 1).astype(np.float32)


def encoded(samples: np.ndarray, rate: int, name: str, subtype: str | None = None) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=name, subtype=subtype)
    return file.getvalue()


def in_container(samples: np.ndarray, rate: int, name: str, codec: str) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format=name) as container:
        stream = container.add_stream(codec, rate=rate, layout="stereo")
        for start in range(0, len(samples), 960):
            piece = np.ascontiguousarray(samples[start : start + 960].T)
            frame = av.AudioFrame.from_ndarray(piece, format="fltp", layout="stereo")
            frame.sample_rate, frame.pts = rate, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()


def wav(claimed: int, data: bytes = bytes(32_000), rate: int = 16_000, channels: int = 1) -> bytes:
    """A 16-bit WAV file whose header claims `claimed` bytes of samples."""
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(channels)
        writer.setsampwidth(2)
        writer.setframerate(rate)
        writer.writeframes(data)
    header = bytearray(file.getvalue())
    header[40:44] = struct.pack("<I", claimed)
    return bytes(header)


@pytest.mark.parametrize("name", ["WAV", "FLAC", "AIFF"])
def test_lossless_files_at_16_khz_come_out_as_they_are(name):
    samples = tones(16_000)
    decoded = decode_sound(encoded(samples, 16_000, name, "PCM_24"))
    assert decoded.dtype == np.float32 and decoded.shape == (16_000,)
    np.testing.assert_allclose(decoded, samples.mean(axis=1), atol=1e-6)


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 48_000])
def test_other_rates_are_resampled(rate):
    # Longer than one block, so that the seams between blocks are heard.
    samples = tones(rate, seconds=3.5)
    expected = soxr.resample(samples.mean(axis=1), rate, 16_000)
    decoded = decode_sound(encoded(samples, rate, "WAV", "FLOAT"))
    np.testing.assert_allclose(decoded, expected, atol=1e-5)
    np.testing.assert_allclose(resample(samples, rate), expected, atol=1e-5)


@pytest.mark.parametrize("name, subtype", [("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", None)])
def test_lossy_files(name, subtype):
    samples = tones(48_000)
    heard = decode_sound(encoded(samples, 48_000, name, subtype))
    same_sound(heard, resample(samples, 48_000))


@pytest.mark.parametrize("name, codec", [("mp4", "aac"), ("webm", "libopus"), ("matroska", "aac"), ("adts", "aac")])
def test_containers(name, codec):
    samples = tones(48_000)
    same_sound(decode_sound(in_container(samples, 48_000, name, codec)), resample(samples, 48_000))


def same_sound(heard: np.ndarray, played: np.ndarray) -> None:
    """Equal but for the codec's delay and noise: the same length within 0.2 s, the same loudness of each tone."""
    assert abs(len(heard) - len(played)) < 3_200
    middle = slice(4_000, 12_000)
    spectra = [np.abs(np.fft.rfft(sound[middle])) / 4_000 for sound in (heard, played)]
    np.testing.assert_allclose(*(spectrum[[150, 300]] for spectrum in spectra), atol=0.02)
    assert spectra[0][150] > 0.1 and np.delete(spectra[0], [*range(145, 156), *range(295, 306)]).max() < 0.02


def test_arrays():
    stereo = tones(16_000)
    mono = stereo.mean(axis=1)
    np.testing.assert_array_equal(resample(mono, 16_000), mono)
    np.testing.assert_allclose(resample(stereo, 16_000), mono, atol=1e-6)
    np.testing.assert_allclose(resample(stereo.T, 16_000), mono, atol=1e-6)
    np.testing.assert_allclose(resample(stereo.astype(np.float64), 16_000), mono, atol=1e-6)
    np.testing.assert_allclose(resample((stereo * 32768).astype(np.int16), 16_000), mono, atol=1e-4)


@pytest.mark.parametrize(
    "samples, rate, message",
    [
        (np.zeros(0, np.float32), 16_000, "shape"),
        (np.zeros((2, 3, 4), np.float32), 16_000, "shape"),
        (np.zeros(100, np.int64), 16_000, "float or int16"),
        (np.array([0, np.nan], np.float32), 16_000, "not finite"),
        (np.array([0, np.inf], np.float32), 16_000, "not finite"),
        (np.zeros(100, np.float32), 0, "sample rate of 0 Hz"),
        (np.zeros(100, np.float32), 10_000_000, "sample rate"),
    ],
)
def test_arrays_that_are_no_sound(samples, rate, message):
    with pytest.raises(MediaError, match=message):
        resample(samples, rate)


@pytest.mark.parametrize("data", [b"", b"hello", b"\x89PNG\r\n\x1a\n" + bytes(200), b"RIFF\x00\x00\x00\x00WAVE"])
def test_what_is_no_sound_file(data):
    with pytest.raises(MediaError, match="is empty|not a sound file that can be read"):
        decode_sound(data)


def test_a_playlist_is_not_followed(tmp_path):
    (tmp_path / "secret.wav").write_bytes(encoded(tones(16_000), 16_000, "WAV"))
    address = f"file://{tmp_path}/secret.wav"
    for playlist in (
        f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{address}\n",
        f"ffconcat version 1.0\nfile {address}\n",
    ):
        with pytest.raises(MediaError, match="not a sound file"):
            decode_sound(playlist.encode())


def test_a_film_without_sound():
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=5)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8))))
        container.mux(stream.encode(None))
    with pytest.raises(MediaError, match="has no sound in it"):
        decode_sound(file.getvalue())


@pytest.mark.parametrize("name, subtype", [("WAV", None), ("FLAC", None), ("OGG", "OPUS"), ("CAF", None)])
@pytest.mark.parametrize("kept", [0.02, 0.5])
def test_cut_short(name, subtype, kept):
    whole = encoded(np.random.default_rng(0).normal(0, 0.1, (32_000, 2)), 16_000, name, subtype)
    with pytest.raises(MediaError, match="cut short"):
        decode_sound(whole[: int(kept * len(whole))])


def test_mp4_cut_short():
    whole = in_container(tones(48_000), 48_000, "mp4", "aac")
    for part in (whole[: len(whole) // 2], whole[len(whole) // 2 :]):
        with pytest.raises(MediaError, match="cut short"):
            decode_sound(part)


def test_a_header_that_claims_hours():
    with pytest.raises(MediaError, match="cut short"):
        decode_sound(wav(claimed=10 * 3600 * 32_000))
    # What programs write that do not know the length when they begin.
    for endless in (0xFFFF_FFFF, 0x7FFF_FFFF):
        assert decode_sound(wav(endless)).shape == (16_000,)
    with pytest.raises(MediaError, match="empty"):
        decode_sound(wav(0, b""))


def test_more_than_the_longest(monkeypatch):
    # Flac makes nothing of silence: hours of it fit into a small upload.
    too_much = encoded(np.zeros(8_000 * (MAX_SECONDS + 10), np.int16), 8_000, "FLAC")
    assert len(too_much) < 500_000
    with pytest.raises(MediaError, match=f"longer than {MAX_SECONDS} seconds"):
        decode_sound(too_much)
    # And where the header says nothing of it, decoding stops.
    monkeypatch.setattr("g4jax.media.sound.MAX_SECONDS", 2)
    with pytest.raises(MediaError, match="lasts longer"):
        decode_sound(encoded(tones(48_000, seconds=2.5), 48_000, "MP3"))


def test_rates_and_channels_of_a_header():
    with pytest.raises(MediaError, match="sample rate of 100 Hz"):
        decode_sound(wav(32_000, rate=100))
    with pytest.raises(MediaError, match="64 channels"):
        decode_sound(wav(32_000, channels=64))


def test_a_file_with_infinite_samples():
    samples = tones(16_000, channels=1)
    samples[100] = np.inf
    with pytest.raises(MediaError, match="not finite"):
        decode_sound(encoded(samples, 16_000, "WAV", "FLOAT"))
