"""Images: all that a model is shown is decoded here, to the upright picture in 8-bit RGB, or it is refused.

What a viewer shows is what the model is shown: EXIF orientation is applied, transparent parts lie on white, and samples of
more than 8 bits are scaled by a fixed rule (`_eight_bits`). Of several frames or pages the first counts. Colour profiles are
not applied, as in the processors of the models. docs/shown_and_taught.md states these rules for users.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

from lmmcl.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

DECODING = 2
"""Raised when some images would be shown with other pixels; part of the identity of data that may hold such (see `Conversion`)."""

MAX_PIXELS = 100_000_000
"""400 MB decoded. A file of a few kilobytes can claim more; it is refused before memory is taken."""
TOO_LARGE = f"an image of more than {MAX_PIXELS / 1e6:.0f} megapixels"
"""Why a row is left out of prepared data."""

DRAWINGS = ("EPS", "WMF")
"""Formats that Pillow hands to other programs to draw: their pixels would be those of this machine."""

LEAST_LEVELS = 16
"""Of 256. Values that would be shown with fewer levels have another range than the file says (12-bit data in a 16-bit file)."""

_ORIENTATION = 0x0112
_TIFF_BITS, _TIFF_PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0
_TEXT_CHUNKS = (b"eXIf", b"iTXt", b"tEXt", b"zTXt")

# What Pillow's decoders raise, beside OSError, where the bytes of a file contradict one another.
_BROKEN = (SyntaxError, ValueError, TypeError, IndexError, KeyError, EOFError, OverflowError, struct.error, zlib.error)


class Conversion(StrEnum):
    """What is done to an image that is not plain 8-bit grey or RGB, in words that follow a count of images."""

    TURNED = "turned upright by the EXIF orientation"
    ON_WHITE = "with transparency, shown on white"
    SCALED = "with more than 8 bits per sample, scaled to 8"
    FROM_CMYK = "converted from CMYK without colour profile"
    FIRST_FRAME = "with several frames or pages: only the first is shown"

    @property
    def alters_pixels(self) -> bool:
        """Whether this rule shows other pixels than DECODING 1 did, which took what `Image.convert` made of the file."""
        return self in (Conversion.TURNED, Conversion.ON_WHITE, Conversion.SCALED)


class TooManyPixels(UserError):
    """An image of more than MAX_PIXELS pixels."""


@dataclass(frozen=True, slots=True)
class EncodedImage:
    """The bytes of an image file, as parquet files embed them: decoded at each use, so that no pixels pile up over the epochs."""

    data: bytes


ImageSource: TypeAlias = "Image | Path | EncodedImage"


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What the header of an image says."""

    width: int
    height: int
    conversions: tuple[Conversion, ...]

    @property
    def pixels(self) -> int:
        """Width times height."""
        return self.width * self.height


def open_image(source: ImageSource) -> Image:
    """The upright picture as RGB; raises UserError for what cannot be read, is too large, or has values of no known range."""
    from PIL import ImageOps

    with _opened(source) as image:
        image.load()
        if _orientation(image) > 1:
            image = ImageOps.exif_transpose(image)
        if _is_wide(image):
            return _eight_bits(image, _name(source))
        if _is_transparent(image):
            return _on_white(image, _name(source))
        return image if image.mode == "RGB" and image is not source else image.convert("RGB")


def inspect_image(source: ImageSource) -> ImageFacts:
    """What is known of an image before its pixels are decoded; raises UserError as `open_image` does, but for its values."""
    with _opened(source) as image:
        done = {
            Conversion.TURNED: _header_orientation(image, source) > 1,
            Conversion.ON_WHITE: _is_transparent(image),
            Conversion.SCALED: _is_wide(image),
            Conversion.FROM_CMYK: image.mode == "CMYK",
            # A phone's MPO file holds previews beside the photograph, and no second page.
            Conversion.FIRST_FRAME: image.format != "MPO" and getattr(image, "n_frames", 1) > 1,
        }
        return ImageFacts(*image.size, tuple(conversion for conversion, holds in done.items() if holds))


@contextmanager
def _opened(source: ImageSource) -> Iterator[Image]:
    """The image, not yet decoded; whatever Pillow raises while it is used becomes a UserError that names the image."""
    from PIL import Image as pil

    name = _name(source)
    try:
        if isinstance(source, Path | EncodedImage):
            with pil.open(source if isinstance(source, Path) else io.BytesIO(source.data)) as image:
                _check(image, name)
                yield image
        else:
            _check(source, name)
            yield source
    except (
        pil.DecompressionBombError
    ) as error:  # raised by Pillow before the size can be asked, at 179 megapixels by default
        raise _too_large(name, f"more than {MAX_PIXELS / 1e6:.0f} megapixels") from error
    except (FileNotFoundError, IsADirectoryError) as error:
        raise UserError(f"{name}: no such file") from error
    except pil.UnidentifiedImageError as error:
        raise UserError(f"{name}: is not a readable image: no known format") from error
    except OSError as error:
        raise UserError(f"{name}: is not a readable image: {error.strerror or error}") from error
    except _BROKEN as error:
        raise UserError(f"{name}: is a broken image: {error}") from error


def _name(source: ImageSource) -> str:
    return str(source) if isinstance(source, Path) else "image"


