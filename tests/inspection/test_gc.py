"""Space is freed where nobody will miss it: not under what is planned, not under what runs, and never unannounced."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from made import write_sweep
from typer.testing import CliRunner

from lmmcl.cli import app
from lmmcl.config.cluster import ClaimSettings
from lmmcl.config.sweep import Sweep, load_sweep
from lmmcl.errors import UserError
from lmmcl.inspection.gc import collect_garbage, freed_text
from lmmcl.ledger import Ledger
from lmmcl.ledger import leases as module
from lmmcl.ledger.leases import Leases
from lmmcl.ledger.pending_record import PARTIAL
from lmmcl.ledger.record import DroppedError
from lmmcl.steps import Evaluate, Finetune, Step

TEXT = """
name: NAME
orders: {main: [counting, LAST]}
benchmarks: {held_out: [colour]}
training: {max_steps: 2, examples: 16, global_batch_size: 8, precision: fp32}
evaluation: {precision: fp32, limit: 4}
grids:
  - {model: [tiny-onevision], recipe: [sa_proj], learning_rate: [1.0e-3]}
"""


def sweep_of(folder: Path, name: str, last: str = "clock") -> Sweep:
    return load_sweep(write_sweep(folder, TEXT.replace("NAME", name).replace("LAST", last), f"{name}.yaml"))


def stages(sweep: Sweep) -> list[Finetune]:
    return sorted((step for step in sweep.steps.values() if isinstance(step, Finetune)), key=lambda step: step.depth)


def finish(ledger: Ledger, *steps: Step) -> None:
    for step in steps:
        with ledger.writing(step) as draft:
            if isinstance(step, Finetune):
                (draft.folder / "delta.safetensors").write_text("weights")
            draft.commit({"score": 50.0, "sample_scores": [0.0, 1.0, 1.0, 0.0]} if isinstance(step, Evaluate) else {})


def kept_run(ledger: Ledger, key: str) -> str:
    ledger.files.write(f"runs/{key}/checkpoint-1/weights.bin", b"half")
    return f"runs/{key}"


@contextmanager
def at_work(ledger: Ledger, key: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Another machine computes the step `key`."""
    with monkeypatch.context() as patch:
        patch.setattr(module, "host_id", lambda: "another machine")
        claimed = Leases(ledger.files, ClaimSettings(), "another run").held([key])
        claimed.__enter__()
    yield
    claimed.__exit__(None, None, None)


@pytest.fixture(params=["local", "memory"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ledger:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "node"))
    (tmp_path / "node").mkdir()
    return Ledger(str(tmp_path / "store") if request.param == "local" else f"memory://{tmp_path.name}")


@pytest.fixture
def sweep(ledger: Ledger, tmp_path: Path) -> Sweep:
    """A finished one."""
    found = sweep_of(tmp_path, "mine")
    finish(ledger, *found.steps.values())
    return found


def test_a_dry_run_tells_all_that_goes_and_removes_nothing(ledger: Ledger, sweep: Sweep) -> None:
    first, last = stages(sweep)
    runs = {kept_run(ledger, last.key)}
    told = collect_garbage([sweep], ledger, dry_run=True)
    assert told.weights == {first.path: 7, last.path: 7} and set(told.runs) == runs and told.bytes == 18
    assert freed_text(told, dry_run=True).endswith(
        "18 B would be freed (2 checkpoints, 1 unfinished run); checkpoints still needed: 0"
    )
    assert ledger.has_usable(first) and ledger.sizes("runs")
    done = collect_garbage([sweep], ledger)
    assert done == told
    assert not ledger.has_usable(first) and not ledger.sizes("runs")
    assert freed_text(collect_garbage([sweep], ledger), dry_run=False) == "0 B freed; checkpoints still needed: 0"


def test_the_runs_of_stages_that_are_to_be_gone_on_with_stay(ledger: Ledger, tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path, "mine")
    kept_run(ledger, stages(sweep)[0].key)
    nobodys = kept_run(ledger, "0123456789abcdef")
    assert collect_garbage([sweep], ledger, dry_run=True).runs == {}
    assert set(collect_garbage([sweep], ledger, everything=True).runs) == {nobodys}
    assert set(ledger.sizes("runs")) == {f"{stages(sweep)[0].key}/checkpoint-1/weights.bin"}


