"""The store that is meant, and others nearby in which the work is done already."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from made import SWEEP, write_sweep
from synthetic_ledger import fill, forget
from typer.testing import CliRunner

from lmmcl.cli import app
from lmmcl.config.sweep import Sweep, load_sweep
from lmmcl.ledger import Ledger
from lmmcl.planning.nearby_stores import store_state


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sweep:
    monkeypatch.delenv("LMMCL_STORE", raising=False)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return load_sweep(write_sweep(tmp_path / "here", SWEEP))


def test_a_plan_begins_with_the_store(sweep: Sweep, tmp_path: Path) -> None:
    command = ["plan", sweep.file, "--store", str(tmp_path / "store")]
    assert CliRunner().invoke(app, command).output.splitlines()[0] == f"store   {tmp_path / 'store'} (new)"
    fill(sweep, tmp_path / "store", questions=2)
    assert CliRunner().invoke(app, command).output.splitlines()[0] == f"store   {tmp_path / 'store'}"
    assert json.loads(CliRunner().invoke(app, [*command, "--json"]).output)["store"] == str(tmp_path / "store")


@pytest.mark.parametrize("where", ["here/lmmcl-store", "siblings of the store", "named"])
def test_a_finished_sweep_in_a_store_nearby_is_pointed_to(
    sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    other = tmp_path / where
    if where == "named":
        other = tmp_path / "far" / "away" / "named"
        monkeypatch.setenv("LMMCL_STORE", str(other))
    fill(sweep, other, questions=2)
    found = store_state(sweep, Ledger(str(tmp_path / "store")))
    assert found.finished_in == (str(other),)
    assert f"finished in {other}; to use what is there: --store" in found.lines()[1]
    fill(sweep, tmp_path / "store", questions=2)
    assert store_state(sweep, Ledger(str(tmp_path / "store"))).finished_in == (), "this one has it all itself"


def test_a_store_with_a_part_of_the_sweep_is_not_called_finished(sweep: Sweep, tmp_path: Path) -> None:
    fill(sweep, tmp_path / "other", questions=2)
    forget(Ledger(str(tmp_path / "other")), sweep.trials[0].stages[-1])
    (tmp_path / "no-store").mkdir()
    assert store_state(sweep, Ledger(str(tmp_path / "store"))).finished_in == ()
