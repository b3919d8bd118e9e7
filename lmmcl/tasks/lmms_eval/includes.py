"""Files that an own task of lmms-eval reads: those in its folder enter its key by their content, and others are refused.

Looked at are the task's `include`, `dataset_path`, and the `data_files` and `data_dir` of its `dataset_kwargs`. What the task's
own functions open is theirs alone to know.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from lmmcl.errors import UserError
from lmmcl.tasks.files.digest import DigestCache, state_of

BUILDERS = ("arrow", "csv", "imagefolder", "json", "pandas", "parquet", "text")
"""What `dataset_path` may be instead of the name of a data set: how local files are read."""
_INCLUDE = re.compile(r"""^["']?include["']?[ \t]*:[ \t]*(\S.*|(?:\n[ \t]*-.*)+)""", re.MULTILINE)
_GLOB = re.compile(r"[*?\[]")


def _is_seen(path: Path) -> bool:
    """Whether the content of a file at `path`, relative to its folder, enters the folder's digest."""
    return not any(part.startswith(".") or part == "__pycache__" for part in path.parts)


def folder_digest(folder: Path) -> str:
    """SHA-256 that stands for the names and bytes of all files below a folder (compiled and hidden ones apart)."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and _is_seen(path.relative_to(folder))]
    digests = DigestCache().digests([state_of(path) for path in files])
    named = [(path.relative_to(folder).as_posix(), digest) for path, digest in zip(files, digests, strict=True)]
    return hashlib.sha256(json.dumps(named).encode()).hexdigest()


def check_inside(file: Path, config: Mapping[str, Any], folder: Path, shipped: Path) -> None:
    """Raises UserError for what the task in `file` reads on this machine from outside of `folder`: no key would hold it.

    lmms-eval's own tasks below `shipped` may be included, for its version is in the key.
    """
    for by, included in _included(file, {file}):
        if not (_holds(folder, included) or included.resolve().is_relative_to(shipped.resolve())):
            raise _outside(by, "include", included, folder)
    for place, value in _paths(config):
        if (local := _local(value, place, file.parent, config)) is not None and not _holds(folder, local):
            raise _outside(file, place, local, folder)


def _outside(file: Path, place: str, path: Path, folder: Path) -> UserError:
    return UserError(
        f"{path} is not among the files of {folder}, by whose content a task enters its key (hidden ones are not): a change of it "
        "would go unseen; put it into the folder",
        file=str(file),
        place=place,
    )


def _holds(folder: Path, path: Path) -> bool:
    """Whether `path` lies in `folder` by its place, not behind a link to a folder elsewhere, and enters the digest."""
    place = path.resolve() if path.is_dir() else path.parent.resolve() / path.name
    root = folder.resolve()
    return place.is_relative_to(root) and _is_seen(place.relative_to(root))


def _included(file: Path, known: set[Path]) -> Iterator[tuple[Path, Path]]:
    """The files that `file` includes, and those that they include, each with the one that names it; `known` grows by them."""
    for text in _INCLUDE.findall(file.read_text(encoding="utf-8", errors="replace")):
        included = yaml.safe_load(text)
        for name in [included] if isinstance(included, str) else included:
            path = file.parent / name
            yield file, path
            if path not in known:
                known.add(path)
                yield from _included(path, known)


def _paths(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What may be paths, with the setting that holds them."""
    settings = config.get("dataset_kwargs") or {}
    if config.get("dataset_path"):
        yield "dataset_path", str(config["dataset_path"])
    for name in ("data_dir", "data_files"):
        yield from ((f"dataset_kwargs.{name}", text) for text in _texts(settings.get(name)))


def _texts(value: Any) -> Iterator[str]:
    """All texts in a text, or in lists and mappings of them."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(part)


def _local(value: str, place: str, beside: Path, config: Mapping[str, Any]) -> Path | None:
    """The file or folder on this machine that is meant; None for a data set's name, an address, and files of a hub's data set."""
    if "://" in value or (place == "dataset_path" and value in BUILDERS):
        return None
    fixed = Path(_fixed(value)).expanduser()
    if fixed.is_absolute() or value.startswith("."):
        return beside / fixed
    source = str(config.get("dataset_path"))
    if place != "dataset_path" and source not in BUILDERS and not Path(source).expanduser().exists():
        return None
    for folder in (beside, Path.cwd()):
        if (folder / fixed).exists():
            return folder / fixed
    return beside / fixed if source in BUILDERS else None


def _fixed(path: str) -> str:
    """The part of a pattern such as `rows/*.parquet` that stands before its first wildcard."""
    parts = Path(path).parts
    wild = next((at for at, part in enumerate(parts) if _GLOB.search(part) or part == "**"), len(parts))
    return str(Path(*parts[:wild]))
