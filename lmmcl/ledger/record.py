"""What a finished step left, and whether its files are still what was written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmmcl.errors import UserError
from lmmcl.ledger.record_form import find_wrong_field

RECORD = "record.json"
ASIDE = "record.damaged.json"
"""A record that was quarantined."""
WEIGHTS = ".safetensors"
KINDS = ("checkpoints", "scores", "probes")
"""The folders of a store that hold steps."""

_VERIFIED: set[tuple[int, int, int, int]] = set()
"""Local files that this process found whole: device, inode, time of change, size. A link to one is as good."""


_SEAL = b', "seal": "'


class DamagedError(UserError):
    """A stored file that is not what its record says: truncated, changed or missing."""


class DroppedError(DamagedError):
    """Weights that `lmmcl gc` dropped; as with damaged ones, a run that needs them recomputes them."""


@dataclass(frozen=True)
class Record:
    """What a finished step left: its fields (results, cost, provenance) and where its files are."""

    path: str
    fields: Mapping[str, Any]

    def __getitem__(self, name: str) -> Any:
        if name not in self.fields:
            raise DamagedError(
                f"the record has no {name!r}; delete it to have the step recomputed", file=f"{self.path}/{RECORD}"
            )
        return self.fields[name]

    @property
    def files(self) -> Mapping[str, Mapping[str, Any]]:
        """Bytes and SHA-256 of each file, by its name below the step's folder; empty in records that have none."""
        files: Mapping[str, Mapping[str, Any]] = self.fields.get("files", {})
        return files

    @property
    def folder(self) -> str:
        """Where the files are, below the store."""
        return f"{self.path}/{self.fields['at']}" if "at" in self.fields else self.path

    @property
    def has_weights(self) -> bool:
        """Whether weights, if the step ends in some, are there still (see `lmmcl gc`)."""
        return "dropped" not in self.fields

    @property
    def dropped(self) -> Sequence[str]:
        """Names of the files that `lmmcl gc` dropped."""
        names: Sequence[str] = self.fields.get("dropped_files", ())
        return names


def encode_record(fields: Mapping[str, Any]) -> bytes:
    """A record as it is stored: JSON with the SHA-256 of all that comes before as its last entry."""
    return seal_json(json.dumps(fields, allow_nan=False))


def decode_record(content: bytes) -> dict[str, Any]:
    """What a record says; raises ValueError when it was cut or changed. One without a seal is taken at its word."""
    return valid_fields(unseal_json(content))


def valid_fields(fields: Any) -> dict[str, Any]:
    """The fields of a record; raises ValueError where they are not those of one, or hold what readers could not use."""
    if not isinstance(fields, dict) or not {"key", "kind", "parents"} <= fields.keys():
        raise ValueError("is not a valid record")
    if wrong := find_wrong_field(fields):
        raise ValueError(f"is not a valid record: {wrong}")
    return fields


def seal_json(text: str) -> bytes:
    """The JSON text of an object with one more entry, its last: the SHA-256 of all that comes before."""
    content = text.rstrip().removesuffix("}").rstrip().encode()
    return content + _SEAL + hashlib.sha256(content).hexdigest().encode() + b'"}'


def unseal_json(content: bytes) -> dict[str, Any]:
    """The object that was sealed; raises ValueError when it was cut or changed. One without a seal is taken at its word."""
    try:
        fields = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError("is truncated or not valid JSON") from error
    if not isinstance(fields, dict):
        raise ValueError("is not a JSON object")
    seal = fields.pop("seal", None)
    if seal is not None and seal != hashlib.sha256(content.rpartition(_SEAL)[0]).hexdigest():
        raise ValueError("does not match its checksum")
    return fields


def step_files(folder: Path) -> list[Path]:
    """All files of a step but its record."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / RECORD)


def file_checksum(path: Path) -> dict[str, Any]:
    """What a record says of a file."""
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def find_mismatch(path: Path, checksum: Mapping[str, Any]) -> str | None:
    """In what a local file differs from what its record says, or None. A file is read once a process."""
    if not path.is_file():
        return "is missing"
    state = path.stat()
    if state.st_size != checksum["bytes"]:
        return f"has {state.st_size} bytes, not the {checksum['bytes']} that were written"
    seen = (state.st_dev, state.st_ino, state.st_mtime_ns, state.st_size)
    if seen not in _VERIFIED:
        if file_checksum(path)["sha256"] != checksum["sha256"]:
            return "checksum mismatch"
        _VERIFIED.add(seen)
    return None


def home_of(path: str, name: str) -> tuple[str, str]:
    """The folder of the step, and the file's name below it: `path` may be a folder inside the step's."""
    parts = path.split("/")
    depth = 3 if parts[0] == "checkpoints" else 4
    return "/".join(parts[:depth]), "/".join([*parts[depth:], name])
