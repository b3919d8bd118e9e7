"""A checkpoint of an earlier sweep as a start model: by store, trial and stage, in a sweep and in `lmmcl eval`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from lmmcl.api.loading import load_model
from lmmcl.cli import app
from lmmcl.config.cluster import Cluster
from lmmcl.config.sweep import load_sweep
from lmmcl.errors import UserError
from lmmcl.inspection.stored_trials import find_checkpoint
from lmmcl.ledger import Ledger
from lmmcl.models import get_model
from lmmcl.runner.ad_hoc import evaluate_checkpoint

SWEEP = """
name: {name}
orders: {{main: {order}}}
training: {{learning_rate: 1.0e-2, global_batch_size: 4, max_steps: 2, examples: 8, precision: fp32}}
evaluation: {{limit: 4, precision: fp32}}
grids:
  - {{model: [{model}], recipe: [sa_proj]}}
"""
TRIAL = "sa_proj · lr 1e-2 · tiny-onevision · s0"


def run(folder: Path, name: str, order: str, model: str, store: Path) -> None:
    (folder / f"{name}.yaml").write_text(SWEEP.format(name=name, order=order, model=model))
    done = CliRunner().invoke(
        app, ["run", str(folder / f"{name}.yaml"), "--inline", "--mlflow", "off", "--store", str(store)]
    )
    assert done.exit_code == 0, done.output


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sweeps and the store of the first of them."""
    made = tmp_path_factory.mktemp("starts")
    run(made, "first", "[counting, birds]", "tiny-onevision", made / "first-store")
    return made


def entry(stage: int | None, trial: str = "sa_proj", store: str = "first-store") -> str:
    return json.dumps(
        {"checkpoint": trial, "store": store, **({} if stage is None else {"stage": stage})}, ensure_ascii=False
    )


def test_a_sweep_starts_where_an_earlier_one_was_after_a_stage(folder: Path) -> None:
    run(folder, "second", "[birds]", entry(1), folder / "second-store")
    first, second = Ledger(str(folder / "first-store")), Ledger(str(folder / "second-store"))
    (trial,) = load_sweep(folder / "second.yaml").trials
    assert trial.model.identity() == {"checkpoint": trial.model.key}  # type: ignore[attr-defined]
    base = load_model(trial.stages[0].checkpoint.key, store=second.store)
    after = load_model(f"{TRIAL}@1", store=first.store)
    assert all(torch.equal(value, base.get_parameter(name)) for name, value in after.named_parameters())
    # What was taught next is what the first sweep taught next.
    last = load_model(trial.key, store=second.store)
    expected = load_model(TRIAL, store=first.store)
    assert all(torch.equal(value, last.get_parameter(name)) for name, value in expected.named_parameters())


def test_the_exported_checkpoint_and_its_record_name_where_it_came_from(folder: Path, tmp_path: Path) -> None:
    run(folder, "second", "[birds]", entry(1), folder / "second-store")
    (trial,) = load_sweep(folder / "second.yaml").trials
    done = CliRunner().invoke(
        app, ["export", trial.key, "--to", str(tmp_path / "out"), "--store", str(folder / "second-store")]
    )
    assert done.exit_code == 0, done.output
    exported = get_model(str(tmp_path / "out")).load_model()
    last = load_model(trial.key, store=str(folder / "second-store"))
    assert all(torch.equal(value, exported.get_parameter(name)) for name, value in last.named_parameters())


def test_a_stage_is_asked_by_hand(folder: Path) -> None:
    ledger = Ledger(str(folder / "first-store"))
    settings = {"limit": 4, "precision": "fp32"}
    scores = [evaluate_checkpoint(f"sa_proj@{n}", ["birds"], ledger, Cluster(), **settings) for n in (0, 1, 2)]  # type: ignore[arg-type]
    key = find_checkpoint(ledger, "sa_proj@1").key
    named = f"checkpoint:{key}@{ledger.store}"
    assert evaluate_checkpoint(named, ["birds"], ledger, Cluster(), **settings) == scores[1]  # type: ignore[arg-type]


def test_equal_checkpoints_are_one_model_in_whichever_store_and_stage_0_is_the_pretrained_one(
    folder: Path, tmp_path: Path
) -> None:
    model = get_model(json.loads(entry(1)), folder)
    shutil.copytree(folder / "first-store", tmp_path / "moved")
    moved = get_model({"checkpoint": TRIAL, "stage": 1, "store": str(tmp_path / "moved")})
    assert moved.identity() == model.identity()
    assert moved.reference != model.reference
    assert get_model(model.reference).identity() == model.identity()
    assert get_model(json.loads(entry(0)), folder).identity() == get_model("tiny-onevision").identity()
    last, third = get_model(json.loads(entry(None)), folder), get_model(json.loads(entry(2)), folder)
    assert last.identity() == third.identity()


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (entry(3), r"has no stage 3; allowed: 0 to 2"),
        (entry(1, "sa_prj"), r"unknown trial 'sa_prj'; allowed: sa_proj .*sa_proj"),
        (entry(1, store="none"), r"Store .*none does not exist"),
        ('{"checkpoint": "sa_proj", "stage": 1}', r"store is missing"),
        (
            '{"checkpoint": "sa_proj", "stage": "one", "store": "first-store"}',
            r"stage: an integer is expected, not 'one'",
        ),
    ],
)
def test_a_checkpoint_that_is_not_there_is_refused_with_what_is(folder: Path, wanted: str, said: str) -> None:
    (folder / "wrong.yaml").write_text(SWEEP.format(name="wrong", order="[birds]", model=wanted))
    with pytest.raises(UserError, match=r"grids\[0\].model\[0\]: .*" + said):
        load_sweep(folder / "wrong.yaml")


def test_weights_that_were_removed_are_told_when_the_sweep_is_read(folder: Path, tmp_path: Path) -> None:
    store = shutil.copytree(folder / "first-store", tmp_path / "store")
    model = get_model({"checkpoint": "sa_proj", "stage": 2, "store": str(store)})
    ledger = Ledger(str(store))
    ledger.drop_weights(find_checkpoint(ledger, "sa_proj@1").path)
    for ask in (model.check, model.load_model):
        with pytest.raises(UserError, match=r"the weights of 1-counting.* were removed .* run its sweep again"):
            ask()
