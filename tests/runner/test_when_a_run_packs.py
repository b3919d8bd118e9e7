"""A run packs its records where the sweep has many trials, or as its cluster file says."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from lmmcl.config.cluster import Cluster
from lmmcl.runner.reporting import pack_finished


@pytest.mark.parametrize(
    ("setting", "trials", "packed"), [(None, 49, False), (None, 50, True), (True, 1, True), (False, 99, False)]
)
def test_small_sweeps_keep_files_that_any_editor_reads(setting: bool | None, trials: int, packed: bool) -> None:
    context: Any = SimpleNamespace(sweep=SimpleNamespace(trials=range(trials)))
    assert pack_finished.packs(Cluster(pack=setting), context) is packed
