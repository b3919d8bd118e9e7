"""How much of a stage's batches is padding, with rows as they come, sorted by length inside each update, and packed.

    python tests/bench/padding.py                     512 mixed rows: short answers, captions, dialogues, pictures of many sizes
    python tests/bench/padding.py --rows 64 --json f  fewer, and the shares into a file

No model runs: batches are made by the stage's own collator from the stage's own order.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lmmcl.models import get_model
from lmmcl.tasks.examples import IMAGE_PLACEHOLDER, Example, Message
from lmmcl.training.efficiency.length_order import LengthOrder
from lmmcl.training.efficiency.row_lengths import RowLengths
from lmmcl.training.stage.collate import Collator, StageData, row_order

WORDS = ("small", "red", "circle", "left", "of", "a", "large", "blue", "square", "above", "green", "triangle")
BATCHES = ((16, 2), (64, 4), (128, 8))
"""Global batch and micro-batch."""


@dataclass(frozen=True)
class Share:
    """Of one way to cut a global batch: the share of padding of each order."""

    batch: int
    micro: int
    unsorted: float
    sorted: float
    packed: float


def mixed(count: int, seed: int = 0) -> list[Example]:
    """Half are questions with an answer of a few words, the others captions, dialogues and text without a picture."""
    draw = np.random.default_rng(seed)

    def text(low: int, high: int) -> str:
        return " ".join(draw.choice(WORDS, int(draw.integers(low, high))))

    def row(number: int) -> Example:
        kind = draw.choice(["short", "caption", "dialogue", "text"], p=[0.5, 0.2, 0.2, 0.1])
        turns = int(draw.integers(2, 5)) if kind == "dialogue" else 1
        answer = {"short": (1, 6), "caption": (10, 60), "dialogue": (5, 60), "text": (40, 300)}[str(kind)]
        messages = [
            Message(role, text(*size))  # type: ignore[arg-type]
            for _ in range(turns)
            for role, size in (("user", (4, 20)), ("assistant", answer))
        ]
        if kind == "text":
            return Example(str(number), tuple(messages))
        messages[0] = Message("user", f"{IMAGE_PLACEHOLDER}\n{messages[0].content}")
        side = tuple(int(n) for n in draw.integers(4, 15, 2) * 16)
        return Example(str(number), tuple(messages), (Image.new("RGB", side, (9, 90, 200)),))  # type: ignore[arg-type]

    return [row(number) for number in range(count)]


def processor_of_many_sizes() -> Any:
    """The tiny one, which leaves pictures of up to 256 × 256 pixels as large as they are: 4 to 1024 tokens."""
    processor: Any = get_model("tiny-qwen").load_processor()
    processor.image_processor.size["longest_edge"] = 256 * 256
    return processor


def batches(data: StageData, collator: Collator, micro: int) -> Iterator[dict[str, Any]]:
    for start in range(0, len(data), micro):
        yield collator([data[position] for position in range(start, start + micro)])


def padding(data: StageData, collator: Collator, micro: int) -> float:
    """The share of places that hold no token, in an epoch's batches."""
    places = tokens = 0
    for batch in batches(data, collator, micro):
        places += batch["input_ids"].numel()
        tokens += int(batch["attention_mask"].sum()) if "attention_mask" in batch else batch["input_ids"].numel()
    return 1 - tokens / places


def measure(rows: int, sizes: Sequence[tuple[int, int]] = BATCHES) -> list[Share]:
    """The shares of every way to cut a global batch, over as many whole updates as the rows fill."""
    processor, examples = processor_of_many_sizes(), mixed(rows)
    lengths = RowLengths(processor, examples)
    shares = []
    for batch, micro in sizes:
        order = row_order(rows, rows // batch * batch, seed=0)
        plain = StageData("mixed", examples, order, processor, "bench")
        inside = StageData("mixed", examples, order, processor, "bench", order=LengthOrder(order, batch, lengths))
        padded, packed = Collator(processor), Collator(processor, packs=True)
        shares.append(
            Share(
                batch,
                micro,
                padding(plain, padded, micro),
                padding(inside, padded, micro),
                padding(inside, packed, micro),
            )
        )
    return shares


def table(shares: Sequence[Share]) -> str:
    """For the terminal."""
    lines = [f"{'global batch':>12}{'micro-batch':>13}{'as they come':>14}{'sorted':>9}{'packed':>9}"]
    lines += [f"{row.batch:12}{row.micro:13}{row.unsorted:14.1%}{row.sorted:9.1%}{row.packed:9.1%}" for row in shares]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=512)
    parser.add_argument("--json", type=Path, help="write the shares here too")
    arguments = parser.parse_args()
    shares = measure(arguments.rows)
    print(table(shares))
    if arguments.json:
        arguments.json.write_text(json.dumps([vars(row) for row in shares], indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
