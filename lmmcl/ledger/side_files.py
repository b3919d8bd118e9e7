"""Small files beside the records, sealed like them: decisions of searches, verdicts, why trials failed, sweeps as understood.

    <store>/searches/…/*.json · <store>/failures/*.txt · <store>/reports/<sweep>/sweep.json, origin.txt ·
    <store>/judgements/…/*.json

None of them is a result. One that was cut or changed counts as missing, which is said once; a run writes it again.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from lmmcl.ledger.record import DamagedError, seal_json, unseal_json
from lmmcl.ledger.store import Store

PATTERNS = (
    "searches/**/*.json",
    "failures/*.txt",
    "reports/*/sweep.json",
    "reports/*/origin.txt",
    "judgements/*/*.json",
)
ASIDE = ".damaged"
_TEXT_SEAL = re.compile(r"\n--- sha256 ([0-9a-f]{64}) ---\n?\Z")
_DAMAGED_SEAL = re.compile(r"---[^\n]*[0-9a-f]{30}|sha256[^\n]*[0-9a-f]{30}|[0-9a-f]{30}[^\n]*---")
"""What is left of a checksum in which a few characters were changed."""

log = logging.getLogger("lmmcl")


def encode(name: str, text: str) -> bytes:
    """The content of the file `name`: `text` with its checksum."""
    if name.endswith(".json"):
        return seal_json(text)
    text = text.removesuffix("\n")
    return f"{text}\n--- sha256 {hashlib.sha256(text.encode()).hexdigest()} ---\n".encode()


def read_object(files: Store, name: str) -> dict[str, Any] | None:
    """What a JSON file says, None where there is none. Raises DamagedError."""
    try:
        return unseal_json(files.read(name))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise damaged(files, name, str(error)) from error


def read_text(files: Store, name: str) -> str | None:
    """What a text file says, None where there is none; one without a checksum is trusted. Raises DamagedError."""
    try:
        text = files.read(name).decode()
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        raise damaged(files, name, "is not valid text") from error
    seal = _TEXT_SEAL.search(text)
    if seal is None:
        if _DAMAGED_SEAL.search(text[-90:]):
            raise damaged(files, name, "has a damaged checksum")
        return text
    if hashlib.sha256(text[: seal.start()].encode()).hexdigest() != seal[1]:
        raise damaged(files, name, "does not match its checksum")
    return text[: seal.start()]


def damaged(files: Store, name: str, why: str) -> DamagedError:
    """The error of a file beside the records that cannot be used."""
    remedy = (
        "it counts as missing: a run of its sweep writes it again where it is needed, and "
        "`lmmcl ledger check --repair` quarantines it"
    )
    return DamagedError(f"{why}; {remedy}", file=f"{files.uri}/{name}")


def quarantine(files: Store, name: str) -> None:
    """Rename a damaged file, so that a new one can be written."""
    with suppress(FileNotFoundError):  # another process has seen it too
        files.move(name, f"{name}{ASIDE}")


def find_damaged(files: Store) -> Iterator[tuple[str, str]]:
    """(name, why) of each file beside the records that was cut or changed."""
    for pattern in PATTERNS:
        for name in files.matches(pattern):
            try:
                read_object(files, name) if name.endswith(".json") else read_text(files, name)
            except DamagedError as error:
                yield name, error.message.partition(";")[0]


class Warnings:
    """Says of each damaged file once that it counts as missing: a watched sweep reads it again every few seconds."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def say(self, error: DamagedError) -> None:
        """Log `error` unless it was logged before."""
        if str(error) not in self._said:
            self._said.add(str(error))
            log.warning("%s", error)


WARNINGS = Warnings()
