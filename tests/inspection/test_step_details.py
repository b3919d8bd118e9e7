from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from made import SWEEP, write_sweep
from rich.console import Console
from synthetic_ledger import fill, forget

from lmmcl.config.sweep import Sweep, load_sweep
from lmmcl.errors import UserError
from lmmcl.inspection.step_details import step_facts, step_table
from lmmcl.ledger import Ledger
from lmmcl.reports.failures import keep_failure
from lmmcl.steps import Merge, ProbeStep, Snapshot
from lmmcl.tracking.extras import resolved


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    return load_sweep(write_sweep(tmp_path_factory.mktemp("sweep"), SWEEP))


@pytest.fixture(scope="module")
def ledger(sweep: Sweep, tmp_path_factory: pytest.TempPathFactory) -> Ledger:
    store = tmp_path_factory.mktemp("store")
    fill(sweep, store, questions=20)
    ledger = Ledger(str(store))
    ledger.keep_text(f"reports/{sweep.name}/sweep.json", resolved(sweep))
    return ledger


def shown(ledger: Ledger, wanted: str) -> str:
    console = Console(file=io.StringIO(), width=200)
    console.print(step_table(step_facts(ledger, wanted)))
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_a_checkpoint_is_told_with_who_wants_it_what_it_came_from_and_how_to_get_it_again(
    sweep: Sweep, ledger: Ledger
) -> None:
    trial = sweep.trials[0]
    first, last = trial.stages[1].checkpoint, trial.stages[-1].checkpoint
    facts = step_facts(ledger, last.key)
    assert {"trial": trial.name, "stage": trial.stages[-1].number}.items() <= facts["wanted_by"][0].items()
    assert [each["key"] for each in facts["chain"]][-2:] == [first.key, trial.stages[0].checkpoint.key]
    text = shown(ledger, last.key)
    assert f"lmmcl run {sweep.file} --store {ledger.store}" in text and f"lmmcl export {last.key}" in text
    assert "against its parent" in text and "changed since" not in text and trial.name in text


def test_answers_to_a_benchmark_are_told_as_well(sweep: Sweep, ledger: Ledger) -> None:
    trial = sweep.trials[0]
    step = trial.stages[1].evaluations[0]
    facts = step_facts(ledger, step.key[:10])
    assert facts["kind"] == "evaluate" and facts["chain"][0]["key"] == trial.stages[1].checkpoint.key
    assert facts["export"] is None and {each["stage"] for each in facts["wanted_by"]} == {1}
    assert "over 20 questions" in shown(ledger, step.key)


def test_a_file_that_no_longer_says_so_is_told(sweep: Sweep, ledger: Ledger, tmp_path: Path) -> None:
    key, file = sweep.trials[0].stages[-1].checkpoint.key, Path(sweep.file)
    before = file.read_text(encoding="utf-8")
    try:
        file.write_text(before.replace("examples: 64", "examples: 32"), encoding="utf-8")
        assert "has changed since" in shown(ledger, key)
        file.unlink()
        assert "is not here" in shown(ledger, key)
    finally:
        file.write_text(before, encoding="utf-8")


def test_a_sweep_that_was_run_with_set_is_run_so_again(tmp_path: Path) -> None:
    sweep = load_sweep(write_sweep(tmp_path), ["training.epochs=2"])
    fill(sweep, tmp_path / "store", questions=5)
    ledger = Ledger(str(tmp_path / "store"))
    ledger.keep_text(f"reports/{sweep.name}/sweep.json", resolved(sweep))
    text = shown(ledger, sweep.trials[0].key)
    line = f"lmmcl run {sweep.file} --set training.epochs=2 --store {ledger.store}"
    assert "".join(line.split()) in "".join(text.split()), "a long path may be wrapped"
    assert "changed since" not in text


def test_a_step_that_no_sweep_wants_has_no_command_to_get_it_again(sweep: Sweep, tmp_path: Path) -> None:
    fill(sweep, tmp_path, questions=5)
    facts = step_facts(Ledger(str(tmp_path)), sweep.trials[0].stages[1].checkpoint.key)
    assert facts["wanted_by"] == [] and facts["reproduce"] is None
    assert "no sweep that was run" in shown(Ledger(str(tmp_path)), facts["record"]["key"])


