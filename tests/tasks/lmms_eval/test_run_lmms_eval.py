"""Tasks of lmms-eval among the held-out benchmarks of a real sweep, against lmms-eval's own evaluator over the same answers.

Needs a Python that has lmmcl and its extra `lmms-eval` side by side: `pip install -e ".[test,lmms-eval]"`, or, to leave an
environment as it is, a second one made with `pip install lmms-eval` and a .pth file that appends the first one's
site-packages; then `python -m pytest -m slow tests/tasks/lmms_eval/test_run_lmms_eval.py`. No network: the tasks bring their data.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lmms_eval_tasks import write_mmmu, write_rows, write_tasks
from made import SWEEP, write_sweep
from typer.testing import CliRunner

from lmmcl.cli import app
from lmmcl.config.sweep import Sweep, load_sweep
from lmmcl.errors import UserError
from lmmcl.evaluation.samples import Sample, read_samples
from lmmcl.ledger import Ledger
from lmmcl.steps import Evaluate
from lmmcl.tasks.lmms_eval.benchmark import lmms_eval_benchmark

pytestmark = pytest.mark.slow
ROWS = 24
ASKED = ["lmms_eval/own_colour", "lmms_eval/own_exact", "lmms_eval/own_mmmu"]


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    pytest.importorskip("lmms_eval", reason="needs the extra lmms-eval beside lmmcl")
    patch = pytest.MonkeyPatch()
    patch.setenv("LMMS_EVAL_DATASETS_CACHE", str(tmp_path_factory.mktemp("datasets")))
    folder = write_tasks(tmp_path_factory.mktemp("sweep") / "tasks")
    write_rows(folder, ROWS)
    write_mmmu(folder)
    yield folder
    patch.undo()


@pytest.fixture(scope="module")
def no_dice(tasks: Path) -> Iterator[None]:
    """MMMU's functions guess where an answer names no option; here they guess the first, so that two scorings can be compared."""
    patch = pytest.MonkeyPatch()
    patch.setattr(random, "choice", lambda options: options[0])
    yield
    patch.undo()


@pytest.fixture(scope="module")
def file(tasks: Path) -> Path:
    benchmarks = f"{{held_out: [colour, {', '.join(ASKED)}], lmms_eval: {{include: tasks}}}}"
    text = SWEEP.replace("{held_out: [colour, shape]}", benchmarks).replace("limit: 8", f"limit: {ROWS}")
    text = text.replace("[sa_proj, gate_up]", "[sa_proj]").replace("[1.0e-3, 3.0e-4]", "[1.0e-3]")
    return write_sweep(tasks.parent, text.replace("[counting, clock]", "[counting]"))


@pytest.fixture(scope="module")
def store(file: Path, no_dice: None) -> Path:
    folder = file.parent / "store"
    ran = CliRunner().invoke(app, ["run", str(file), "--store", str(folder), "--inline", "--mlflow", "off"])
    assert ran.exit_code == 0, ran.output
    return folder


def recorded(sweep: Sweep, store: Path, name: str) -> list[tuple[float, list[Sample]]]:
    """The score and the samples of a benchmark at every stage, in order."""
    ledger = Ledger(str(store))
    steps = [step for step in sweep.steps.values() if isinstance(step, Evaluate) and step.benchmark.name == name]
    found = []
    for step in steps:
        record = ledger.find(step)
        assert record is not None
        with ledger.opened(step.path, "samples.jsonl") as file:
            found.append((record["score"], read_samples(file)))
    return found


def theirs(task: str, folder: Path, samples: list[Sample]) -> float:
    """The score that lmms-eval's own evaluator gives to a model which says what ours said, in points."""
    from lmms_eval.api.model import lmms
    from lmms_eval.evaluator import evaluate
    from lmms_eval.tasks import TaskManager, get_task_dict

    class Said(lmms):
        is_simple = False

        def generate_until(self, requests: list[Any]) -> list[str]:
            return [samples[request.args[3]].prediction for request in requests]

        def loglikelihood(self, requests: list[Any]) -> list[Any]:
            raise NotImplementedError

        def generate_until_multi_round(self, requests: list[Any]) -> list[str]:
            raise NotImplementedError

    manager = TaskManager(include_path=str(folder), include_defaults=False)
    found = evaluate(
        lm=Said(), task_dict=get_task_dict([task], manager, task_type="chat"), limit=len(samples), bootstrap_iters=0
    )
    metric = lmms_eval_benchmark(f"lmms_eval/{task}", folder).metric
    return 100 * next(value for name, value in found["results"][task].items() if name.startswith(f"{metric},"))


