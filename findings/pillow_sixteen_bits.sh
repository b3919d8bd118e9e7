#!/usr/bin/env bash
# Pillow 13.0.0 (11.0.0 and 12.2.0 too) reads two kinds of valid 16-bit files other than their 8-bit twins:
# - a grey TIFF whose tag says that white is zero is inverted with 8 bits a sample, and not with 16: the picture is its negative;
# - a PNG with 16-bit RGB and a transparent colour (tRNS) is cut to 8 bits, its transparent colour is not: no pixel is transparent.
# Exits with 0 while this is so, with 1 when one of them changed.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python -m pip install -q --target "$folder" pillow==13.0.0
PYTHONPATH=$folder python - <<'P'
import io, struct, sys, zlib
from PIL import Image


def tiff(data, bits, width):
    tags = {256: width, 257: 1, 258: bits, 259: 1, 262: 0, 273: 0, 277: 1, 278: 1, 279: len(data)}  # 262: white is zero
    tags[273] = 8 + 2 + 12 * len(tags) + 4
    entries = b"".join(struct.pack("<HHII", tag, 4 if tag in (273, 279) else 3, 1, tags[tag]) for tag in sorted(tags))
    return io.BytesIO(b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + data)


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(bits, samples):
    """Two pixels, of which the second has the transparent colour."""
    form = ">" + ("H" if bits == 16 else "B") * 6
    key = struct.pack(">HHH", *samples[3:])
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 1, bits, 2, 0, 0, 0)) + chunk(b"tRNS", key)
    rows = zlib.compress(b"\0" + struct.pack(form, *samples))
    return io.BytesIO(b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", rows) + chunk(b"IEND", b""))


shallow = list(Image.open(tiff(bytes([0, 255]), 8, 2)).tobytes())
deep = list(struct.unpack("<2H", Image.open(tiff(struct.pack("<2H", 0, 65535), 16, 2)).tobytes()))
print("white is zero: samples 0 and 255 of 8 bits are read as", shallow, "and 0 and 65535 of 16 bits as", deep)
alpha8 = [Image.open(png(8, [1, 1, 1, 5, 5, 5])).convert("RGBA").getpixel((x, 0))[3] for x in (0, 1)]
alpha16 = [Image.open(png(16, [1, 1, 1, 1287, 1287, 1287])).convert("RGBA").getpixel((x, 0))[3] for x in (0, 1)]
print("transparent colour: alpha is", alpha8, "with 8 bits and", alpha16, "with 16 bits")
sys.exit(not (shallow == [255, 0] and deep == [0, 65535] and alpha8 == [255, 0] and alpha16 == [255, 255]))
P
