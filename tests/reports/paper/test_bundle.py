"""A zip from which a sweep is repeated."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

from made import write_sweep
from pretended import SEARCH, Pretence, lmmcl, pretence, run, tell_provenance  # noqa: F401 - pretence is a fixture

from lmmcl.config.sweep import load_sweep
from lmmcl.ledger import Ledger
from lmmcl.reports.paper.bundle import write_bundle
from lmmcl.reports.results import SweepResults
from lmmcl.search.run_context import RunContext


def test_a_bundle_holds_what_repeats_the_sweep_and_is_the_same_each_time(
    tmp_path: Path,
    pretence: Pretence,  # noqa: F811
) -> None:
    sweep = write_sweep(tmp_path, SEARCH)
    tell_provenance(pretence)
    run(sweep)
    first, second = tmp_path / "a.zip", tmp_path / "b.zip"
    lmmcl(
        "report", sweep, "--store", tmp_path / "store", "--format", "zip", "--to", first, "--set", "grids[0].seed=[0]"
    )
    with zipfile.ZipFile(first) as bundle:
        names = set(bundle.namelist())
        assert names == {
            "README.md",
            "requirements.txt",
            "report.json",
            "small.yaml",
            "sweep.json",
            "table.tex",
            "trials.csv",
        }
        assert bundle.read("small.yaml").decode() == sweep.read_text()
        assert "lmmcl run small.yaml --set 'grids[0].seed=[0]'" in bundle.read("README.md").decode()
        assert bundle.read("requirements.txt").decode() == "lmmcl==0.1.0\ntorch==2.9.1\n"
        keys = {trial["key"] for trial in json.loads(bundle.read("sweep.json"))["trials"]}
    assert keys == {trial.key for trial in load_sweep(sweep).trials}
    for file in (first, second):
        write_small_bundle(sweep, tmp_path / "store", file)
    assert first.read_bytes() == second.read_bytes()


def write_small_bundle(sweep: Path, store: Path, to: Path) -> None:
    context = RunContext.resolve(load_sweep(sweep), Ledger(str(store)))
    write_bundle(context, SweepResults("small", []), to, {})