def _check(image: Image, name: str) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise _too_large(name, f"{width} x {height} pixels ({width * height / 1e6:.0f} megapixels)")
    if image.format in DRAWINGS:
        raise UserError(
            f"{name}: is a vector drawing ({image.format}), whose pixels depend on the renderer; convert it to PNG"
        )


def _too_large(name: str, size: str) -> TooManyPixels:
    return TooManyPixels(f"{name}: has {size}; allowed: up to {MAX_PIXELS / 1e6:.0f} megapixels; scale it down first")


def _orientation(image: Image) -> int:
    """1 (upright) to 8. TIFF files are turned by Pillow when they are loaded, and then say nothing any more."""
    value = image.getexif().get(_ORIENTATION, 1)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _header_orientation(image: Image, source: ImageSource) -> int:
    """The orientation without decoding a PNG file, which Pillow would do for metadata that may follow the pixels."""
    from PIL import Image as pil

    if image.format != "PNG" or not isinstance(source, Path | EncodedImage):
        return _orientation(image)
    with source.open("rb") if isinstance(source, Path) else io.BytesIO(source.data) as stream:
        if _has_late_metadata(stream):
            return _orientation(image)
    value = pil.Image.getexif(image).get(_ORIENTATION, 1)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _has_late_metadata(stream: BinaryIO) -> bool:
    """Whether a PNG file has metadata behind its pixels."""
    stream.seek(8)
    pixels_seen = False
    while len(head := stream.read(8)) == 8:
        pixels_seen = pixels_seen or head[4:] == b"IDAT"
        if pixels_seen and head[4:] in _TEXT_CHUNKS:
            return True
        stream.seek(int.from_bytes(head[:4]) + 4, io.SEEK_CUR)
    return False


def _is_transparent(image: Image) -> bool:
    return "A" in image.getbands() or "a" in image.getbands() or image.info.get("transparency") is not None


def _is_wide(image: Image) -> bool:
    return image.mode in ("I", "F") or image.mode.startswith("I;16")


def _on_white(image: Image, name: str) -> Image:
    """Transparent parts on white, as transformers' own processors have it."""
    from PIL import Image as pil

    colour = image.info.get("transparency")
    if isinstance(colour, tuple) and max(colour) > 255:  # Pillow has cut the pixels to 8 bits, and not this colour
        raise UserError(f"{name}: has a transparent colour of 16 bits, which Pillow cannot apply; use an alpha channel")
    white = pil.new("RGBA", image.size, (255, 255, 255, 255))
    return pil.alpha_composite(white, image.convert("RGBA")).convert("RGB")


def _eight_bits(image: Image, name: str) -> Image:
    """Grey of 16 or 32 bits or floats as 8-bit RGB.

    Whole numbers are 0 (black) to 65535 (white), or to the depth that a TIFF file states, such as 4095 for 12 bits; floats are
    0 to 1. A TIFF file that says that white is zero is inverted. The range is fixed, so that equal values look equal in all
    images. Raises UserError for values outside it, and for values that fill less than a sixteenth of it.
    """
    import numpy as np
    from PIL import Image as pil

    values: NDArray[Any] = np.asarray(image)
    tags = getattr(image, "tag_v2", {})
    grey = _from_floats(values, name) if image.mode == "F" else _from_integers(values, _white(image, tags), name)
    if tags.get(_TIFF_PHOTOMETRIC) == _WHITE_IS_ZERO:
        grey = 255 - grey
    key = image.info.get("transparency")
    if isinstance(key, int):
        grey = np.where(values == key, np.uint8(255), grey)
    return pil.fromarray(grey).convert("RGB")


def _white(image: Image, tags: dict[int, tuple[int, ...]]) -> int:
    """The value that stands for white (for black where white is zero)."""
    bits = tags.get(_TIFF_BITS, (16,))[0]
    return 2**bits - 1 if image.mode.startswith("I;16") and 8 < bits < 16 else 65535


def _from_integers(values: NDArray[np.generic], white: int, name: str) -> NDArray[np.uint8]:
    import numpy as np

    least, most = int(values.min()), int(values.max())
    if least < 0 or most > white:
        raise UserError(f"{name}: has values from {least} to {most}; allowed: 0 (black) to {white} (white)")
    _check_levels(least, most, white, name)
    table = ((np.arange(white + 1) * 510 + white) // (2 * white)).astype(np.uint8)  # 255 · v / white, rounded
    return table[values.astype(np.uint16)]


def _from_floats(values: NDArray[np.float32], name: str) -> NDArray[np.uint8]:
    import numpy as np

    least, most = float(values.min()), float(values.max())
    if not (least >= 0 and most <= 1):  # NaN is neither
        raise UserError(f"{name}: has float values from {least:g} to {most:g}; allowed: 0 (black) to 1 (white)")
    _check_levels(least, most, 1, name)
    return (values * np.float32(255) + np.float32(0.5)).astype(np.uint8)


def _check_levels(least: float, most: float, white: float, name: str) -> None:
    """Refuse values so low that a fixed range would show next to nothing of them."""
    if least < most < white * LEAST_LEVELS / 256:
        raise UserError(
            f"{name}: its values end at {most:g} of {white:g}, so that fewer than {LEAST_LEVELS} of 256 levels would be shown; "
            "scale them to the whole range first"
        )
