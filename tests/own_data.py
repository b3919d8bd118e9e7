"""A small data set of one's own, as a user would bring it: a folder of PNG files and a LLaVA JSON.

Each picture is a receipt of 32 × 32 pixels: paper with one colour patch whose colour tells the price. All words are known
to the tiny models, the rule is not: it must be learnt, and four colours suffice for a few updates to show it.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

PRICES = {"five": (220, 40, 40), "two": (50, 90, 230), "nine": (40, 170, 60), "four": (235, 220, 50)}
"""Word of the price → colour of the patch (red, green, blue)."""

QUESTION = "how much is it?"


def write_receipts(folder: Path, rows: int = 24, *, name: str = "train.json", seed: int = 0) -> Path:
    """Writes `rows` pictures below `folder` and the file `name` that names them, relative to `folder`; returns that file.

    Prices take turns, so every price occurs as often as any other (±1). Other names and seeds make other pictures.
    """
    draw = random.Random(f"{name}{seed}")
    stem = Path(name).stem
    (folder / "images").mkdir(parents=True, exist_ok=True)
    entries: list[dict[str, Any]] = []
    for number in range(rows):
        price = list(PRICES)[number % len(PRICES)]
        image = f"images/{stem}-{number}.png"
        write_receipt(folder / image, PRICES[price], draw)
        entries.append(llava_row(f"{stem}-{number}", image, QUESTION, price))
    path = folder / name
    path.write_text(json.dumps(entries, indent=1))
    return path


def write_receipt(path: Path, colour: tuple[int, int, int], draw: random.Random) -> None:
    """One picture: grey paper of a random shade with a patch of 16 × 16 pixels at a random place."""
    from PIL import Image

    shade = draw.randrange(0, 40)
    picture = Image.new("RGB", (32, 32), (shade, shade, shade))
    picture.paste(Image.new("RGB", (16, 16), colour), (draw.randrange(0, 17), draw.randrange(0, 17)))
    picture.save(path)


def llava_row(id: str, image: str, question: str, answer: str) -> dict[str, Any]:
    """A one-turn row of LLaVA JSON."""
    turns = [{"from": "human", "value": f"<image>\n{question}"}, {"from": "gpt", "value": answer}]
    return {"id": id, "image": image, "conversations": turns}
