"""Pictures: from a file of a stranger to the patches that the encoder takes."""

import io
import math

import numpy as np
import PIL.Image
import PIL.ImageOps
from jaxtyping import UInt8

from g4jax.media.inputs import MediaError
from g4jax.media.strips import in_strips, threads
from g4jax.tower_config import PATCH, POOLING

CELL = PATCH * POOLING
"""Pixels on a side of a soft token."""

BUDGETS = (70, 140, 280, 560, 1120)
"""How many soft tokens an image may be given."""

MAX_PIXELS = 2**26
MAX_SIDE = 2**16
"""Of a file, by its header and so before anything is allocated; 2^26 pixels are 256 MiB while they are decoded."""

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")
"""What is decoded. Pillow knows many more that nobody sends and that have cost it most of its security fixes."""

_STRIP_PIXELS = 2**16
"""A strip of at least so many is worth a thread."""

# The C library keeps freed memory for the next image from now on, up to twice as much as this for each thread: it goes
# by the largest block that it has seen freed. New memory costs a fault for every page, together as much as to resize.
bytes(2**24)


def decode_image(data: bytes) -> PIL.Image.Image:
    """The picture in a file, RGB and upright: the first frame, turned as EXIF says, transparency over white.

    Raises:
        MediaError: empty, no picture, of another format, too large, or cut short.
    """
    if not data:
        raise MediaError("is empty: an image file must have content")
    try:
        image = PIL.Image.open(io.BytesIO(data), formats=FORMATS)
    except PIL.UnidentifiedImageError:
        raise MediaError(f"is not an image that can be read: send one of {', '.join(FORMATS)}") from None
    except PIL.Image.DecompressionBombError:
        raise MediaError(f"has too many pixels: at most {MAX_PIXELS} are decoded; scale it down") from None
    except Exception as error:  # a plugin raises whatever its parser meets
        raise MediaError(f"is a damaged image: {error}") from None
    _check_size(*image.size)
    try:
        image.load()
        PIL.ImageOps.exif_transpose(image, in_place=True)
        return to_rgb(image)
    except Exception as error:
        raise MediaError(f"is a damaged or truncated image: {error}") from None


def image_from_array(array: np.ndarray) -> PIL.Image.Image:
    """RGB of uint8 `[height, width]` or `[height, width, 1 | 3 | 4]`; MediaError for anything else."""
    channels = array.shape[2] if array.ndim == 3 else 1
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or channels not in (1, 3, 4) or not array.size:
        raise MediaError(
            f"is an array {array.dtype}{list(array.shape)}: must be uint8 [height, width] or [height, width, 1|3|4]"
        )
    _check_size(array.shape[1], array.shape[0])
    return to_rgb(PIL.Image.fromarray(array.reshape(array.shape[:2]) if channels == 1 else array))


def to_rgb(image: PIL.Image.Image) -> PIL.Image.Image:
    """RGB of any mode, what is transparent over white."""
    _check_size(*image.size)
    if "A" in image.getbands() or image.info.get("transparency") is not None:
        image = image.convert("RGBA")
        white = PIL.Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = PIL.Image.alpha_composite(white, image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _check_size(width: int, height: int) -> None:
    if not width * height:
        raise MediaError(f"is {width} x {height}: an image must have pixels")
    if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
        raise MediaError(
            f"is {width} x {height}: at most {MAX_PIXELS} pixels and {MAX_SIDE} on a side are decoded; scale it down"
        )


def target_size(height: int, width: int, budget: int) -> tuple[int, int]:
    """Height and width that an image is resized to, multiples of 48: the largest that give at most `budget` soft
    tokens and keep the shape about. Small images are enlarged. As `get_aspect_ratio_preserving_size` in transformers.
    """
    factor = math.sqrt(budget * CELL**2 / (height * width))
    rows, columns = int(factor * height / CELL), int(factor * width / CELL)
    if rows == 0:
        rows, columns = 1, min(width // height, budget)
    elif columns == 0:
        rows, columns = min(height // width, budget), 1
    return rows * CELL, columns * CELL


def resized_patches(image: PIL.Image.Image, height: int, width: int) -> UInt8[np.ndarray, "patches 768"]:
    """Patches of 16 x 16 of the resized image, the nine of a soft token one after another; sides multiples of 48.

    Bicubic with antialias, first along the rows and then along the columns. The passes are made one by one because
    Pillow 13 swaps them where that is cheaper, and rounding between them shows: this order is that of earlier versions
    and of torchvision. A large image is made in upright strips by several threads, with equal results: both sides of a
    strip are whole numbers of eighths of the image, which Pillow's float32 holds exactly.
    """
    lines = np.empty((height, 3 * width), np.uint8)
    most = min(threads(), max(image.width * image.height, width * height) // _STRIP_PIXELS)
    strips = next(count for count in (8, 4, 2, 1) if count <= max(1, most))
    across = width // strips

    def resize(strip: int) -> None:
        box = (image.width * strip / strips, 0, image.width * (strip + 1) / strips, image.height)
        made = image.resize((across, image.height), PIL.Image.Resampling.BICUBIC, box)
        made = made.resize((across, height), PIL.Image.Resampling.BICUBIC)
        lines[:, 3 * across * strip :][:, : 3 * across] = np.asarray(made).reshape(height, -1)

    in_strips(strips, resize)
    rows, columns = height // CELL, width // CELL
    cells = lines.reshape(rows, POOLING, PATCH, columns, POOLING, PATCH * 3).transpose(0, 3, 1, 4, 2, 5)
    return cells.reshape(rows * columns * POOLING**2, PATCH * PATCH * 3)
