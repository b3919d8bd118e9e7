"""Encoding rows for training: ours against `datasets.map` with the same processor, in the same run.

    python tests/bench/encoding.py [--model tiny-qwen] [--rows 200] [--size 336] [--rounds 3] [--as-small]

The tokenizer is the small model's, the image processor has the settings that its architecture ships with (Qwen2.5-VL: patches of 14 pixels), so
that rows are as large as real ones; `--as-small` keeps those of the small model, where Python's own work counts most. Both read the same JPEG files, apply the same chat template and call the same processor for one row at a time, in one process; ours also finds
the answers' tokens (labels), theirs writes its Arrow cache, as `map` does. Rounds alternate, and the best of each counts, in seconds of the processor. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lmmcl.models import get_model
from lmmcl.models.processing.encode import encode
from lmmcl.tasks.examples import ask

ANSWERS = ("red", "a man walks", "two dogs and a cat near a tree")


def write_images(folder: Path, count: int, size: int) -> list[Path]:
    draw = np.random.default_rng(0)
    files = []
    for number in range(count):
        noise = draw.integers(0, 255, (size // 8, size // 8, 3), dtype=np.uint8)
        files.append(folder / f"{number}.jpg")
        Image.fromarray(noise).resize((size, size), Image.Resampling.BICUBIC).save(files[-1], quality=90)
    return files


def ours(processor: Any, files: list[Path]) -> float:
    """Rows a second."""
    examples = [ask(str(n), "what is this?", ANSWERS[n % 3], image=file) for n, file in enumerate(files)]
    start = time.process_time()
    for example in examples:
        encode(processor, example, with_answer=True)
    return len(files) / (time.process_time() - start)


def theirs(processor: Any, files: list[Path], cache: Path) -> float:
    """Rows a second."""
    import datasets

    def one(row: dict[str, Any]) -> dict[str, Any]:
        parts = [{"type": "image"}, {"type": "text", "text": "what is this?"}]
        turns = [
            {"role": "user", "content": parts},
            {"role": "assistant", "content": [{"type": "text", "text": row["answer"]}]},
        ]
        text = processor.apply_chat_template(turns, tokenize=False)
        found = processor(text=[text], images=[row["image"].convert("RGB")], return_tensors="pt")
        return {name: value[0] for name, value in found.items()}

    datasets.disable_progress_bars()
    data = {"image": list(map(str, files)), "answer": [ANSWERS[n % 3] for n in range(len(files))]}
    rows = datasets.Dataset.from_dict(data).cast_column("image", datasets.Image())
    start = time.process_time()
    rows.map(one, remove_columns=["image", "answer"], cache_file_name=str(cache), load_from_cache_file=False)
    return len(files) / (time.process_time() - start)


def measure(model: str, rows: int, size: int, rounds: int, *, as_small: bool = False) -> dict[str, Any]:
    """Rows a second of both, and their ratio."""
    processor: Any = get_model(model).load_processor()
    if not as_small:
        processor.image_processor = type(processor.image_processor)()
    with tempfile.TemporaryDirectory() as folder:
        files = write_images(Path(folder), rows, size)
        ours(processor, files[:8])  # what either makes once
        theirs(processor, files[:8], Path(folder) / "warm.arrow")
        pairs = [(ours(processor, files), theirs(processor, files, Path(folder) / f"{n}.arrow")) for n in range(rounds)]
    best, other = (max(values) for values in zip(*pairs, strict=True))
    return {
        "model": model,
        "rows": rows,
        "ours_rows_per_second": round(best, 1),
        "datasets_map_rows_per_second": round(other, 1),
        "ratio": round(best / other, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny-qwen")
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--size", type=int, default=336)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--as-small", action="store_true")
    asked = parser.parse_args()
    found = measure(asked.model, asked.rows, asked.size, asked.rounds, as_small=asked.as_small)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