def test_a_wrong_key_is_answered_with_the_near_ones(sweep: Sweep, ledger: Ledger) -> None:
    key = sweep.trials[0].stages[1].checkpoint.key
    wrong = key[:-1] + ("0" if key[-1] != "0" else "1")
    with pytest.raises(UserError, match=f"did you mean {key}"):
        step_facts(ledger, wrong)
    with pytest.raises(UserError, match="allowed"):
        step_facts(ledger, "no-such-label")


def test_a_snapshot_is_a_checkpoint_that_the_trials_of_its_stage_want(tmp_path: Path) -> None:
    inside = SWEEP + "probes: [{number_bias: {examples: 4, updates: [1]}}]\n"
    sweep, ledger = load_sweep(write_sweep(tmp_path, inside)), Ledger(str(tmp_path / "store"))
    fill(sweep, Path(ledger.store), questions=5)
    ledger.keep_text(f"reports/{sweep.name}/sweep.json", resolved(sweep))
    snapshot = next(step for step in sweep.steps.values() if isinstance(step, Snapshot))
    facts = step_facts(ledger, snapshot.key)
    wanted = {trial.name for trial in sweep.trials if snapshot.finetune.key in {s.checkpoint.key for s in trial.stages}}
    assert {each["trial"] for each in facts["wanted_by"]} == wanted != set()
    assert facts["export"].startswith(f"lmmcl export {snapshot.key}") and "lmmcl run" in facts["reproduce"]
    text = shown(ledger, snapshot.key)
    assert "changed since" not in text and "no sweep that was run" not in text
    probe = next(s for s in sweep.steps.values() if isinstance(s, ProbeStep) and s.checkpoint.key == snapshot.key)
    assert step_facts(ledger, probe.key)["wanted_by"] == facts["wanted_by"]


def test_a_probe_that_looks_at_the_base_too_is_told_as_one_of_its_checkpoint(tmp_path: Path) -> None:
    sweep = load_sweep(write_sweep(tmp_path, SWEEP + "probes: [{kl_from_base: {examples: 4}}]\n"))
    ledger = Ledger(str(tmp_path / "store"))
    fill(sweep, Path(ledger.store), questions=5)
    ledger.keep_text(f"reports/{sweep.name}/sweep.json", resolved(sweep))
    trial = sweep.trials[0]
    probe = next(step for step in trial.stages[2].asked if isinstance(step, ProbeStep))
    facts = step_facts(ledger, probe.key)
    assert [each["key"] for each in facts["chain"]] == [stage.checkpoint.key for stage in trial.stages[2::-1]]
    assert [(each["trial"], each["stage"]) for each in facts["wanted_by"]] == [(trial.name, 2)]


def test_a_fine_tune_under_a_merge_is_wanted_by_every_trial_that_merges_it(tmp_path: Path) -> None:
    merged = SWEEP.replace("recipe: [sa_proj, gate_up], learning_rate: [1.0e-3, 3.0e-4]", "recipe: [sa_proj], mitigation: "
        "[{wise_ft: {alpha: 0.5}}, {wise_ft: {alpha: 0.9}}]")  # fmt: skip
    sweep, ledger = load_sweep(write_sweep(tmp_path, merged)), Ledger(str(tmp_path / "store"))
    fill(sweep, Path(ledger.store), questions=5)
    ledger.keep_text(f"reports/{sweep.name}/sweep.json", resolved(sweep))
    first, second = sweep.trials
    shared = first.stages[1].tuned
    assert shared is not None and shared.key != first.stages[1].checkpoint.key
    wanted = step_facts(ledger, shared.key)["wanted_by"]
    assert [(each["trial"], each["stage"]) for each in wanted] == [(first.name, 1), (second.name, 1)]
    text = shown(ledger, shared.key)
    assert first.name in text and "lmmcl run" in text and "changed since" not in text
    alone = step_facts(ledger, first.stages[2].checkpoint.key)["wanted_by"]
    assert [(each["trial"], each["stage"]) for each in alone] == [(first.name, 2)]


