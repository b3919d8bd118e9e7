"""Which sweep a page or an experiment is of."""

from __future__ import annotations

from itertools import islice

import pytest
from made import write_sweep

from lmmcl.config.sweep import load_sweep
from lmmcl.tracking.sweep_identity import SweepIdentity, numbered, origin_of

TRIALS = {"a": "sa_proj · lr 1e-3 · tiny · s0", "b": "mlp · lr 1e-3 · tiny · s0"}


@pytest.mark.parametrize(("origin", "is_ours"), [("/x.yaml", True), ("/y.yaml", False), ("", True), (None, True)])
def test_a_sweep_is_known_by_its_file_where_that_is_known(origin: str | None, is_ours: bool) -> None:
    assert SweepIdentity("s", "/x.yaml", TRIALS).is_from(origin) is is_ours
    assert SweepIdentity("s", "", TRIALS).is_from(origin)


def test_and_by_a_trial_that_it_has_in_common() -> None:
    assert SweepIdentity("s", "/x.yaml", TRIALS).shares_a_trial({"b", "c"})
    assert not SweepIdentity("s", "/x.yaml", TRIALS).shares_a_trial(["c"])


def test_runs_are_named_by_what_differs() -> None:
    identity = SweepIdentity("s", "", TRIALS)
    assert [identity.run_name(name) for name in TRIALS.values()] == ["sa_proj", "mlp"]
    assert identity.run_name("full · lr 1e-4 · tiny · s0") == "full · lr 1e-4", "a search proposed it later"
    assert SweepIdentity("s").run_name("full · s0") == "full · s0"


def test_the_file_of_a_job_is_the_same_in_every_package_that_is_sent(tmp_path: object) -> None:
    from pathlib import Path

    folders = [Path(str(tmp_path), f"_ray_pkg_{digest}", "sweeps") for digest in ("0a1b", "ff00")]
    for folder in folders:
        folder.mkdir(parents=True)
    assert {origin_of(load_sweep(write_sweep(folder))) for folder in folders} == {"sweeps/small.yaml"}
    assert origin_of(load_sweep(write_sweep(Path(str(tmp_path))))) == f"{tmp_path}/small.yaml"


def test_further_sweeps_of_a_name_are_numbered() -> None:
    assert list(islice(numbered("quick"), 3)) == ["quick", "quick-2", "quick-3"]
