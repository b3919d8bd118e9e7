"""Images are decoded in one place: to the picture that a viewer shows in 8-bit RGB, or they are refused by name."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from lmmcl.errors import UserError
from lmmcl.tasks import images
from lmmcl.tasks.examples import ask
from lmmcl.tasks.images import Conversion, EncodedImage, inspect_image, open_image

RAMP = np.linspace(0, 65535, 1024).astype(np.uint16).reshape(32, 32)
"""All of the range of 16 bits."""


def saved(image: Image.Image, kind: str, **more: Any) -> EncodedImage:
    file = io.BytesIO()
    image.save(file, kind, **more)
    return EncodedImage(file.getvalue())


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(
    width: int, height: int, bits: int, colour: int, rows: bytes, *before: bytes, after: bytes = b""
) -> EncodedImage:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(rows)) + after + chunk(b"IEND", b"")
    return EncodedImage(b"\x89PNG\r\n\x1a\n" + header + b"".join(before) + body)


def tiff(values: np.ndarray, *, white_is_zero: bool = False, kind: int = 1, bits: int | None = None) -> EncodedImage:
    """An uncompressed grey TIFF file; `kind` is 1 for unsigned, 2 for signed numbers, 3 for floats."""
    data = values.tobytes()
    tags = {256: values.shape[1], 257: values.shape[0], 258: bits or values.itemsize * 8, 259: 1}
    tags |= {262: int(not white_is_zero), 273: 0, 277: 1, 278: values.shape[0], 279: len(data), 339: kind}
    tags[273] = 8 + 2 + 12 * len(tags) + 4
    entries = b"".join(struct.pack("<HHII", tag, 4 if tag in (273, 279) else 3, 1, tags[tag]) for tag in sorted(tags))
    return EncodedImage(b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + data)


def grey(source: Any) -> np.ndarray:
    """The pixels that are shown, as signed numbers; all three colours must be equal."""
    shown = np.asarray(open_image(source)).astype(int)
    assert shown.shape[-1] == 3 and (shown == shown[..., :1]).all()
    return shown[..., 0]


@pytest.mark.parametrize("orientation", range(2, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_a_photograph_is_turned_as_its_exif_orientation_says(orientation: int, kind: str) -> None:
    picture = Image.new("RGB", (64, 32), "red")
    picture.paste("blue", (0, 0, 16, 16))
    file = saved(picture, kind, exif=exif(orientation))
    tagged = picture.copy()
    tagged.getexif()[0x0112] = orientation
    upright = ImageOps.exif_transpose(tagged)
    shown = open_image(file)
    assert shown.size == upright.size == ((64, 32) if orientation < 5 else (32, 64))
    assert np.abs(np.asarray(shown).astype(int) - np.asarray(upright)).mean() < 4  # JPEG and WebP lose a little
    assert inspect_image(file).conversions == (Conversion.TURNED,)


def test_orientation_may_stand_behind_the_pixels_of_a_png_and_zero_or_nine_is_none() -> None:
    rows = b"".join(b"\0" + bytes([0, 100, 200, 255]) for _ in range(2))
    late = png(4, 2, 8, 0, rows, after=chunk(b"eXIf", exif(6).tobytes().removeprefix(b"Exif\0\0")))
    assert inspect_image(late).conversions == (Conversion.TURNED,)
    assert open_image(late).size == (2, 4)
    for orientation in (0, 1, 9):
        file = saved(Image.new("RGB", (4, 2)), "JPEG", exif=exif(orientation))
        assert open_image(file).size == (4, 2)
        assert inspect_image(file).conversions == ()


def test_an_image_in_memory_is_turned_too_and_a_path_is_opened_the_same_way(tmp_path: Path) -> None:
    Image.new("RGB", (64, 32)).save(tmp_path / "p.jpg", exif=exif(8))
    assert ask("p", "?", "x", tmp_path / "p.jpg").open_images()[0].size == (32, 64)
    assert ask("p", "?", "x", Image.open(tmp_path / "p.jpg")).open_images()[0].size == (32, 64)


def half_transparent(mode: str) -> EncodedImage:
    """Left half black and visible, right half black and not."""
    picture = Image.new("RGBA", (8, 8), (0, 0, 0, 255))
    picture.paste((0, 0, 0, 0), (4, 0, 8, 8))
    if mode == "P":
        palette = Image.new("P", (8, 8), 0)
        palette.putpalette([0, 0, 0, 0, 0, 0, 255, 0, 0])
        palette.paste(1, (4, 0, 8, 8))
        return saved(palette, "PNG", transparency=b"\xff\x00\xff")
    if mode == "GIF":
        return saved(picture, "GIF")
    if mode == "L with a colour":
        levels = Image.new("L", (8, 8), 0)
        levels.paste(7, (4, 0, 8, 8))
        return saved(levels, "PNG", transparency=7)
    return saved(
        picture.convert(mode), "PNG" if mode != "RGBA" else "WEBP", **({"lossless": True} if mode == "RGBA" else {})
    )


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "GIF", "L with a colour"])
def test_transparent_parts_lie_on_white_in_every_kind_of_file(mode: str) -> None:
    file = half_transparent(mode)
    assert grey(file).tolist() == [[0] * 4 + [255] * 4] * 8
    assert Conversion.ON_WHITE in inspect_image(file).conversions


def test_transparency_is_mixed_as_the_processors_of_transformers_do() -> None:
    from transformers.image_transforms import convert_to_rgb

    drawn = np.random.default_rng(0).integers(0, 256, (16, 16, 4), dtype=np.uint8)
    for picture in (Image.fromarray(drawn), Image.fromarray(drawn).convert("LA"), Image.fromarray(drawn).quantize(32)):
        assert np.array_equal(np.asarray(open_image(picture)), convert_to_rgb(picture, return_numpy=True))


def test_sixteen_bits_thirty_two_bits_and_floats_look_as_the_same_picture_in_eight_bits() -> None:
    eight = np.rint(RAMP / 257).astype(int)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in RAMP)
    for file in (
        png(32, 32, 16, 0, rows),
        saved(Image.fromarray(RAMP), "TIFF"),
        saved(Image.fromarray(RAMP.astype(np.int32)), "TIFF"),
        tiff(RAMP.astype("<u4")),
        tiff((RAMP / 65535).astype("<f4"), kind=3),
        EncodedImage(b"P5 32 32 65535\n" + RAMP.astype(">u2").tobytes()),
        Image.fromarray(RAMP),
    ):
        assert np.abs(grey(file) - eight).max() <= 1  # floats may round a half the other way
        assert inspect_image(file).conversions == (Conversion.SCALED,)
    assert (grey(png(32, 32, 16, 0, rows)) == eight).all()


def test_a_tiff_file_says_how_deep_it_is_and_whether_white_is_zero() -> None:
    twelve = RAMP.reshape(-1) >> 4
    pairs = [(int(a), int(b)) for a, b in zip(twelve[::2], twelve[1::2], strict=True)]
    packed = b"".join(bytes([a >> 4, (a & 15) << 4 | b >> 8, b & 255]) for a, b in pairs)
    file = tiff(np.frombuffer(packed, np.uint8).reshape(32, 48), bits=12)
    data = bytearray(file.data)
    data[data.index(struct.pack("<HHII", 256, 3, 1, 48)) + 8] = 32  # 48 bytes a row are 32 values of 12 bits
    assert np.abs(grey(EncodedImage(bytes(data))) - RAMP / 257).max() < 1.1
    assert (grey(tiff(RAMP.astype("<u2"), white_is_zero=True)) == 255 - grey(tiff(RAMP.astype("<u2")))).all()
    assert grey(tiff(RAMP.astype("<u2")))[0, 0] == 0


def test_the_transparent_grey_of_sixteen_bits_is_white() -> None:
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in RAMP)
    shown = grey(png(32, 32, 16, 0, rows, chunk(b"tRNS", struct.pack(">H", int(RAMP[3, 3])))))
    assert shown[3, 3] == 255
    assert shown[3, 2] == round(RAMP[3, 2] / 257)


@pytest.mark.parametrize(
    ("values", "kind", "why"),
    [
        (RAMP.astype("<i4") - 5, 2, "has values from -5 to 65530; allowed: 0 .black. to 65535"),
        (RAMP.astype("<i4") * 2, 2, "has values from 0 to 131070; allowed: 0 .black. to 65535"),
        ((RAMP / 257).astype("<f4"), 3, "has float values from 0 to 255; allowed: 0 .black. to 1"),
        (np.where(RAMP > 9, RAMP / 65535, np.nan).astype("<f4"), 3, "float values from nan to nan"),
        ((RAMP >> 4).astype("<u2"), 1, "its values end at 4095 of 65535.*scale them to the whole range first"),
    ],
)
def test_values_of_no_known_range_are_refused_with_what_is_allowed(values: np.ndarray, kind: int, why: str) -> None:
    with pytest.raises(UserError, match=why):
        open_image(tiff(values, kind=kind))


def test_one_even_grey_is_shown_however_dark() -> None:
    assert (grey(Image.fromarray(np.full((4, 4), 300, np.uint16))) == 1).all()


def test_cmyk_is_converted_and_of_several_frames_the_first_is_shown() -> None:
    ink = saved(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "TIFF")
    assert open_image(ink).getpixel((0, 0)) == (255, 0, 0)
    assert inspect_image(ink).conversions == (Conversion.FROM_CMYK,)
    first, second = Image.new("RGB", (8, 8), "red"), Image.new("RGB", (8, 8), "blue")
    for kind in ("GIF", "TIFF", "WEBP", "PNG"):
        more = {"lossless": True} if kind == "WEBP" else {}
        several = saved(first, kind, save_all=True, append_images=[second], **more)
        assert inspect_image(several).conversions == (Conversion.FIRST_FRAME,)
        assert open_image(several).getpixel((0, 0)) == (255, 0, 0)


def test_a_plain_image_is_shown_as_it_is() -> None:
    drawn = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    for picture in (Image.fromarray(drawn), Image.fromarray(drawn[..., 0]), Image.fromarray(drawn).quantize(16)):
        assert np.array_equal(np.asarray(open_image(saved(picture, "PNG"))), np.asarray(picture.convert("RGB")))
        assert inspect_image(saved(picture, "PNG")).conversions == ()


def test_an_image_of_too_many_pixels_is_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    def decode(*_: object) -> None:
        raise AssertionError("pixels were decoded")

    monkeypatch.setattr(Image.Image, "load", decode)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", decode)
    for width, said in ((13_000, "13000 x 10000 pixels .130 megapixels."), (30_000, "more than 100 megapixels")):
        claims = png(width, 10_000, 1, 0, b"\0")
        for look in (open_image, inspect_image):
            with pytest.raises(UserError, match=f"{said}; allowed: up to 100 megapixels; scale it down first"):
                look(claims)


def test_what_cannot_be_shown_is_refused_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "notes.png").write_text("no picture")
    with pytest.raises(UserError, match=r"notes\.png: is not a readable image"):
        open_image(tmp_path / "notes.png")
    with pytest.raises(UserError, match=r"none\.png: no such file"):
        open_image(tmp_path / "none.png")
    whole = saved(Image.new("RGB", (64, 64)), "PNG").data
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) - 30])
    with pytest.raises(UserError, match=r"cut\.png: is "):
        open_image(tmp_path / "cut.png")
    (tmp_path / "drawing.eps").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n%%EOF\n")
    with pytest.raises(UserError, match=r"drawing\.eps: is a vector drawing .EPS.*convert it to PNG"):
        open_image(tmp_path / "drawing.eps")
    assert images.DRAWINGS
