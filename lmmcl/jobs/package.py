"""What goes with a job: the files of a folder that Ray sends, held to what the sweep names and to the size that Ray takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lmmcl.config.own_data import expand, is_pattern
from lmmcl.errors import UserError
from lmmcl.models.sources.reference import paths_in
from lmmcl.private_api.ray_private import most_package_bytes, package_files

EXCLUDED = ["lmmcl-store", "lmmcl-reports", "mlruns", "mlflow.db", ".*_cache"]
"""Of the folder that is sent, what no job needs; Ray leaves out `.git`, `.venv`, `venv` and what .gitignore names as well."""
FILES = ("train", "test", "images", "include", "file")
"""Keys of a sweep file, at any depth, whose text is a path, or whose list holds paths; a pattern stands for several files."""


def files_of(value: Any, folder: Path) -> Iterator[tuple[Path, bool]]:
    """Path, and whether it was written as an absolute one, of each file and folder that the raw data of a sweep names.

    `folder` is that of the sweep file, to which the others are relative.
    """
    if isinstance(value, Mapping):
        for key, below in value.items():
            listed = below if isinstance(below, list) else [below]
            models = listed if key == "model" else []
            texts = [path for model in models for path in paths_in(model, folder)] + (listed if key in FILES else [])
            for text in texts:
                if isinstance(text, str):
                    path = Path(text).expanduser()
                    for file in expand(folder / path) if is_pattern(text) and key != "model" else [folder / path]:
                        yield file, path.is_absolute()
            yield from files_of(below, folder)
    elif isinstance(value, list):
        for below in value:
            yield from files_of(below, folder)


def relative_to_working_dir(path: Path, folder: Path) -> str:
    """`path` as a job names it that runs in `folder`; raises UserError for one that is elsewhere."""
    try:
        return path.resolve().relative_to(folder.resolve()).as_posix()
    except ValueError:
        raise UserError(
            f"is not in {folder}, the folder that is uploaded with the job; submit from a folder above it, choose "
            "one with --working-dir, or name data by an absolute path at which every node finds it",
            file=str(path),
        ) from None


def check_package(folder: Path, excludes: Sequence[str], needed: Sequence[Path]) -> None:
    """Raise UserError unless all of `needed` goes with `folder`, and Ray takes a folder of its size."""
    sent = package_files(folder, excludes)
    there = {above for file in sent for above in (file, *file.parents)}
    for path in needed:
        relative_to_working_dir(path, folder)
        if path.exists() and path.resolve() not in there:
            raise UserError(
                f"would not be uploaded with the job (excluded by .gitignore, .rayignore or one of {', '.join(excludes)}). Put it "
                "where every node finds it and name it by an absolute path, or set RAY_RUNTIME_ENV_IGNORE_GITIGNORE=1",
                file=str(path),
            )
    if (total := sum(sent.values())) >= (most := most_package_bytes()):
        largest = sorted(sent, key=lambda file: -sent[file])[:3]
        shown = ", ".join(f"{file} ({_mib(sent[file])})" for file in largest)
        raise UserError(
            f"{_mib(total)} would be uploaded, but Ray accepts less than {_mib(most)}; the largest: {shown}. List what "
            "the job does not need in .rayignore, name data by an absolute path at which every node finds it, or upload less with "
            "--working-dir",
            file=str(folder),
        )


def _mib(size: int) -> str:
    return f"{size / 2**20:.0f} MiB"
