"""A store of nine steps, in a folder or elsewhere."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem
from packed_ledger import STEPS, compute

from lmmcl.ledger import Ledger


@pytest.fixture(params=["folder", "elsewhere"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ledger]:
    place = str(tmp_path / "store") if request.param == "folder" else f"memory://packs-{uuid.uuid4().hex}"
    ledger = Ledger(place)
    for step in STEPS:
        compute(ledger, step)
    yield ledger
    if request.param == "elsewhere":
        MemoryFileSystem().rm(place.removeprefix("memory:/"), recursive=True)


@pytest.fixture
def local(tmp_path: Path) -> Ledger:
    ledger = Ledger(str(tmp_path / "store"))
    for step in STEPS:
        compute(ledger, step)
    return ledger
