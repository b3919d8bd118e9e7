"""The code of the bench of stage turn-arounds runs."""

from __future__ import annotations

from pathlib import Path

import pytest
import turnaround


@pytest.mark.slow
def test_a_rehearsal_measures_this_build_in_two_processes(tmp_path: Path) -> None:
    turnaround.write(tmp_path, 1, small=True)
    row = turnaround.run(tmp_path, Path(__file__).parents[2])
    assert row["turns"] == turnaround.STAGES - 1
    assert 0 < row["floor_cpu"] < row["cpu"]
    earlier = {**row, "seconds": 8 * row["seconds"], "cpu": 6 * row["cpu"]}
    words = turnaround.table({"this build": [row], "the earlier build": [earlier, row]})
    assert "Turn-around 1.0 times as fast by the clock, 1.0 times in CPU time" in words
    words = turnaround.table({"this build": [row], "the earlier build": [earlier]})
    assert "Turn-around 8.0 times as fast by the clock, 6.0 times in CPU time; the goal is 5." in words
