"""The end of a run: finished trials are packed, and a fault of packing costs nothing that was computed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from made import write_sweep
from pretended import Pretence, pretence, run, told  # noqa: F401 - a fixture

from lmmcl.config.cluster import ClaimSettings
from lmmcl.config.sweep import load_sweep
from lmmcl.ledger import Ledger
from lmmcl.ledger.leases import Leases
from lmmcl.ledger.record import RECORD
from lmmcl.runner.reporting import pack_finished
from lmmcl.steps import Finetune

pytestmark = pytest.mark.usefixtures("packed_runs")


def single(folder: Path) -> list[str]:
    return sorted(path.parent.name for path in (folder / "store").rglob(RECORD))


def test_finished_trials_are_packed_and_failed_ones_stay_single_files(tmp_path: Path, pretence: Pretence) -> None:  # noqa: F811
    def breaks(step: Any) -> None:
        if isinstance(step, Finetune) and step.recipe.name == "gate_up" and step.depth == 2:
            raise RuntimeError("broke")

    pretence.breaks = breaks
    sweep = write_sweep(tmp_path)
    assert run(sweep).exit_code == 1
    ledger = Ledger(str(tmp_path / "store"))
    finished = [trial for trial in load_sweep(sweep).trials if trial.recipe.name == "sa_proj"]
    for step in (step for trial in finished for step in trial.steps().values()):
        assert ledger.has(step) and not ledger.files.exists(f"{step.path}/{RECORD}")
    assert single(tmp_path), "the trials that failed are not packed"
    before = told("report", sweep)["trials"]
    pretence.breaks = lambda step: None
    assert run(sweep).exit_code == 0
    assert not single(tmp_path)
    assert [trial["stages"] for trial in told("report", sweep)["trials"] if trial["recipe"] == "sa_proj"] == [
        trial["stages"] for trial in before if trial["recipe"] == "sa_proj"
    ]
    assert "0 steps computed" in run(sweep).stdout


def test_a_cluster_file_can_leave_single_files(tmp_path: Path, pretence: Pretence) -> None:  # noqa: F811
    (tmp_path / "plain.yaml").write_text("pack: false\n")
    sweep = write_sweep(tmp_path)
    run(sweep, "--cluster", str(tmp_path / "plain.yaml"))
    assert single(tmp_path) and not (tmp_path / "store" / "packs").exists()
    run(sweep)
    assert not single(tmp_path)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), None])
def test_what_cannot_be_packed_fails_no_run(
    tmp_path: Path,
    pretence: Pretence,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    error: OSError | None,
) -> None:
    sweep = write_sweep(tmp_path)

    def pack(*_: Any) -> None:
        assert error is not None
        raise error

    if error:
        monkeypatch.setattr(pack_finished, "pack", pack)
        assert run(sweep).exit_code == 0
    else:
        ledger = Ledger(str(tmp_path / "store"))
        with Leases(ledger.files, ClaimSettings()).held(["of-another-sweep"]):
            assert run(sweep).exit_code == 0
    assert single(tmp_path) and not (tmp_path / "store" / "packs").exists()
    monkeypatch.undo()
