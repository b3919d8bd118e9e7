"""The files of one store, a folder or any fsspec URI: whole at once, patient with a store that is away, plain when it is full.

An object store may be out of reach for a moment: what failed is tried again for about a minute (`PATIENCE`), with a line
in the log, and only then raised. What waiting cannot improve (no such file, no permission) is raised at once.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import fsspec
from fsspec.implementations.local import LocalFileSystem

from lmmcl.back_off import BackOff
from lmmcl.errors import UserError
from lmmcl.ledger.packs import listing
from lmmcl.masking import mask

PATIENCE = BackOff(longest=32.0, retries=6)
"""About a minute. An object store's own client tries several times inside each."""
FINAL = (
    FileNotFoundError,
    FileExistsError,
    PermissionError,
    IsADirectoryError,
    NotADirectoryError,
    ImportError,
    LookupError,
    TypeError,
    ValueError,
    NotImplementedError,
)
HOPELESS = ("NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "ParamValidationError")
"""Errors of object stores' clients that waiting does not mend, by name: the clients may not be installed."""
LEAST_ROOM = 2**20
"""Bytes of a disk below which it counts as full."""
KEPT = "finished work is kept; run the same command to resume"

logger = logging.getLogger("lmmcl")


class StoreError(UserError):
    """A store that cannot be reached, or has no room left; nothing that was recorded is lost."""


class FullError(StoreError):
    """A disk (or a quota) without room: the same work written again would meet the same end."""


class Store:
    """Files by their names below `uri`. Cheap to create, picklable; opens its file system when first used."""

    def __init__(self, uri: str) -> None:
        self.uri = uri

    def __reduce__(self) -> tuple[Any, ...]:
        return (Store, (self.uri,))

    @cached_property
    def fs(self) -> fsspec.AbstractFileSystem:
        """The file system that the store's URI names."""
        if local_path(self.uri) is not None:  # a folder's name may hold what has a meaning in URIs: `::`, `#`, `%20`
            return LocalFileSystem()
        return fsspec.core.url_to_fs(self.uri, use_listings_cache=False)[0]

    @cached_property
    def root(self) -> str:
        """The store's path on that file system, without a slash at its end."""
        if (folder := local_path(self.uri)) is not None:
            return str(folder).rstrip("/")
        return str(fsspec.core.url_to_fs(self.uri)[1]).rstrip("/")

    @cached_property
    def is_local(self) -> bool:
        """Whether this is a folder of this machine's file system (NFS included)."""
        return isinstance(self.fs, LocalFileSystem)

    def at(self, name: str) -> Path:
        """The path of a file; of local stores alone."""
        return Path(self.root, name)

    def exists(self, name: str = "") -> bool:
        """Whether there is a file or folder of that name; without one, whether there is such a store."""
        path = f"{self.root}/{name}" if name else self.root
        return os.path.exists(path) if self.is_local else bool(self._patiently(self.fs.exists, path))  # noqa: PTH110 - as `read`

    def read(self, name: str, *, size: int | None = None) -> bytes:
        """A file, or at most its first `size` bytes; raises FileNotFoundError."""
        if self.is_local:
            with open(f"{self.root}/{name}", "rb") as file:  # noqa: PTH123 - thousands are read, and a Path takes as long
                return file.read(-1 if size is None else size)
        content: bytes = self._patiently(listing.fetch, self.fs, f"{self.root}/{name}", size)
        return content

    def write(self, name: str, content: bytes, *, synced: bool = False) -> None:
        """Put a file in the place of one, or of none, at once: an upload is atomic, and so is a rename.

        `synced`: a crash of the machine leaves the old file or the new one, whole, and once this returns the new one.
        """
        if not self.is_local:
            self._patiently(self.fs.pipe_file, f"{self.root}/{name}", content)
            return
        partial = self._written(name, content)
        if synced:
            listing.sync(partial)
        partial.replace(self.at(name))
        if synced:
            listing.sync(self.at(name).parent)

    def create(self, name: str, content: bytes) -> bool:
        """Write a file unless there is one; of several processes that try at once, one gets True.

        A link on a file system, a conditional put on an object store; where a store knows neither, the last writer wins.
        """
        if self.is_local:
            return self._linked(name, content)
        path = f"{self.root}/{name}"
        with suppress(FileExistsError):  # perhaps ours, where the answer to a first try was lost
            self._patiently(lambda: self.fs.pipe_file(path, content, mode="create"))
        with suppress(FileNotFoundError):
            return self.read(name) == content
        return False

    def _written(self, name: str, content: bytes) -> Path:
        path = self.at(name)
        partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            partial.write_bytes(content)
        except OSError as error:
            partial.unlink(missing_ok=True)
            if is_full(error):
                raise full(path.parent, self.root) from error
            raise
        return partial

    def _linked(self, name: str, content: bytes) -> bool:
        partial = self._written(name, content)
        try:
            os.link(partial, self.at(name))
        except FileExistsError:
            return partial.stat().st_nlink > 1  # ours after all: over a network the answer to a first try may be lost
        except OSError:  # a file system without links
            try:
                with self.at(name).open("xb") as file:
                    file.write(content)
            except FileExistsError:
                return False
        finally:
            partial.unlink()
        return True

    def put(self, local: Path, name: str) -> None:
        """Upload a local file."""
        self._patiently(self.fs.put_file, str(local), f"{self.root}/{name}")

    def get(self, name: str, local: Path) -> None:
        """Download a file; raises FileNotFoundError."""
        self._patiently(self.fs.get_file, f"{self.root}/{name}", str(local))

    def move(self, name: str, other: str) -> None:
        """Rename a file; raises FileNotFoundError."""
        if self.is_local:
            self.at(name).replace(self.at(other))
            return
        # fsspec's own `mv` would take `[` or `*` in a name for a pattern.
        self._patiently(self.fs.cp_file, f"{self.root}/{name}", f"{self.root}/{other}")
        self.remove(name)

    def remove(self, name: str) -> None:
        """Delete a file; raises FileNotFoundError (an object store may not)."""
        self._patiently(self.fs.rm_file, f"{self.root}/{name}")

    def remove_folder(self, name: str) -> None:
        """Delete a folder and all below, if there is one."""
        if self.is_local:
            if (folder := self.at(name)).exists():
                shutil.rmtree(folder)
            return
        for file in self.sizes(name):  # fsspec's own `rm` would take `[` or `*` in a name for a pattern
            with suppress(FileNotFoundError):
                self.remove(f"{name}/{file}")

    def sizes(self, folder: str) -> dict[str, int]:
        """Bytes of all files below `folder`, by their names in it; empty where there is no such folder."""
        root = f"{self.root}/{folder}".rstrip("/")
        if self.is_local:
            return listing.local_sizes(root)
        files = self._patiently(lambda: listing.list_files(self.fs, self.root, folder, detail=True))
        return {name.removeprefix(f"{root}/"): about["size"] or 0 for name, about in files.items()}

    def stamps(self, folder: str, ending: str | tuple[str, ...]) -> dict[str, str]:
        """Of the files below `folder` whose names end like this: size and tag (or time of change), by their whole names.

        Of a store that is elsewhere: one listing. A file that is written again has another stamp.
        """
        files = self._patiently(lambda: listing.list_files(self.fs, self.root, folder, detail=True))
        stamped = {str(name).removeprefix(f"{self.root}/"): listing.stamp_of(about) for name, about in files.items()}
        return {name: stamp for name, stamp in stamped.items() if name.endswith(ending)}

    def stamp(self, name: str) -> str | None:
        """Size and tag (or time of change) of a file; None where there is none, or the store has neither tags nor times."""
        stamp: str | None = self._patiently(listing.file_stamp, self.fs, f"{self.root}/{name}")
        return stamp

    def changed(self, name: str) -> float:
        """When a file was written, in seconds since 1970."""
        return float(self._patiently(self.fs.modified, f"{self.root}/{name}").timestamp())

    def matches(self, pattern: str) -> list[str]:
        """Names of the files that a pattern names, sorted: `*` stands for a part of a name, `**` for folders at any depth.

        The store's own path is never a pattern, whatever is in its name.
        """
        parts = pattern.split("/")
        fixed = next(place for place, part in enumerate(parts) if "*" in part or place == len(parts) - 1)
        depth = None if "**" in parts else len(parts) - fixed
        folder = "/".join(parts[:fixed])
        paths = (
            [entry.path for entry in listing.walk_files(f"{self.root}/{folder}".rstrip("/"), depth=depth)]
            if self.is_local
            else self._patiently(lambda: listing.list_files(self.fs, self.root, folder, depth=depth))
        )
        names = (str(path).removeprefix(f"{self.root}/") for path in paths)
        return sorted(filter(listing.name_pattern(pattern).fullmatch, names))

    def _patiently(self, call: Callable[..., Any], *arguments: Any) -> Any:
        """Call; an object store that is away is waited for, then StoreError is raised."""
        if self.is_local:
            return call(*arguments)
        started = time.monotonic()
        try:
            return PATIENCE.call(
                lambda: call(*arguments),
                is_transient=lambda error: _is_away(error) and type(error).__name__ not in HOPELESS,
                on_retry=lambda error, pause: logger.warning(
                    "store %s cannot be reached (%s); trying again in %g s", mask(self.uri), _line(error), pause
                ),
            )
        except Exception as error:
            if not _is_away(error):
                raise
            raise StoreError(
                f"cannot be reached ({_line(error)}), tried for {time.monotonic() - started:.0f} s; {KEPT}",
                file=f"store {self.uri}",
            ) from error


def local_path(store: str) -> Path | None:
    """The folder that a store's name means, as it is written or as a `file://` URI, in which `%20` is a space; None for others."""
    if store.startswith("file://"):
        return Path(unquote(store.removeprefix("file://").removeprefix("localhost")))
    return None if "://" in store else Path(store)


def _is_away(error: Exception) -> bool:
    """Whether an error may mean that the store is out of reach: each object store has errors of its own for that."""
    return not (isinstance(error, (*FINAL, UserError)) or is_full(error))


def is_full(error: BaseException | None) -> bool:
    """Whether an error, or what it was raised from, says that a disk (or a quota) is full; some libraries say so only in words."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if "No space left on device" in str(error) or "Disk quota exceeded" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def met_no_room(error: Exception, folder: Path) -> bool:
    """Whether an error of writing into `folder` means that its disk is full; torch's writer says only "unexpected pos"."""
    # `folder` itself may have been moved to where it waits for its upload.
    return is_full(error) or (isinstance(error, RuntimeError) and shutil.disk_usage(folder.parent).free < LEAST_ROOM)


def full(folder: Path, store: str) -> FullError:
    """The error of a full disk: where, and how to continue."""
    remedy = (
        "free some (`lmmcl gc SWEEP --dry-run` says which weights no step needs), or name another store with --store"
    )
    if not str(folder).startswith(store):
        remedy = "free some, or set TMPDIR to a larger disk"
    return FullError(f"no space left on device; {remedy}; {KEPT}", file=str(folder))


def _line(error: BaseException) -> str:
    return mask(f"{type(error).__name__}: {error}".splitlines()[0])