def test_what_is_being_computed_stays_with_what_it_reads(
    ledger: Ledger, sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, last = stages(sweep)
    ledger.drop_weights(last.path)
    kept_run(ledger, last.key)
    with at_work(ledger, last.key, monkeypatch):  # something new wants it again
        freed = collect_garbage([sweep], ledger)
    assert (freed.weights, freed.runs, freed.kept, freed.others) == ({}, {}, 1, [])
    assert ledger.has_usable(first) and ledger.sizes("runs")
    freed = collect_garbage([sweep], ledger)
    assert set(freed.weights) == {first.path} and set(freed.runs) == {f"runs/{last.key}"}


def test_of_a_sweep_that_runs_and_is_not_named_a_person_is_told(
    ledger: Ledger, sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, last = stages(sweep_of(tmp_path, "other", "digits"))
    assert first.path == stages(sweep)[0].path, "they share the first stage"
    with at_work(ledger, last.key, monkeypatch):
        told = collect_garbage([sweep], ledger, everything=True, dry_run=True)
        assert "is computing steps of a sweep that is not named" in freed_text(told, dry_run=True)
        with pytest.raises(UserError, match=r"process \d+ on .* not named; name that sweep too"):
            collect_garbage([sweep], ledger, everything=True)
        assert ledger.has_usable(first)
        collect_garbage([sweep, sweep_of(tmp_path, "other", "digits")], ledger, everything=True)
        assert ledger.has_usable(first) and not ledger.has_usable(stages(sweep)[1])
        assert len(collect_garbage([sweep], ledger).others) == 1
    with pytest.raises(DroppedError), ledger.opened(first.path, "delta.safetensors"):
        pass  # the running process notices, and computes it again


def test_what_a_killed_process_was_writing_is_told_with_its_bytes(tmp_path: Path) -> None:
    ledger, sweep = Ledger(str(tmp_path / "store")), sweep_of(tmp_path, "mine")
    finish(ledger, *sweep.steps.values())
    with ledger.writing(stages(sweep)[0]) as draft:
        dead = draft.folder.with_name(draft.folder.name.replace(f"-{module.os.getpid()}-", "-999999999-"))
        dead.mkdir()
        (dead / "delta.safetensors").write_bytes(bytes(1000))
    told = collect_garbage([sweep], ledger, dry_run=True)
    assert told.abandoned == {f"{PARTIAL}/{dead.name}": 1000} and dead.exists()
    assert "1 abandoned folder" in freed_text(told, dry_run=True)
    assert collect_garbage([sweep], ledger).abandoned == told.abandoned
    assert not dead.exists()


def test_uploads_that_were_cut_off_and_made_again_go_after_a_week(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger, sweep = Ledger(f"memory://{tmp_path.name}"), sweep_of(tmp_path, "mine")
    first = stages(sweep)[0]
    finish(ledger, first)
    ledger.files.write(f"{first.path}/0a1b/delta.safetensors", b"cut off")
    assert collect_garbage([sweep], ledger).abandoned == {}, "it may be on its way"
    monkeypatch.setattr("lmmcl.inspection.gc.STALE", -1.0)
    told = collect_garbage([sweep], ledger, dry_run=True)
    assert (told.abandoned, told.weights, told.kept) == ({f"{first.path}/0a1b": 7}, {}, 1)
    assert collect_garbage([sweep], ledger) == told
    assert collect_garbage([sweep], ledger).abandoned == {}
    with ledger.opened(first.path, "delta.safetensors", quarantine=False) as path:
        assert path.read_text() == "weights"


def test_a_checkpoint_that_is_asked_for_by_name_after_its_weights_were_dropped_is_told_as_such(tmp_path: Path) -> None:
    ledger, sweep = Ledger(str(tmp_path / "store")), sweep_of(tmp_path, "mine")
    finish(ledger, *sweep.steps.values())
    collect_garbage([sweep], ledger)
    said = CliRunner().invoke(app, ["eval", stages(sweep)[0].key, "-b", "shape", "--store", ledger.store])
    assert isinstance(said.exception, UserError)
    assert "its weights were deleted by `lmmcl gc`" in str(said.exception) and stages(sweep)[0].path in str(
        said.exception
    )


def test_where_there_is_no_store_a_person_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"stroe does not exist.*--store"):
        collect_garbage([sweep_of(tmp_path, "mine")], Ledger(str(tmp_path / "stroe")))
    assert not (tmp_path / "stroe").exists()


def test_the_command_tells_the_same_in_words_and_in_json(tmp_path: Path) -> None:
    ledger, sweep = Ledger(str(tmp_path / "store")), sweep_of(tmp_path, "mine")
    finish(ledger, *sweep.steps.values())
    words = ["gc", str(tmp_path / "mine.yaml"), "--store", ledger.store, "--dry-run"]
    said = CliRunner().invoke(app, words)
    assert said.exit_code == 0 and all(step.path in said.output for step in stages(sweep))
    told = json.loads(CliRunner().invoke(app, [*words, "--json"]).output)
    assert told == {**collect_garbage([sweep], ledger, dry_run=True).to_dict()}
    assert set(told["weights"]) == {step.path for step in stages(sweep)}