@pytest.mark.parametrize("name", ASKED)
def test_a_score_is_that_of_lmms_eval_over_the_same_answers(name: str, file: Path, store: Path, tasks: Path) -> None:
    stages = recorded(load_sweep(file), store, name)
    assert len(stages) == 2
    for score, samples in stages:
        assert score == pytest.approx(theirs(name.removeprefix("lmms_eval/"), tasks, samples), abs=0.01)
        assert score == pytest.approx(100 * sum(sample.score for sample in samples) / len(samples))


def test_the_same_questions_are_answered_as_in_the_benchmark_they_were_taken_from(file: Path, store: Path) -> None:
    sweep = load_sweep(file)
    for (score, samples), (own, own_samples) in zip(
        recorded(sweep, store, "lmms_eval/own_colour"), recorded(sweep, store, "colour"), strict=True
    ):
        assert [each.prediction for each in samples] == [each.prediction for each in own_samples]
        assert score == own > 0


def test_the_report_shows_it_with_an_interval_and_its_flips(file: Path, store: Path) -> None:
    shown = CliRunner().invoke(app, ["report", str(file), "--store", str(store), "--format", "json"])
    assert shown.exit_code == 0, shown.output
    assert "lmms_eval/own_colour" in shown.stdout
    page = file.parent / "report.html"
    made = CliRunner().invoke(app, ["report", str(file), "--store", str(store), "--format", "html", "--to", str(page)])
    assert made.exit_code == 0, made.output
    assert "lmms_eval/own_colour" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("task", "why"),
    [
        ("own_by_answer", "answers whose own have the mean"),
        ("own_points", "can be 100, outside [0, 1]"),
    ],
)
def test_a_scoring_that_is_no_mean_in_bounds_is_refused_before_a_model_is_asked(
    task: str, why: str, tasks: Path
) -> None:
    with pytest.raises(UserError, match="a mean over the questions") as caught:
        lmms_eval_benchmark(f"lmms_eval/{task}", tasks).load()
    assert why in str(caught.value)


def test_images_stand_where_the_task_puts_them(tasks: Path) -> None:
    first, second, *_ = lmms_eval_benchmark("lmms_eval/own_mmmu", tasks).load()
    assert first.prompt[0].content.count("<image>") == len(first.images) == 1
    assert first.prompt[0].content.startswith("Look at")
    assert second.prompt[0].content.count("<image>") == len(second.images) == 2


def test_a_guess_of_the_scoring_is_the_same_each_time_and_leaves_the_dice_alone(tasks: Path) -> None:
    benchmark = lmms_eval_benchmark("lmms_eval/own_mmmu", tasks)
    rows = list(benchmark.load()) * 4
    score = benchmark.scoring().score
    random.seed(1)
    expected = random.random()
    random.seed(1)
    first = [score("no such colour", row) for row in rows]
    assert random.random() == expected
    assert first == [score("no such colour", row) for row in rows]


def test_images_of_other_benchmarks_are_read_as_before(tasks: Path) -> None:
    from PIL import ImageFile

    assert lmms_eval_benchmark("lmms_eval/own_colour", tasks).load()[0].open_images()
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


def test_a_task_whose_folder_changed_after_planning_is_refused(tasks: Path) -> None:
    planned = lmms_eval_benchmark("lmms_eval/own_colour", tasks)
    note = tasks / "note.txt"
    note.write_text(json.dumps("anything"))
    try:
        with pytest.raises(UserError, match="changed since the sweep was read"):
            planned.load()
    finally:
        note.unlink()
