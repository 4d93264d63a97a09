import io
import json
import struct
import subprocess
import sys

import numpy as np
import PIL.Image
import pytest

from g4jax.config import ConfigError, Gemma4Config
from g4jax.media.inputs import MediaError, content_digest
from g4jax.media.processor import MediaProcessor
from g4jax.testing.configs import Variant, tiny
from g4jax.testing.encoder_configs import tiny_with_encoders

PICTURE = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
SOUND = (0.1 * np.sin(np.arange(16_000) / 6)).astype(np.float32)


def processor(variant: Variant = "e2b", **settings) -> MediaProcessor:
    return MediaProcessor(Gemma4Config.from_dict(tiny_with_encoders(variant)), **settings)


def png(pixels: np.ndarray, **options) -> bytes:
    file = io.BytesIO()
    PIL.Image.fromarray(pixels).save(file, "PNG", **options)
    return file.getvalue()


def wav(samples: int, claimed: int | None = None) -> bytes:
    size = 2 * (samples if claimed is None else claimed)
    form = struct.pack("<IHHIIHH", 16, 1, 1, 16_000, 32_000, 2, 16)
    content = b"WAVEfmt " + form + b"data" + struct.pack("<I", size) + bytes(2 * samples)
    return b"RIFF" + struct.pack("<I", 36 + size) + content


@pytest.mark.parametrize("variant", ["e2b", "12b"])
@pytest.mark.parametrize("budget", [70, 140, 280])
def test_an_image_fills_its_budget(variant, budget):
    medium = processor(variant, max_soft_tokens=budget).image(png(PICTURE))
    (image,) = medium.inputs
    rows, columns = image.grid
    assert (medium.kind, image.kind) == ("image", "image")
    assert image.num_tokens == rows * columns <= budget < (rows + 1) * (columns + 1)
    assert image.data.dtype == np.uint8 and image.data.shape == (9 * image.num_tokens, 768)
    assert len(image.digest) == 16


def test_every_kind_of_source_gives_the_same_patches():
    images = [processor().image(source) for source in (png(PICTURE), PICTURE, PIL.Image.fromarray(PICTURE))]
    first, *others = (medium.inputs[0].data for medium in images)
    for other in others:
        np.testing.assert_array_equal(first, other)
    assert images[1].inputs[0].digest == images[2].inputs[0].digest


@pytest.mark.parametrize("form", [png, lambda pixels: pixels], ids=["file", "array"])
def test_equal_digests_mean_equal_inputs(form):
    digest = lambda pixels, budget=None: processor().image(form(pixels), budget).inputs[0].digest  # noqa: E731
    other = PICTURE.copy()
    other[::2] ^= 255
    assert digest(PICTURE) == digest(PICTURE.copy()) == digest(PICTURE, 280)
    assert len({digest(PICTURE), digest(other), digest(PICTURE, 70), digest(PICTURE.swapaxes(0, 1))}) == 4


def test_a_file_that_was_named_already_is_the_same_input():
    file = png(PICTURE)
    (named,), (unnamed,) = (processor().image(file, 70, content).inputs for content in (content_digest(file), None))
    assert named.digest == unnamed.digest != processor().image(file, 70, content_digest(b"other")).inputs[0].digest


def test_one_colour_in_two_shapes_is_two_inputs():
    wide, high = (processor().image(np.zeros(shape, np.uint8)) for shape in ((60, 90), (90, 60)))
    assert wide.inputs[0].data.shape == high.inputs[0].data.shape and wide.inputs[0].grid != high.inputs[0].grid
    assert wide.inputs[0].digest != high.inputs[0].digest


def test_the_budget_of_a_call_comes_first():
    media = processor(max_soft_tokens=280)
    assert media.image(PICTURE, 70).inputs[0].num_tokens <= 70 < media.image(PICTURE).inputs[0].num_tokens
    for wrong in (0, 71, -1, 2240):
        with pytest.raises(MediaError, match="must be one of 70, 140, 280, 560, 1120"):
            media.image(PICTURE, wrong)


def test_an_image_beyond_the_position_table_is_refused():
    with pytest.raises(MediaError, match=r"too elongated \(2000 x 32\).* at most 21 tokens in a row"):
        processor().image(np.zeros((32, 2000, 3), np.uint8))


def test_frames_at_hand_are_a_video():
    frames = np.random.default_rng(0).integers(0, 256, (12, 60, 90, 3), dtype=np.uint8)
    medium = processor(num_frames=4).video(frames, fps=2.0)
    assert medium.kind == "video" and medium.timestamps == (0.0, 1.5, 3.0, 4.5)
    assert all(frame.kind == "video" and frame.num_tokens <= 70 for frame in medium.inputs)
    np.testing.assert_array_equal(medium.inputs[1].data, processor().image(frames[3], 70).inputs[0].data)
    again = processor(num_frames=4).video([PIL.Image.fromarray(frame) for frame in frames], fps=2.0)
    assert [frame.digest for frame in again.inputs] == [frame.digest for frame in medium.inputs]
    assert len({frame.digest for frame in medium.inputs}) == 4
    assert processor().video(list(frames)).timestamps == tuple(k / 24 for k in range(12))


