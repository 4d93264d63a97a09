import io
import struct
import zlib

import numpy as np
import PIL.Image
import pytest

from g4jax.media import image as image_module
from g4jax.media.image import (
    BUDGETS,
    MAX_SIDE,
    decode_image,
    image_from_array,
    resized_patches,
    target_size,
    to_rgb,
)
from g4jax.media.inputs import MediaError

SIZES = {
    (224, 224): [(384, 384), (528, 528), (768, 768), (1104, 1104), (1584, 1584)],
    (480, 640): [(336, 432), (480, 624), (672, 912), (960, 1296), (1344, 1824)],
    (1080, 1920): [(288, 528), (384, 720), (576, 1056), (816, 1488), (1200, 2112)],
    (32, 2000): [(48, 3168), (48, 4464), (96, 6336), (96, 8976), (192, 12672)],
}


def noise(height: int, width: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)


def pixels_of(cut: np.ndarray, height: int, width: int) -> np.ndarray:
    """The image that was cut into patches."""
    parts = cut.reshape(height // 48, width // 48, 3, 3, 16, 16, 3)
    return parts.transpose(0, 2, 4, 1, 3, 5, 6).reshape(height, width, 3)


def encoded(image: PIL.Image.Image | np.ndarray, form: str = "PNG", **options) -> bytes:
    image = PIL.Image.fromarray(image) if isinstance(image, np.ndarray) else image
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def png_that_claims(width: int, height: int) -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def gif_that_grows(width: int, height: int) -> bytes:
    """A screen of 1 x 1 whose only picture is larger."""
    small = encoded(PIL.Image.new("P", (1, 1)), "GIF")
    at = small.index(b",", 13)
    return small[: at + 5] + struct.pack("<HH", width, height) + small[at + 9 :]


@pytest.mark.parametrize("shape", SIZES)
def test_target_sizes_are_those_of_the_specification(shape):
    assert [target_size(*shape, budget) for budget in BUDGETS] == SIZES[shape]


@pytest.mark.parametrize("shape", [(1, 1), (1, 5000), (5000, 1), (7, 9000), (3000, 4000), (48, 48)])
@pytest.mark.parametrize("budget", BUDGETS)
def test_no_shape_leaves_the_budget(shape, budget):
    height, width = target_size(*shape, budget)
    assert height % 48 == width % 48 == 0 < height * width <= budget * 48 * 48


def test_patches_stand_token_by_token():
    rgb = noise(96, 144)
    cut = resized_patches(PIL.Image.fromarray(rgb), 96, 144)  # it has that size
    assert cut.shape == (6 * 9, 768)
    for token, patch in [(0, 0), (1, 5), (2, 8), (4, 3), (5, 7)]:
        x, y = 3 * (token % 3) + patch % 3, 3 * (token // 3) + patch // 3
        expected = rgb[16 * y : 16 * y + 16, 16 * x : 16 * x + 16].ravel()
        np.testing.assert_array_equal(cut[9 * token + patch], expected)


@pytest.mark.parametrize("threads", [1, 3, 8])
@pytest.mark.parametrize("shape", [(480, 640), (600, 1000), (1500, 2000), (2000, 300), (997, 1361), (7, 200_000 // 7)])
def test_strips_give_what_the_whole_gives(shape, threads, monkeypatch):
    monkeypatch.setattr(image_module, "threads", lambda: threads)
    image = PIL.Image.fromarray(noise(*shape))
    height, width = target_size(*shape, 280)
    across = image.resize((width, image.height), PIL.Image.Resampling.BICUBIC)
    whole = across.resize((width, height), PIL.Image.Resampling.BICUBIC)
    cut = resized_patches(image, height, width)
    np.testing.assert_array_equal(pixels_of(cut, height, width), np.asarray(whole))


@pytest.mark.parametrize("shape", [(480, 640), (600, 1000), (1080, 1920), (100, 90)])
def test_pixels_are_those_of_torch(shape):
    """torchvision resizes with this function."""
    torch = pytest.importorskip("torch")
    pixels = noise(*shape)
    size = target_size(*shape, 280)
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    expected = torch.nn.functional.interpolate(tensor, size, mode="bicubic", antialias=True)[0].permute(1, 2, 0)
    difference = np.abs(
        pixels_of(resized_patches(PIL.Image.fromarray(pixels), *size), *size) - expected.numpy().astype(int)
    )
    # Of noise, the hardest picture there is: torch's weights are a little coarser than Pillow's.
    assert difference.max() <= 2 and (difference > 0).mean() < 0.01


@pytest.mark.parametrize("shape", [(480, 640), (1080, 1920), (224, 224), (32, 2000), (672, 912)])
@pytest.mark.parametrize("budget", [70, 280])
def test_patches_are_those_of_the_reference(shape, budget):
    pytest.importorskip("torch")
    from transformers.models.gemma4.image_processing_pil_gemma4 import Gemma4ImageProcessorPil

    image = PIL.Image.fromarray(noise(*shape))
    reference = Gemma4ImageProcessorPil(max_soft_tokens=budget)(images=[image], return_tensors="np")
    data = resized_patches(image, *target_size(*shape, budget))
    assert len(data) == 9 * reference["num_soft_tokens_per_image"][0]
    columns = target_size(*shape, budget)[1] // 48
    token, patch = np.divmod(np.arange(len(data)), 9)
    x, y = 3 * (token % columns) + patch % 3, 3 * (token // columns) + patch // 3
    order = y * columns * 3 + x
    np.testing.assert_array_equal(reference["image_position_ids"][0][order], np.stack([x, y], 1))
    expected = reference["pixel_values"][0][order]
    np.testing.assert_allclose(data.astype(np.float32) / 255, expected, atol=1e-6)


@pytest.mark.parametrize("form", ["PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG"])
def test_usual_formats_are_read(form):
    options = {"lossless": True} if form == "WEBP" else {}
    picture = np.zeros((40, 60, 3), np.uint8)
    picture[:20] = (255, 0, 0)
    image = decode_image(encoded(picture, form, **options))
    assert image.mode == "RGB" and image.size == (60, 40)
    np.testing.assert_allclose(np.asarray(image)[5, 5], (255, 0, 0), atol=3)


def test_exif_turns_a_picture():
    picture = np.zeros((40, 60, 3), np.uint8)
    picture[:20, :20] = 255
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter clockwise
    image = decode_image(encoded(picture, "PNG", exif=exif))
    assert image.size == (40, 60)
    assert image.getpixel((35, 5)) == (255, 255, 255) and image.getpixel((5, 5)) == (0, 0, 0)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_is_white(mode):
    image = PIL.Image.new("RGBA", (8, 8), (10, 20, 30, 0)).convert(mode)
    if mode == "P":
        image = PIL.Image.new("P", (8, 8), 0)
        image.info["transparency"] = 0
    assert to_rgb(image).getpixel((3, 3)) == (255, 255, 255)


@pytest.mark.parametrize("mode", ["1", "L", "CMYK", "YCbCr", "I;16", "F"])
def test_any_mode_becomes_rgb(mode):
    assert to_rgb(PIL.Image.new(mode, (4, 4))).mode == "RGB"


def test_the_first_frame_of_an_animation_counts():
    frames = [PIL.Image.new("RGB", (20, 10), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert decode_image(data).getpixel((5, 5)) == (255, 0, 0)


@pytest.mark.parametrize("size", [(50_000, 50_000), (9000, 9000), (MAX_SIDE + 1, 1)])
def test_a_header_is_refused_before_anything_is_allocated(size):
    with pytest.raises(MediaError, match="scale it down"):
        decode_image(png_that_claims(*size))


@pytest.mark.parametrize("size", [(65_000, 65_000), (9000, 9000)])
def test_a_gif_cannot_grow_beyond_the_limit(size):
    with pytest.raises(MediaError, match="scale it down"):
        decode_image(gif_that_grows(*size))


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF", "TIFF"])
def test_a_file_that_is_cut_short_is_refused(form):
    data = encoded(noise(200, 200), form)
    with pytest.raises(MediaError, match="damaged"):
        decode_image(data[: len(data) // 2])


@pytest.mark.parametrize("data", [b"", b"<html>no</html>", b"%PDF-1.4", b"RIFF\x00\x00\x00\x00WAVEfmt ", b"GIF89a"])
def test_what_is_no_image_is_refused(data):
    with pytest.raises(MediaError, match="image"):
        decode_image(data)


def test_a_format_outside_of_the_list_is_refused():
    with pytest.raises(MediaError, match="not an image that can be read: send one of JPEG"):
        decode_image(encoded(PIL.Image.new("RGB", (8, 8)), "EPS"))


def test_a_name_that_lies_does_not_matter():
    """Only the content says what a file is."""
    assert decode_image(encoded(noise(8, 8), "BMP")).size == (8, 8)


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 1), (5, 7, 3), (5, 7, 4)])
def test_arrays_of_these_shapes_are_images(shape):
    image = image_from_array(np.full(shape, 255, np.uint8))
    assert image.size == (7, 5) and image.getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((5, 7, 3), np.float32),
        np.zeros((5, 7, 2), np.uint8),
        np.zeros(5, np.uint8),
        np.zeros((0, 7, 3), np.uint8),
    ],
    ids=lambda array: f"{array.dtype}{array.shape}",
)
def test_other_arrays_are_refused(array):
    with pytest.raises(MediaError, match="must be uint8"):
        image_from_array(array)
