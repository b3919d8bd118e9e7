"""Ours beside theirs: published figures are found by what was computed, and shown with where they stand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from synthetic_ledger import fill
from typer.testing import CliRunner

from lmmcl.cli import app
from lmmcl.config.sweep import Sweep, load_sweep
from lmmcl.errors import UserError
from lmmcl.ledger import Ledger
from lmmcl.measures import MEASURES
from lmmcl.reports.collect import collect
from lmmcl.reports.published.published import hold_against
from lmmcl.reports.published.published_file import FOLDER, MEANS, RETENTIONS, publications
from lmmcl.reports.seeds import averaged
from lmmcl.search.search_state import Proposals
from lmmcl.tasks import benchmark_names, skill_names

SWEEPS = Path(__file__).parents[3] / "sweeps"
LLM = "llm · lr 5e-6 · llava-onevision-7b · s0"


def small(folder: Path, name: str = "paper", **changes: str) -> Path:
    """A sweep that ships, with some of its grid."""
    grids = changes.pop("grids")
    text = (SWEEPS / f"{name}.yaml").read_text(encoding="utf-8").partition("grids:")[0]
    file = folder / f"{name}.yaml"
    file.write_text(f"{text}grids:\n  - {grids}\n", encoding="utf-8")
    return file


def beside(sweep: Sweep, store: Path):
    return hold_against(sweep, collect(sweep, Ledger(str(store))))


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("published")
    file = small(folder, grids="{model: [llava-onevision-7b], recipe: [llm, sa_qkv], seed: [0]}")
    fill(load_sweep(file), folder / "store", questions=40)
    return file, folder / "store"


def test_every_paper_s_sweep_has_its_file_and_every_figure_a_place_and_a_trial_that_ships() -> None:
    papers = publications()
    assert {name for paper in papers for name in paper.sweeps} == {
        "paper", "paper_orders", "easier", "tailor", "mllm_cl",
    }  # fmt: skip
    trials = [trial for path in SWEEPS.glob("*.yaml") for trial in load_sweep(path).trials]
    for paper in papers:
        assert paper.source.split(" ")[-1] and (paper.figures or paper.claims)
        for figure in paper.figures:
            assert figure.where
            assert any(figure.of.covers(trial) for trial in trials), (
                f"{paper.source}: {figure.of} is not a trial that ships"
            )
    assert sum(len(figure.values) for paper in papers for figure in paper.figures) >= 60


def test_quantities_of_shipped_figures_are_measures_or_names_that_there_are() -> None:
    for paper in publications():
        for quantity in {name.partition("@")[0] for figure in paper.figures for name in figure.values}:
            kind, _, rest = quantity.partition("/")
            if kind == "score":
                assert rest in {*skill_names(), *benchmark_names()}
            elif kind == "cell":
                assert set(rest.split("/")) <= {"id", "ood"}
            else:
                assert quantity in {*MEASURES, *MEANS, *RETENTIONS}


def test_our_value_stands_beside_theirs_at_the_stage_that_it_is_of(recorded: tuple[Path, Path]) -> None:
    sweep = load_sweep(recorded[0])
    found = beside(sweep, recorded[1])
    llm, other = found.trials
    assert other.trial.axes["recipe"] == "sa_qkv" and other.rows == ()
    values = {(row.quantity, row.stage): row for row in llm.rows}
    learning = values["learning", 5]
    assert learning.ours == llm.trial.measure("learning") and learning.interval == llm.trial.interval("learning")
    assert learning.published == 31.8
    assert learning.difference == pytest.approx(llm.trial.measure("learning") - 31.8)
    second = llm.trial.stages[2].scores
    mean = sum(second[name] for name in llm.trial.held_out) / len(llm.trial.held_out)
    assert values["held_out_mean", 2].ours == pytest.approx(mean)
    assert values["held_out_mean", 2].published == 66.4
    assert all(values["held_out_mean", stage].approximate for stage in range(6)) and not learning.approximate


def test_another_learning_rate_mitigation_or_order_is_another_setting(tmp_path: Path) -> None:
    for grids in (
        "{model: [llava-onevision-7b], recipe: [llm], learning_rate: [1.0e-6], seed: [0]}",
        "{model: [llava-onevision-7b], recipe: [llm], mitigation: [{wise_ft: {alpha: 0.5}}], seed: [0]}",
        "{model: [llava-onevision-0.5b], recipe: [llm], seed: [0]}",
    ):
        with pytest.raises(UserError, match="no trial of this sweep has a published figure"):
            beside(load_sweep(small(tmp_path, grids=grids)), tmp_path)
    orders = load_sweep(SWEEPS / "paper_orders.yaml")
    covered = [trial for trial in orders.trials if any(f.of.covers(trial) for p in publications() for f in p.figures)]
    assert {trial.order for trial in covered} == {"main"}


def covered(sweep: Sweep) -> list[bool]:
    """Whether a trial has a published figure, trial by trial."""
    papers = publications()
    return [any(figure.of.covers(trial) for paper in papers for figure in paper.figures) for trial in sweep.trials]


def test_a_recipe_is_what_it_trains_whatever_a_sweep_calls_it(tmp_path: Path) -> None:
    recipes = "{name: first, train: [llm.blocks.0]}, {name: mine, train: [llm.blocks.*.attention]}"
    grids = f"{{model: [llava-onevision-7b], recipe: [{recipes}], seed: [0]}}"
    assert covered(load_sweep(small(tmp_path, grids=grids))) == [False, True]
    ranks = "{lora_all: {rank: 8, alpha: 16}}, {lora: {rank: 8, alpha: 16}}, {lora_all: {rank: 4, alpha: 16}}"
    grids = f"{{model: [llava-1.5-7b], recipe: [{ranks}], learning_rate: [1.0e-4], seed: [0]}}"
    assert covered(load_sweep(small(tmp_path, "easier", grids=grids))) == [True, False, False]
    bare = "{name: a, train: [llm.blocks.last-12, llm.embeddings, llm.norm, llm.head, projector]}"
    mixed = "{name: b, train: [llm.blocks.last-12], adapter: {kind: lora, targets: [llm.blocks.0.mlp]}}"
    grids = f"{{model: [llava-1.5-7b], recipe: [{bare}, {mixed}], order: [okvqa], seed: [0]}}"
    assert covered(load_sweep(small(tmp_path, "tailor", grids=grids))) == [True, False]


def test_other_held_out_benchmarks_are_another_setting(tmp_path: Path) -> None:
    file = small(tmp_path, grids="{model: [llava-onevision-7b], recipe: [llm], seed: [0]}")
    text = file.read_text(encoding="utf-8")
    for change, same in (("mmstar, ai2d, chartqa", True), ("ai2d, chartqa", False)):  # the order plays no part
        file.write_text(text.replace("ai2d, chartqa", change).replace("scienceqa_img, mmstar", "scienceqa_img"))
        assert covered(load_sweep(file)) == [same]


def test_a_trial_that_taught_or_asked_less_says_so(tmp_path: Path) -> None:
    file = small(tmp_path, grids="{model: [llava-onevision-7b], recipe: [llm], seed: [0]}")
    text = file.read_text(encoding="utf-8")
    assert "limited to" not in report(file, tmp_path / "store")
    less = text.replace("training: {", "training: {examples: 100, max_steps: 7, ")
    file.write_text(less.replace("evaluation: {", "evaluation: {limit: 20, "), encoding="utf-8")
    said = "ours is limited to 100 training examples of each skill, 7 updates of each stage, 20 questions of each benchmark"
    figures = json.loads(report(file, tmp_path / "store", "published", "--format", "json"))["trials"][0]["figures"]
    assert figures and all(each["note"].endswith(said) for each in figures)
    assert said in " ".join(report(file, tmp_path / "store").split())


def test_the_mean_over_seeds_is_held_against_a_figure(tmp_path: Path) -> None:
    sweep = load_sweep(small(tmp_path, grids="{model: [llava-onevision-7b], recipe: [llm], seed: [0, 1]}"))
    fill(sweep, tmp_path / "store", questions=20)
    results = collect(sweep, Ledger(str(tmp_path / "store")))
    [row] = hold_against(sweep, averaged(results)).trials
    single = [trial.measure("learning") for trial in results.trials]
    assert next(each.ours for each in row.rows if each.quantity == "learning") == pytest.approx(sum(single) / 2)


def test_cells_of_the_2x2_and_the_h_score_are_compared(tmp_path: Path) -> None:
    easier = load_sweep(
        small(
            tmp_path,
            "easier",
            grids="{model: [qwen2.5-vl-3b], recipe: [projector], learning_rate: [1.0e-6], seed: [0]}",
        )
    )
    tailor = load_sweep(small(tmp_path, "tailor", grids="{model: [llava-1.5-7b], recipe: [{name: mine, train: [llm.blocks.last-12, llm.embeddings, llm.norm, llm.head, projector]}], mitigation: [{dare: {drop: 0.9}}], order: [okvqa], seed: [0]}"))  # fmt: skip
    for sweep in (easier, tailor):
        fill(sweep, tmp_path / "store", questions=20)
    [beside_easier] = beside(easier, tmp_path / "store").trials
    ours = {row.quantity: row.ours for row in beside_easier.rows}
    cell = next(cell for cell in beside_easier.trial.last.cells if (cell.image, cell.text) == ("ood", "ood"))
    assert ours["cell/ood/ood"] == cell.change
    assert ours["score/imagenet_vqa"] == beside_easier.trial.last.scores["imagenet_vqa"]
    [beside_tailor] = beside(tailor, tmp_path / "store").trials
    ours = {row.quantity: row.ours for row in beside_tailor.rows}
    scores = beside_tailor.trial.last.scores
    assert ours == {
        "mean_score": pytest.approx(sum(scores.values()) / len(scores)),
        "h_score": beside_tailor.trial.measure("h_score"),
    }


def test_figures_that_others_tell_and_that_were_read_off_pictures_are_marked(recorded: tuple[Path, Path]) -> None:
    papers = {paper.sweeps[0]: paper for paper in publications()}
    told = {name: [bool(figure.second_hand) for figure in paper.figures] for name, paper in papers.items()}
    assert all(told["easier"]) and sum(told["paper"]) == 2 and sum(told["tailor"]) == 4
    assert "2505.18713" in papers["tailor"].figures[0].second_hand
    for figure in papers["paper"].figures:
        means = {name for name in figure.values if name.startswith("held_out_mean@")}
        assert means <= set(figure.approximate)
    table = " ".join(report(*recorded).split())
    assert "≈ was read off a picture" in table and "≈ 66.4" in table
    assert "cannot all be of one trial: arXiv 2510.08564: the abstract's held-out change of llm, −23.3" in table
    read = json.loads(report(*recorded, "published", "--format", "json"))
    assert read["contradictions"] and {each["second_hand"] for each in read["trials"][0]["figures"]} == {""}


def test_the_figures_of_both_rates_of_vision_and_projector_are_there() -> None:
    easier = next(paper for paper in publications() if paper.sweeps == ("easier",))
    found = {
        (figure.of.recipe, figure.of.learning_rate): (
            figure.values["score/imagenet_vqa"],
            figure.values["cell/ood/ood"],
        )
        for figure in easier.figures
        if figure.of.recipe in ("vision", "projector")
    }
    assert found == {
        ("vision", 1e-5): (91.08, -2.76),
        ("vision", 1e-6): (90.96, 0.49),
        ("projector", 1e-5): (89.68, -0.26),
        ("projector", 1e-6): (86.86, 0.05),
    }


def test_retention_is_the_score_over_the_pre_trained_and_over_the_fine_tuned(tmp_path: Path) -> None:
    """Model Tailor's about 99 % of the original tasks and 97 % of the new one."""
    recipe = "{name: mine, train: [llm.blocks.last-12, llm.embeddings, llm.norm, llm.head, projector]}"
    patch = "{model_tailor: {keep: 0.1, salience: 0.8, other: keep}}"
    grids = f"{{model: [llava-1.5-7b], recipe: [{recipe}], mitigation: [MITIGATIONS], order: [okvqa], seed: [0, 1]}}"
    sweep = load_sweep(small(tmp_path, "tailor", grids=grids.replace("MITIGATIONS", f"none, {patch}")))
    fill(sweep, tmp_path / "store", questions=20)
    results = averaged(collect(sweep, Ledger(str(tmp_path / "store"))))
    plain, patched = hold_against(sweep, results).trials
    rows = {row.quantity: row for row in patched.rows}

    def mean(trial, stage: int, names) -> float:
        return sum(trial.trial.stages[stage].scores[name] for name in names) / len(names)

    held_out = patched.trial.held_out
    assert rows["original_retention"].ours == pytest.approx(
        100 * mean(patched, 1, held_out) / mean(patched, 0, held_out)
    )
    assert rows["target_retention"].ours == pytest.approx(100 * mean(patched, 1, ["okvqa"]) / mean(plain, 1, ["okvqa"]))
    assert (rows["original_retention"].published, rows["target_retention"].published) == (99, 97)
    alone = load_sweep(small(tmp_path, "tailor", grids=grids.replace("MITIGATIONS", patch)))
    [only] = hold_against(alone, averaged(collect(alone, Ledger(str(tmp_path / "store"))))).trials
    values = {row.quantity: row.ours for row in only.rows}
    assert values["target_retention"] is None and values["original_retention"] is not None


