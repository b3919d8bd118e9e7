"""Optuna proposes points of drawn axes; the store keeps them, so that a search continues as if it had never been interrupted."""

from __future__ import annotations

import importlib.util
import json
import math
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from made import write_sweep
from pretended import SEARCH, Pretence, lmmcl, pretence, rates, run, told  # noqa: F401 - pretence is a fixture

from lmmcl.config.sweep import load_sweep
from lmmcl.errors import UserError
from lmmcl.ledger import Ledger
from lmmcl.ledger.record import seal_json
from lmmcl.search.search_state import Proposals, with_proposals

DRAWN = SEARCH.replace("[1.0e-6, 1.0e-5, 1.0e-4, 1.0e-3]", "{log_uniform: [1.0e-6, 1.0e-3]}") + (
    "search: {optuna: {trials: 6, startup: 3, objectives: {learning: max, held_out_forgetting: max}}}\n"
)
FINITE = DRAWN.replace("{log_uniform: [1.0e-6, 1.0e-3]}", "{choice: [1.0e-5, 1.0e-4]}, global_batch_size: {int_uniform: [8, 9]}")  # fmt: skip


def proposed(sweep: Path) -> list[dict[str, Any]]:
    """The points of the only search of a sweep, in their order."""
    (space,) = load_sweep(sweep).spaces
    return [dict(each.point) for each in Proposals(space, Ledger(str(sweep.parent / "store"))).known]


def without_optuna(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name, *more: None if name == "optuna" else found(name, *more)
    )


def elsewhere(folder: Path, text: str) -> Path:
    folder.mkdir()
    return write_sweep(folder, text)


def test_as_many_trials_as_asked_for_are_proposed_walked_and_reported(tmp_path: Path, pretence: Pretence) -> None:  # noqa: F811
    sweep = write_sweep(tmp_path, DRAWN)
    plan = told("plan", sweep)
    (search,) = plan["searches"]
    assert (search["num_points"], search["proposed"], search["to_propose"], search["steps_each"]) == (6, 0, 6, 18)
    done = run(sweep)
    assert done.exit_code == 0, done.output
    trials = told("report", sweep)["trials"]
    assert rates(trials, state="done") == sorted(point["learning_rate"] for point in proposed(sweep))
    assert len(set(rates(trials))) == 6
    assert all(1e-6 <= rate <= 1e-3 and float(f"{rate:.3g}") == rate for rate in rates(trials))
    assert told("status", sweep)["searches"][0]["proposed"] == 6
    assert "6 of 6 points proposed" in lmmcl("plan", sweep, "--store", tmp_path / "store").output
    key = with_proposals(load_sweep(sweep), Ledger(str(tmp_path / "store"))).trials[-1].stages[-1].checkpoint.key
    wanted = json.loads(lmmcl("show", key, "--store", tmp_path / "store", "--json").output)["wanted_by"]
    assert len(wanted) == 1, "a proposed trial is known to want its steps"


