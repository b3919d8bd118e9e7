"""Repositories of the local hub: model and data set repositories whose commits are folders."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

LARGE = (".safetensors", ".bin", ".parquet", ".arrow", ".tar", ".zip", ".jpg", ".png")
"""Ends of names of files that a hub keeps in its large file storage: their ETag is the SHA-256 of their bytes."""


@dataclass(frozen=True)
class Entry:
    """One file at one commit."""

    name: str
    path: Path

    @property
    def size(self) -> int:
        return self.path.stat().st_size

    @property
    def is_large(self) -> bool:
        return self.name.endswith(LARGE)

    @property
    def etag(self) -> str:
        """SHA-256 of a large file, else the hash that git gives to the blob."""
        return _etag(self.path, self.is_large)

    def describe(self) -> dict[str, Any]:
        """As the hub lists it in a tree."""
        found = {"type": "file", "path": self.name, "size": self.size, "oid": self.etag}
        return {**found, "lfs": {"oid": self.etag, "size": self.size, "pointerSize": 134}} if self.is_large else found


@lru_cache(maxsize=4096)
def _etag(path: Path, is_large: bool) -> str:
    content = path.read_bytes()
    if is_large:
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()  # as git names a blob


@dataclass
class Repository:
    """`commits` are folders by 40 hexadecimal digits; `branches` and `tags` name commits; one that is `gated` wants a token."""

    name: str
    commits: Mapping[str, Path]
    kind: str = "model"
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    gated: bool = False

    def __post_init__(self) -> None:
        self.branches.setdefault("main", list(self.commits)[-1])

    def commit(self, revision: str) -> str | None:
        """The commit that a branch, a tag, a commit or the beginning of one (7 digits or more) means."""
        if found := {**self.tags, **self.branches}.get(revision.removeprefix("refs/heads/")):
            return found
        hits = [commit for commit in self.commits if len(revision) >= 7 and commit.startswith(revision)]
        return hits[0] if len(hits) == 1 else None

    def entry(self, commit: str, name: str) -> Entry | None:
        path = self.commits[commit] / name
        return Entry(name, path) if path.is_file() else None

    def entries(self, commit: str) -> Iterator[Entry]:
        folder = self.commits[commit]
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                yield Entry(path.relative_to(folder).as_posix(), path)

    def info(self, commit: str) -> dict[str, Any]:
        """As the hub tells of a repository."""
        return {
            "_id": hashlib.sha256(self.name.encode()).hexdigest()[:24],
            "id": self.name,
            "modelId": self.name,
            "sha": commit,
            "private": False,
            "gated": "manual" if self.gated else False,
            "disabled": False,
            "tags": [],
            "downloads": 0,
            "likes": 0,
            "lastModified": "2026-01-01T00:00:00.000Z",
            "createdAt": "2026-01-01T00:00:00.000Z",
            "siblings": [{"rfilename": entry.name} for entry in self.entries(commit)],
        }

    def refs(self) -> dict[str, Any]:
        def listed(names: Mapping[str, str], kind: str) -> list[dict[str, str]]:
            return [{"name": n, "ref": f"refs/{kind}/{n}", "targetCommit": c} for n, c in names.items()]

        return {"branches": listed(self.branches, "heads"), "tags": listed(self.tags, "tags"), "converts": []}


def commit_of(seed: str) -> str:
    """A commit for a repository that is made up: 40 hexadecimal digits that `seed` decides."""
    return hashlib.sha256(seed.encode()).hexdigest()[:40]
