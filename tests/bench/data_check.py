"""`lmmcl data check` without opening images: rows a second and peak memory, by kind of file.

    python tests/bench/data_check.py [--rows 100000] [--images 10000] [--folder FOLDER]

Rows are like LLaVA-665K's: one image and one to three exchanges each. Each kind is checked in a process of its own, whose start counts.
Prints one JSON object. `cpu` is what the process used, so that a busy machine shows.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

KINDS = ("jsonl", "json", "parquet")
WORDS = [
    "the",
    "of",
    "a",
    "photo",
    "shows",
    "red",
    "blue",
    "man",
    "walking",
    "on",
    "street",
    "with",
    "dog",
    "and",
    "cat",
    "near",
    "tree",
    "what",
    "is",
    "this",
    "how",
    "many",
    "people",
]
CHECK = """
import json, resource, sys, time
from pathlib import Path
start, cpu = time.perf_counter(), time.process_time()
from lmmcl.tasks.files.check import check_file
report = check_file(Path(sys.argv[1]), open_images=False)
assert not report.total, report.lines()
print(json.dumps({
    "rows": report.rows,
    "rows_per_second": round(report.rows / (time.perf_counter() - start)),
    "rows_per_cpu_second": round(report.rows / (time.process_time() - cpu)),
    "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
}))
"""


def rows(count: int, images: int) -> Iterator[dict[str, Any]]:
    """Dialogues of random words about images that many rows show."""
    draw = random.Random(0)
    for number in range(count):
        turns = []
        for turn in range(draw.choice([1, 1, 1, 2, 3])):
            question = " ".join(draw.choices(WORDS, k=12))
            turns.append({"from": "human", "value": f"<image>\n{question}?" if turn == 0 else f"{question}?"})
            turns.append({"from": "gpt", "value": " ".join(draw.choices(WORDS, k=draw.choice([1, 3, 40])))})
        yield {"id": f"{number:012d}", "image": f"images/{number % images:012d}.jpg", "conversations": turns}


def write(folder: Path, count: int, images: int) -> None:
    """The same rows as .jsonl, .json and .parquet, and empty files for their images."""

    (folder / "images").mkdir(parents=True, exist_ok=True)
    for number in range(min(count, images)):
        (folder / f"images/{number:012d}.jpg").touch()
    with (folder / "rows.jsonl").open("w") as lines, (folder / "rows.json").open("w") as whole:
        for number, row in enumerate(rows(count, images)):
            text = json.dumps(row)
            lines.write(f"{text}\n")
            whole.write(f"{',' if number else '['}\n{text}")
        whole.write("]")
    writer: Any = None
    batch: list[dict[str, Any]] = []
    for row in rows(count, images):
        batch.append(row)
        if len(batch) == 1000:
            writer = _append(folder / "rows.parquet", batch, writer)
            batch = []
    if batch:
        writer = _append(folder / "rows.parquet", batch, writer)
    writer.close()


def _append(path: Path, batch: list[dict[str, Any]], writer: Any) -> Any:
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.Table.from_pylist(batch)
    writer = writer or pyarrow.parquet.ParquetWriter(path, table.schema)
    writer.write_table(table)
    return writer


def measure(folder: Path) -> dict[str, dict[str, int]]:
    """By kind of file, what its check took."""
    found = {}
    for kind in KINDS:
        command = [sys.executable, "-c", CHECK, str(folder / f"rows.{kind}")]
        found[kind] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--folder", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = asked.folder or Path(temporary)
        if not (folder / "rows.parquet").exists():
            write(folder, asked.rows, asked.images)
        print(json.dumps(measure(folder), indent=1))


if __name__ == "__main__":
    main()