def test_a_rerun_of_a_finished_search_computes_and_proposes_nothing(
    tmp_path: Path,
    pretence: Pretence,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sweep = write_sweep(tmp_path, DRAWN)
    run(sweep)
    before, points = len(pretence.computed), proposed(sweep)
    without_optuna(monkeypatch)  # nothing is left to ask it for
    again = run(sweep)
    assert "0 steps computed" in again.output and len(pretence.computed) == before
    assert proposed(sweep) == points


def test_a_search_that_was_killed_goes_on_as_if_it_had_not_been(tmp_path: Path, pretence: Pretence) -> None:  # noqa: F811
    whole = elsewhere(tmp_path / "whole", DRAWN)
    run(whole)

    killed = elsewhere(tmp_path / "killed", DRAWN)
    started = []

    def dies(step: Any) -> None:
        started.append(step)
        if len(started) == 13:  # the pre-trained model and four trials of three stages: within the fourth
            raise KeyboardInterrupt

    pretence.breaks = dies
    assert run(killed).exit_code == 130
    early = proposed(killed)
    assert len(early) == 4
    pretence.breaks = lambda step: None
    assert run(killed).exit_code == 0
    assert proposed(killed)[:4] == early
    assert proposed(killed) == proposed(whole)


def test_more_trials_go_on_with_the_same_search_and_fewer_show_its_beginning(
    tmp_path: Path,
    pretence: Pretence,  # noqa: F811
) -> None:
    sweep = write_sweep(tmp_path, DRAWN.replace("trials: 6", "trials: 3"))
    run(sweep)
    first = proposed(sweep)
    write_sweep(tmp_path, DRAWN)
    run(sweep)
    assert proposed(sweep)[:3] == first and len(proposed(sweep)) == 6
    write_sweep(tmp_path, DRAWN.replace("trials: 6", "trials: 2"))
    assert len(told("report", sweep)["trials"]) == 2


def test_another_seed_or_objective_is_another_search(tmp_path: Path) -> None:
    def key(text: str) -> str:
        return load_sweep(write_sweep(tmp_path, text)).spaces[0].key

    assert key(DRAWN) == key(DRAWN.replace("trials: 6", "trials: 60").replace("name: small", "name: other"))
    assert key(DRAWN) == key(DRAWN.replace("[colour, shape]", "[colour]")), "a benchmark may be added later"
    others = [("startup: 3", "startup: 3, seed: 1"), ("learning: max", "overall: max"), ("1.0e-3]", "2.0e-3]")]
    assert len({key(DRAWN), *(key(DRAWN.replace(*change)) for change in others)}) == 4


def test_listed_values_are_trials_or_searches_of_their_own(tmp_path: Path, pretence: Pretence) -> None:  # noqa: F811
    text = DRAWN.replace("recipe: [sa_proj]", "recipe: [sa_proj, gate_up]").replace("trials: 6", "trials: 2")
    text = text.replace("search:", "  - {model: [tiny-onevision], recipe: [llm], learning_rate: [1.0e-5]}\nsearch:")
    sweep = write_sweep(tmp_path, text)
    assert run(sweep).exit_code == 0
    trials = told("report", sweep)["trials"]
    assert {name: len(rates(trials, recipe=name)) for name in ("llm", "sa_proj", "gate_up")} == {
        "llm": 1,
        "sa_proj": 2,
        "gate_up": 2,
    }


def test_recipes_may_be_chosen_by_the_search(tmp_path: Path, pretence: Pretence) -> None:  # noqa: F811
    text = DRAWN.replace("recipe: [sa_proj]", "recipe: {choice: [sa_proj, gate_up]}, mitigation: {choice: [null, {wise_ft: {alpha: 0.5}}]}")  # fmt: skip
    sweep = write_sweep(tmp_path, text)
    assert run(sweep).exit_code == 0
    trials = told("report", sweep)["trials"]
    assert len(trials) == 6 and {trial["recipe"] for trial in trials} == {"sa_proj", "gate_up"}
    assert {(p["recipe"], p["mitigation"]) for p in proposed(sweep)} <= {
        (recipe, mitigation) for recipe in ("sa_proj", "gate_up") for mitigation in ("none", "wise_ft(alpha=0.5)")
    }


def test_a_space_with_fewer_points_than_asked_for_is_walked_once(tmp_path: Path, pretence: Pretence) -> None:  # noqa: F811
    sweep = write_sweep(tmp_path, FINITE)
    assert told("plan", sweep)["searches"][0]["num_points"] == 4
    assert run(sweep).exit_code == 0
    points = [json.dumps(point, sort_keys=True) for point in proposed(sweep)]
    assert len(points) == len(set(points)) == 4
    assert "0 steps computed" in run(sweep).output


def test_points_whose_trials_were_stopped_are_avoided(tmp_path: Path) -> None:
    from lmmcl.search.optuna import OptunaSampler

    (space,) = load_sweep(write_sweep(tmp_path, DRAWN.replace("startup: 3", "startup: 10"))).spaces
    drawn: dict[float, list[float]] = {}
    for limit in (3.0, 1.0):  # in powers of ten above the lowest rate; the higher the rate, the more is learnt
        seeker, drawn[limit] = OptunaSampler(space, []), []
        for number in range(40):
            rate = seeker.propose(number, 0)["learning_rate"]
            x = math.log10(rate) + 6
            measures = {"learning": 25 * x, "held_out_forgetting": 0.0}
            seeker.tell(number, 0, measures, broken_by=max(0.0, x - limit))
            drawn[limit].append(x)
    assert drawn[3.0][:10] == drawn[1.0][:10], "the first are drawn at random"
    assert median(drawn[3.0][10:]) > 2.5
    assert 0.6 < median(drawn[1.0][10:]) < 1.3


def test_after_three_failures_in_a_row_no_more_points_are_proposed(tmp_path: Path, pretence: Pretence) -> None:  # noqa: F811
    def broken(step: Any) -> None:
        if step.kind == "finetune":
            raise RuntimeError("the machine is too small")

    pretence.breaks = broken
    sweep = write_sweep(tmp_path, DRAWN)
    failed = run(sweep)
    assert failed.exit_code == 1 and "the machine is too small" in failed.output
    assert len(proposed(sweep)) == 3
    pretence.breaks = lambda step: None
    assert run(sweep).exit_code == 0
    assert len(proposed(sweep)) == 6
    assert {trial["state"] for trial in told("report", sweep)["trials"]} == {"done"}


def test_two_runs_that_propose_at_once_agree_on_the_points(tmp_path: Path) -> None:
    (space,) = load_sweep(write_sweep(tmp_path, DRAWN)).spaces
    ledger = Ledger(str(tmp_path / "store"))
    one, other = Proposals(space, ledger), Proposals(space, ledger)
    assert one.add({"learning_rate": 1e-4}).point == {"learning_rate": 1e-4}
    assert other.add({"learning_rate": 2e-4}).point == {"learning_rate": 1e-4}, "the first keeps its place"
    other.add({"learning_rate": 3e-4})
    one.read()
    assert [each.point for each in one.known] == [each.point for each in other.known]


def test_proposed_trials_are_found_by_name(tmp_path: Path, pretence: Pretence) -> None:  # noqa: F811
    sweep = write_sweep(tmp_path, DRAWN)
    run(sweep)
    first, second = with_proposals(load_sweep(sweep), Ledger(str(tmp_path / "store"))).trials[:2]
    found = lmmcl("compare", sweep, first.name, second.key[:10], "--store", tmp_path / "store", "--json")
    assert json.loads(found.stdout)["first"] == first.name


OTHERS_TRIAL = {"point": {"learning_rate": 1e-4}, "trial": "0123456789abcdef"}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ('{"point": {"epochs": 3}}', "is not a valid point of"),
        ('{"point": {"learn', "is truncated or not valid JSON"),
        (json.dumps(OTHERS_TRIAL), "its point belongs to trial"),
        (seal_json(json.dumps(OTHERS_TRIAL)).decode().replace("0.0001", "0.0002"), "does not match its checksum"),
    ],
)
def test_a_point_that_was_damaged_is_named_counts_as_missing_and_is_proposed_again(
    tmp_path: Path,
    pretence: Pretence,  # noqa: F811
    content: str,
    told: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    sweep = write_sweep(tmp_path, DRAWN)
    run(sweep)
    (space,) = load_sweep(sweep).spaces
    file = tmp_path / "store" / "searches" / space.key / "00001.json"
    whole = json.loads(file.read_text())
    file.write_text(content)
    assert len(with_proposals(load_sweep(sweep), Ledger(str(tmp_path / "store"))).trials) == 1
    assert f"{file}: {told}" in caplog.text
    assert lmmcl("status", sweep, "--store", tmp_path / "store").exit_code == 0
    run(sweep)
    assert json.loads(file.read_text()) == whole, "the same point, from the same results"
    assert file.with_name("00001.json.damaged").read_text() == content


def test_without_optuna_the_run_says_what_to_install_and_spends_nothing(
    tmp_path: Path,
    pretence: Pretence,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    without_optuna(monkeypatch)
    with pytest.raises(UserError, match=r"small\.yaml: search\.optuna: .*pip install 'lmmcl\[optuna\]'"):
        run(write_sweep(tmp_path, DRAWN))
    assert not pretence.computed
