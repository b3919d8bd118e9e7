"""The last of the fault suite: how many faults the tests before it, of all files, have survived."""

from __future__ import annotations

import pytest
from chaos import Table

pytestmark = [pytest.mark.slow, pytest.mark.faults]

PARTS = (
    "in training",
    "asks benchmarks",
    "driver",
    "actor",
    "job",
    "node",
    "head",
    "group",
    "memory",
    "files",
    "inside",
    "store (S3)",
    "MLflow",
)


def test_at_least_forty_faults_of_all_kinds_were_survived(table: Table) -> None:
    assert table.faults >= 40, table.text()
    assert min(table.begun_again, len(table.made_again)) >= 10, f"most came in the middle of something: {table.text()}"
    told = " ".join(row[0] for row in table.rows)
    assert [part for part in PARTS if part not in told] == []
