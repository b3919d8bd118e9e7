"""A folder on this node for a store that is elsewhere: results on their way to it, and copies of what was read from it.

What a step wrote waits in `staged/` until it is uploaded, so that a GPU need not wait for the network and a failed upload
costs no training; afterwards it is the first copy in `copies/`, where the next stage and the evaluations of this node find
it. Copies are held to their digests like everything that is read, and the oldest go when they take too much of the disk.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import uuid
from contextlib import suppress
from pathlib import Path

from lmmcl.temp_folder import user_temp_folder

SHARE = 0.25
"""Of the disk's free space (copies counted as free): what copies may take."""


class Node:
    """This node's folder for one store, in the folder for temporary files (TMPDIR)."""

    def __init__(self, store: str) -> None:
        name = hashlib.sha256(store.encode()).hexdigest()[:12]
        self.folder = user_temp_folder() / name

    def make_temp_dir(self, prefix: str) -> Path:
        """A new private folder."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return Path(tempfile.mkdtemp(prefix=prefix, dir=self.folder))

    def staged(self, key: str) -> Path:
        """Where the files of a step wait for their upload."""
        return self.folder / "staged" / key

    def stage(self, key: str, folder: Path) -> Path:
        """Let the private `folder`, which holds a record, wait for its upload."""
        target = self.staged(key)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(target, ignore_errors=True)
        folder.rename(target)
        return target

    def rooms(self, key: str) -> list[Path]:
        """The private folders for the step `key`."""
        return list(self.folder.glob(f"lmmcl-{key}-*"))

    def copy(self, at: str, name: str) -> Path | None:
        """The copy of a file of the upload `at`, or None."""
        path = self.folder / "copies" / at / name
        if not path.is_file():
            return None
        with suppress(FileNotFoundError):
            os.utime(path.parent if "/" not in name else self.folder / "copies" / at)  # used just now
        return path

    def keep(self, at: str, folder: Path) -> None:
        """Make a folder that was uploaded a copy, where there is room; else delete it."""
        target = self.folder / "copies" / at
        if target.exists() or not self._make_room(bytes_in(folder)):
            shutil.rmtree(folder, ignore_errors=True)
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        folder.rename(target)

    def keep_file(self, at: str, name: str, file: Path) -> None:
        """Make a file that was downloaded (to this node's folder) a copy, where there is room."""
        target = self.folder / "copies" / at / name
        if self._make_room(file.stat().st_size):
            target.parent.mkdir(parents=True, exist_ok=True)
            new = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
            os.link(file, new)
            new.replace(target)

    def forget(self, at: str, name: str) -> None:
        """Delete a copy that is not what was uploaded."""
        (self.folder / "copies" / at / name).unlink(missing_ok=True)

    def leavings(self) -> list[Path]:
        """Everything but copies: what is written here, waits for its upload, or for its stage to be resumed."""
        return [path for pattern in ("lmmcl-*", "staged/*", "runs/*") for path in self.folder.glob(pattern)]

    def _make_room(self, needed: int) -> bool:
        """Delete the copies that were not used for longest until `needed` bytes more are within the share."""
        ages = []
        for folder in self.folder.glob("copies/*"):
            with suppress(FileNotFoundError):
                ages.append((folder.stat().st_mtime, bytes_in(folder), folder))
        taken = sum(size for _, size, _ in ages)
        limit = SHARE * (shutil.disk_usage(self.folder).free + taken)
        for _, size, folder in sorted(ages):
            if taken + needed <= limit:
                break
            shutil.rmtree(folder, ignore_errors=True)
            taken -= size
        return taken + needed <= limit


def bytes_in(folder: Path) -> int:
    """Of all files below `folder`, which others may be writing or deleting."""
    total = 0
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):
            total += path.stat().st_size if path.is_file() else 0
    return total