@pytest.mark.parametrize(("rule", "recipe"), [("ties", "sa_proj"), ("mr_lora", "{name: low, adapter: {rank: 8}}")])
def test_what_a_merge_combines_or_chooses_among_is_shown(tmp_path: Path, rule: str, recipe: str) -> None:
    grid = f"recipe: [{recipe}], mitigation: [{rule}], learning_rate: [1.0e-3]"
    text = SWEEP.replace("recipe: [sa_proj, gate_up], learning_rate: [1.0e-3, 3.0e-4]", grid)
    sweep, ledger = load_sweep(write_sweep(tmp_path, text)), Ledger(str(tmp_path / "store"))
    fill(sweep, Path(ledger.store), questions=5)
    merge = sweep.trials[0].stages[2].checkpoint
    assert isinstance(merge, Merge)
    facts = step_facts(ledger, merge.key)
    first, second = merge.finetunes
    assert facts["merges"] == [first.path, second.path]
    assert facts["router"] == (merge.router.path if merge.router else None)
    assert [step["key"] for step in facts["chain"]] == [second.key, merge.anchor.key], "not by way of a router"
    named = f"{first.path.rsplit('/', 1)[1]}, {second.path.rsplit('/', 1)[1]}"
    line = next(line for line in shown(ledger, merge.key).splitlines() if line.startswith(("merges", "experts")))
    assert line.startswith("experts" if merge.router else "merges") and named[:80] in line


def test_a_sweep_that_an_earlier_version_wrote_down_tells_what_it_holds(sweep: Sweep, tmp_path: Path) -> None:
    ledger = Ledger(str(tmp_path))
    fill(sweep, tmp_path, questions=5)
    said = json.loads(resolved(sweep))
    for trial in said["trials"]:
        del trial["fine_tunes"]
    ledger.keep_text(f"reports/{sweep.name}/sweep.json", json.dumps(said))
    assert step_facts(ledger, sweep.trials[0].stages[1].checkpoint.key)["wanted_by"]


def test_a_trial_that_failed_is_told_with_the_end_of_its_log_by_key_or_name(sweep: Sweep, tmp_path: Path) -> None:
    ledger, trial = Ledger(str(tmp_path)), sweep.trials[0]
    fill(sweep, tmp_path, questions=5)
    why = "the worker died\nthe end of its log:\nKilled [9]"
    keep_failure(ledger, trial, why, "Traceback (most recent call last)")
    told = shown(ledger, trial.key)
    assert "fine" in told and "Killed [9]" in told, "its last checkpoint is recorded: that is shown, with why it failed"
    assert step_facts(ledger, trial.stages[1].checkpoint.key)["failed"] is None
    forget(ledger, trial.stages[-1])
    for wanted in (trial.key, trial.key[:8], trial.name):
        assert step_facts(ledger, wanted)["why"] == why
        text = shown(ledger, wanted)
        assert trial.name in text and "Killed [9]" in text and "Traceback (most recent call last)" in text
    assert step_facts(Ledger(str(tmp_path)), trial.stages[1].checkpoint.key)["kind"] == "finetune"


def test_a_step_whose_record_is_damaged_is_refused_with_the_remedy(sweep: Sweep, tmp_path: Path) -> None:
    fill(sweep, tmp_path, questions=5)
    step = sweep.trials[0].stages[1].evaluations[0]
    record = tmp_path / step.path / "record.json"
    record.write_bytes(record.read_bytes()[:-9])
    with pytest.raises(UserError, match="its record is damaged; `lmmcl ledger check --repair`"):
        step_facts(Ledger(str(tmp_path)), step.key)


def test_a_record_without_a_label_is_shown_all_the_same(sweep: Sweep, tmp_path: Path) -> None:
    fill(sweep, tmp_path, questions=5)
    step = sweep.trials[0].stages[1].checkpoint
    record = tmp_path / step.path / "record.json"
    fields = json.loads(record.read_text())
    del fields["label"]
    record.write_text(json.dumps(fields))
    assert step.path in shown(Ledger(str(tmp_path)), step.key)
