"""Encoded questions on this machine's disk: a process that asks a benchmark for the first time reads what another one prepared.

A file is named by what its rows are made of: the model's processor, the benchmark with its data, the limit, the versions of the
libraries, and the state of this package's own source. It begins with a checksum and appears at once; the least recently used files
go when together they exceed LMMCL_QUESTION_CACHE_MB megabytes (512; 0 keeps none). Anybody may delete the folder at any time.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from lmmcl.errors import UserError
from lmmcl.tasks.examples import Example, Message
from lmmcl.tasks.files.digest import cache_folder

VARIABLE = "LMMCL_QUESTION_CACHE_MB"
DEFAULT_MB = 512
LARGEST_SHARE = 0.25
"""Of the limit that one benchmark may take: one of large photographs would displace all others."""
DIGEST_BYTES = 32
PACKAGE = Path(__file__).parents[1]
SUFFIX, PART = ".questions", ".part"
LIBRARIES = ("torch", "torchvision", "transformers", "tokenizers", "pillow", "numpy")

log = logging.getLogger(__name__)

Row = tuple[Example, dict[str, Tensor]]


def question_cache() -> QuestionCache | None:
    """This user's cache, or None where LMMCL_QUESTION_CACHE_MB is 0; raises UserError where it is not a number."""
    text = os.environ.get(VARIABLE, str(DEFAULT_MB))
    try:
        megabytes = float(text)
    except ValueError:
        raise UserError(f"a number of megabytes is expected, not {text!r}", place=VARIABLE) from None
    return QuestionCache(cache_folder() / "questions", int(megabytes * 1e6)) if megabytes > 0 else None


class QuestionCache:
    """Encoded benchmarks below `folder`, at most `limit` bytes of them."""

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self.limit = folder, limit

    def get(self, key: str) -> list[Row] | None:
        """The rows put under `key`; None where they are not there, or the file is damaged (it is removed then)."""
        payload = self._read(key)
        return None if payload is None else _unpacked(payload)

    def examples(self, key: str) -> list[Example] | None:
        """The examples of these rows alone, without their tensors."""
        payload = self._read(key)
        return None if payload is None else _unpacked_examples(payload)

    def _read(self, key: str) -> bytes | None:
        path = self._path(key)
        try:
            content = path.read_bytes()
        except OSError:
            return None
        payload = memoryview(content)[DIGEST_BYTES:]
        if hashlib.sha256(payload).digest() != content[:DIGEST_BYTES]:
            path.unlink(missing_ok=True)
            return None
        with suppress(OSError):
            os.utime(path)  # read just now: others go first
        return bytes(payload)

    def put(self, key: str, rows: list[Row], size: int) -> None:
        """Keep `rows`, which take about `size` bytes, where they are not too large and can be written down exactly."""
        if size > LARGEST_SHARE * self.limit or (payload := _packed(rows)) is None:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=self.folder, suffix=PART)
            part = Path(name)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(hashlib.sha256(payload).digest())
                    file.write(payload)
                part.replace(self._path(key))
            finally:
                part.unlink(missing_ok=True)
            self._make_room()
        except OSError as error:  # a full disk, most often; the questions are encoded each time then
            log.debug("encoded questions were not kept in %s: %s", self.folder, error)

    def _path(self, key: str) -> Path:
        name = hashlib.sha256("\0".join([_code(), key]).encode()).hexdigest()[:32]
        return self.folder / f"{name}{SUFFIX}"

    def _make_room(self) -> None:
        """Delete the least recently used files beyond the limit, and what a killed process left half-written."""
        files = []
        for path in self.folder.iterdir():
            with suppress(FileNotFoundError):  # another process makes room, too
                files.append((path.stat().st_mtime, path.stat().st_size, path))
        total = sum(size for _, size, _ in files)
        for _, size, path in sorted(files):
            if total <= self.limit:
                return
            path.unlink(missing_ok=True)
            total -= size


def _packed(rows: list[Row]) -> bytes | None:
    """The rows as bytes; None where an example holds more than JSON can say."""
    try:
        examples = json.dumps([_plain(example) for example, _ in rows])
    except (TypeError, ValueError):
        return None
    if [_example(plain) for plain in json.loads(examples)] != [example for example, _ in rows]:
        return None
    tensors = {
        f"{number}/{name}": tensor.clone().contiguous()  # rows may share memory, which the format has not
        for number, (_, encoded) in enumerate(rows)
        for name, tensor in encoded.items()
    }
    return save(tensors, {"examples": examples, "names": json.dumps([list(encoded) for _, encoded in rows])})


def _unpacked(payload: bytes) -> list[Row] | None:
    try:
        tensors = load(payload)
        header = _header(payload)
        examples, names = json.loads(header["examples"]), json.loads(header["names"])
    except (SafetensorError, ValueError, KeyError):
        return None
    return [
        (_example(plain), {name: tensors[f"{number}/{name}"] for name in names[number]})
        for number, plain in enumerate(examples)
    ]


def _unpacked_examples(payload: bytes) -> list[Example] | None:
    try:
        return [_example(plain) for plain in json.loads(_header(payload)["examples"])]
    except (ValueError, KeyError):
        return None


def _header(payload: bytes) -> dict[str, str]:
    """The texts that safetensors keeps before the tensors; raises ValueError or KeyError where there are none."""
    length = int.from_bytes(payload[:8], "little")
    texts: dict[str, str] = json.loads(payload[8 : 8 + length])["__metadata__"]
    return texts


def _plain(example: Example) -> dict[str, Any]:
    return {
        "id": example.id,
        "messages": [[message.role, message.content] for message in example.messages],
        "answers": list(example.answers),
        "metadata": dict(example.metadata),
    }


def _example(plain: dict[str, Any]) -> Example:
    return Example(
        id=plain["id"],
        messages=tuple(Message(role, content) for role, content in plain["messages"]),
        answers=tuple(plain["answers"]),
        metadata=plain["metadata"],
    )


@cache
def _code() -> str:
    """The versions of what encodes, and the state of this package's source: another one may draw or encode otherwise."""
    versions = []
    for name in LIBRARIES:
        with suppress(PackageNotFoundError):
            versions.append(f"{name} {version(name)}")
    root = PACKAGE
    states = [f"{path.relative_to(root)} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in _sources(root)]
    return hashlib.sha256("\n".join([*versions, str(root), *states]).encode()).hexdigest()


def _sources(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.suffix in (".py", ".txt", ".json") and path.is_file())