def report(sweep: Path, store: Path, *more: str):
    words = ["report", str(sweep), "--store", str(store), "--against", *(more or ("published",))]
    return CliRunner().invoke(app, words, catch_exceptions=False).stdout


def test_json_table_and_markdown_hold_every_trial(recorded: tuple[Path, Path]) -> None:
    read = json.loads(report(*recorded, "published", "--format", "json"))
    llm, bare = read["trials"]
    assert (llm["name"], bare["figures"]) == (LLM, [])
    assert {(each["quantity"], each["published"]) for each in llm["figures"]} >= {
        ("learning", 31.8),
        ("held_out_mean", 66.9),
    }
    assert all(each["source"].startswith("arXiv 2510.08564: ") for each in llm["figures"])
    table = report(*recorded)
    assert "+31.8" in table and "≈ 76.4" in table and "nothing published" in table and "2 pixmo_count" in table
    assert "does not say for which" in table and "claimed without a figure: arXiv 2510.08564" in table
    assert "| 31.8" not in report(*recorded, "published", "--format", "md").replace("+31.8", "")
    with pytest.raises(UserError, match="unknown format of --against 'csv'"):
        report(*recorded, "published", "--format", "csv")


def test_what_is_not_recorded_yet_is_left_open_and_said(tmp_path: Path) -> None:
    file = small(tmp_path, grids="{model: [llava-onevision-7b], recipe: [llm], seed: [0]}")
    read = json.loads(report(file, tmp_path, "published", "--format", "json"))
    assert {each["ours"] for each in read["trials"][0]["figures"]} == {None}
    assert "values of ours are not recorded yet" in report(file, tmp_path)