def test_a_video_file():
    av = pytest.importorskip("av")
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for _ in range(20):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((64, 96, 3), np.uint8), format="rgb24")))
        container.mux(stream.encode(None))
    medium = processor(num_frames=5).video(file.getvalue(), 140)
    assert medium.timestamps == (0.0, 0.4, 0.8, 1.2, 1.6)
    assert {frame.grid for frame in medium.inputs} == {(9, 14)}


def test_a_sound_for_a_tower():
    medium = processor().audio(SOUND)
    (sound,) = medium.inputs
    assert (medium.kind, sound.kind, sound.grid, sound.num_tokens) == ("audio", "audio", (0, 0), 25)
    assert sound.data.dtype == np.float32 and sound.data.shape == (99, 128)


def test_a_sound_without_a_tower():
    (sound,) = processor("12b").audio(SOUND).inputs
    assert sound.data.shape == (25, 640) and sound.num_tokens == 25
    np.testing.assert_allclose(sound.data.ravel(), SOUND)


def test_sounds_of_every_source():
    pytest.importorskip("soxr")
    pytest.importorskip("soundfile")
    media = processor()
    assert media.audio(wav(16_000)).inputs[0].num_tokens == 25
    assert media.audio((SOUND, 8_000)).inputs[0].num_tokens == 50
    digests = [media.audio(source).inputs[0].digest for source in (SOUND, (SOUND, 16_000), SOUND * 0.5)]
    assert digests[0] == digests[1] != digests[2]


def test_sound_beyond_thirty_seconds_is_not_heard():
    long = np.tile(SOUND, 31)
    assert processor().audio(long).inputs[0].num_tokens == 750
    assert processor().audio(long).inputs[0].digest == processor().audio(long[: 30 * 16_000]).inputs[0].digest


@pytest.mark.parametrize("samples", [1000, 160_000])
def test_a_wav_that_claims_ten_hours_is_refused(samples):
    pytest.importorskip("soundfile")
    with pytest.raises(MediaError):
        processor().audio(wav(samples, claimed=10 * 3600 * 16_000))


@pytest.mark.parametrize(
    "sound", [np.zeros(0, np.float32), np.zeros(100, np.float32), np.full(9000, np.nan, np.float32)]
)
def test_sounds_that_cannot_be_heard_are_refused(sound):
    with pytest.raises(MediaError):
        processor().audio(sound)


def test_what_a_model_has_no_encoder_for_is_refused():
    deaf = processor("31b")
    assert (deaf.has("image"), deaf.has("video"), deaf.has("audio")) == (True, True, False)
    with pytest.raises(MediaError, match="no audio input"):
        deaf.audio(SOUND)
    blind = MediaProcessor(Gemma4Config.from_dict(tiny("31b")))
    assert not any(blind.has(kind) for kind in ("image", "video", "audio"))
    with pytest.raises(MediaError, match="no image input"):
        blind.image(PICTURE)
    with pytest.raises(MediaError, match="no video input"):
        blind.video([PICTURE])


def test_load_opens_paths(tmp_path):
    (tmp_path / "a.png").write_bytes(png(PICTURE))
    media = processor()
    loaded = media.load("image", tmp_path / "a.png", 70)
    assert loaded.inputs[0].digest == media.image(png(PICTURE), 70).inputs[0].digest
    assert media.load("audio", (SOUND, 16_000)).inputs[0].num_tokens == 25
    assert len(media.load("video", [PICTURE] * 3, 70).inputs) == 3


FILES = {
    "nothing": ({}, (280, 70, 32)),
    "both": (
        {
            "processor_config.json": {
                "image_processor": {"max_soft_tokens": 560},
                "video_processor": {"max_soft_tokens": 140, "num_frames": 16},
            }
        },
        (560, 140, 16),
    ),
    "one by one": (
        {
            "preprocessor_config.json": {"max_soft_tokens": 70},
            "video_preprocessor_config.json": {"num_frames": 8},
        },
        (70, 70, 8),
    ),
}


@pytest.mark.parametrize("case", FILES)
def test_settings_of_a_checkpoint(tmp_path, case):
    files, expected = FILES[case]
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content))
    media = MediaProcessor.from_folder(tmp_path, processor().config)
    assert (media.max_soft_tokens, media.frame_soft_tokens, media.num_frames) == expected


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("{", "not JSON"),
        ('{"image_processor": {"max_soft_tokens": 100}}', "max_soft_tokens is 100: must be one of"),
        ('{"video_processor": {"num_frames": -1}}', "num_frames is -1: must be 1 to 1024"),
    ],
)
def test_wrong_settings_are_named(tmp_path, content, match):
    (tmp_path / "processor_config.json").write_text(content)
    with pytest.raises(ConfigError, match=match):
        MediaProcessor.from_folder(tmp_path, processor().config)


def test_media_import_without_jax_and_without_decoders():
    absent = "jax jaxlib flax torch av soundfile soxr".split()
    code = f"import sys; sys.modules.update(dict.fromkeys({absent}))\nimport g4jax.media.processor"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
