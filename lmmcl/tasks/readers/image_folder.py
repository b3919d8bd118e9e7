"""Rows of a folder of images: one folder a class, or a `metadata` file (.csv, .jsonl, .parquet) with a column `file_name`.

These are the two forms that `datasets` calls ImageFolder. A folder of classes gives rows of `image` (the path below the folder)
and `label` (the name of the class), by class and name.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lmmcl.errors import UserError, shown
from lmmcl.tasks.readers.tar_rows import IMAGE_SUFFIXES

METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
SPLITS = {"train", "training", "test", "testing", "val", "valid", "validation", "dev", "eval"}


def metadata_file(folder: Path) -> Path | None:
    """The file that names the images of a folder, if there is one; raises UserError for several."""
    files = [folder / name for name in METADATA if (folder / name).is_file()]
    if len(files) > 1:
        raise UserError(f"has {' and '.join(file.name for file in files)}; keep one", file=str(folder))
    return files[0] if files else None


def class_rows(folder: Path) -> Iterator[tuple[int, Any]]:
    """The images of a folder of classes, by class and name."""
    for number, (name, image) in enumerate(_images(folder), start=1):
        yield number, {"image": image, "label": name}


def is_image_name(name: str) -> bool:
    """Whether a file's name ends as an image's."""
    return name.rpartition(".")[2].lower() in IMAGE_SUFFIXES


def _images(folder: Path) -> Iterator[tuple[str, str]]:
    """(class, path below the folder) of each image."""
    with os.scandir(folder) as listing:
        entries = sorted((entry for entry in listing if not entry.name.startswith(".")), key=lambda entry: entry.name)
    classes = [entry.name for entry in entries if entry.is_dir()]
    _check(folder, classes, [entry.name for entry in entries if not entry.is_dir()])
    for name in classes:
        for below, folders, files in os.walk(folder / name, followlinks=True):
            folders.sort()
            place = Path(below).relative_to(folder).as_posix()
            for file in sorted(files):
                if is_image_name(file) and not file.startswith("."):
                    yield name, f"{place}/{file}"


def _check(folder: Path, classes: list[str], files: list[str]) -> None:
    data = sorted(
        {Path(name).suffix for name in files} & {".json", ".jsonl", ".parquet", ".csv", ".tsv", ".arrow", ".tar"}
    )
    if data:
        pattern = folder / f"*{data[0]}"
        raise UserError(f"is a folder of data files; name one of them, or all: {pattern}", file=str(folder))
    if not classes:
        raise UserError(
            "is a folder, not a file: it holds neither folders of images, one a class, nor metadata.csv or .jsonl",
            file=str(folder),
        )
    if {name.lower() for name in classes} <= SPLITS:
        named = " or ".join(str(folder / name) for name in classes)
        raise UserError(f"holds splits, not classes; name {named}", file=str(folder))
    if loose := [name for name in files if is_image_name(name)]:
        raise UserError(
            f"holds {len(loose)} images beside the folders of its classes (first: {shown(loose[0])}); an image belongs to a class "
            "by its folder",
            file=str(folder),
        )