def test_trials_that_a_search_proposed_are_held_against_figures_too(tmp_path: Path) -> None:
    drawn = "{model: [llava-onevision-7b], recipe: [llm], learning_rate: {choice: [5.0e-6, 1.0e-6]}, seed: [0]}"
    file = small(tmp_path, grids=drawn)
    search = "search: {optuna: {trials: 2, objectives: {learning: max}}}\n"
    file.write_text(file.read_text(encoding="utf-8") + search, encoding="utf-8")
    (space,) = load_sweep(file).spaces
    proposals = Proposals(space, Ledger(str(tmp_path / "store")))
    for rate in (1e-6, 5e-6):
        proposals.add({"learning_rate": rate})
    other, same = json.loads(report(file, tmp_path / "store", "published", "--format", "json"))["trials"]
    assert other["figures"] == [] and 31.8 in [each["published"] for each in same["figures"]]


def test_a_sweep_without_any_is_refused_with_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(UserError) as told:
        report(SWEEPS / "quickstart.yaml", tmp_path)
    assert "llava-onevision-7b" in str(told.value) and "sweeps/tailor.yaml" in str(told.value)
    with pytest.raises(UserError, match=r"claimed without a figure: arXiv 2603\.14493, continual"):
        report(SWEEPS / "mllm_cl.yaml", tmp_path)


def test_figures_of_one_s_own_are_read_from_a_file_and_checked(recorded: tuple[Path, Path], tmp_path: Path) -> None:
    text = (FOLDER / "lmm_cl.yaml").read_text(encoding="utf-8")
    own = tmp_path / "own.yaml"
    own.write_text(text.replace("learning: 31.8", "learning: 12.5"), encoding="utf-8")
    assert "+12.5" in report(*recorded, str(own))
    own.write_text(text.replace("{learning: 31.8", "{lerning: 31.8"), encoding="utf-8")
    with pytest.raises(UserError, match=r"figures\[2\]\.values: unknown quantity 'lerning'; did you mean 'learning'"):
        report(*recorded, str(own))
    own.write_text(text.replace("recipe: gate_up", "recipe: gateup"), encoding="utf-8")
    with pytest.raises(UserError, match=r"figures\[1\]\.of: unknown recipe 'gateup'; did you mean 'gate_up'"):
        report(*recorded, str(own))
    with pytest.raises(UserError, match="did you mean 'published'"):
        report(*recorded, "publishd")
