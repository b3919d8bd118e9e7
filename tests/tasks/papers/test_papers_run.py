"""A sweep over prepared data, from the file to the scores, with the embedded model."""

from __future__ import annotations

from pathlib import Path

import pytest
from hub_fixtures import FixtureHub
from rich.console import Console

from lmmcl.config.cluster import Cluster
from lmmcl.config.sweep import load_sweep
from lmmcl.evaluation.samples import read_samples
from lmmcl.ledger import Ledger
from lmmcl.runner.run import run_sweep
from lmmcl.search.run_context import RunContext
from lmmcl.tasks import get_benchmark
from lmmcl.tasks.hub.prepare import prepare
from lmmcl.tasks.metrics.cider import all_cider

SWEEP = """
name: small
orders: {main: [text_vqa, cub200]}
benchmarks: {held_out: [mmstar, coco_caption], allow_overlap: [text_vqa]}  # the fixtures of both splits are alike
training: {max_steps: 2, global_batch_size: 2, learning_rate: 1.0e-3, precision: fp32}
evaluation: {precision: fp32}
grids:
  - {model: [tiny-onevision], recipe: [sa_proj], mitigation: [{data_hybrid: {auxiliary: llava_665k}}], seed: [0]}
"""


def test_prepared_skills_are_taught_and_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "data"
    monkeypatch.setenv("LMMCL_DATA", str(folder))
    names = ["text_vqa", "cub200", "mmstar", "coco_caption", "llava_665k"]
    prepare(names, FixtureHub(tmp_path), folder, say=lambda _: None)
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    ledger = Ledger(str(tmp_path / "store"))
    sweep = load_sweep(tmp_path / "sweep.yaml")
    outcome = run_sweep(RunContext.resolve(sweep, ledger), Cluster(), console=Console(quiet=True), inline=True)
    assert outcome.failures == {}
    asked = [step for step in sweep.steps.values() if step.kind == "evaluate"]
    assert len(asked) == 3 * 4
    captions = next(step for step in asked if step.label == "coco_caption")
    with ledger.opened(captions.path, "samples.jsonl") as file:
        samples = read_samples(file)
    examples = get_benchmark("coco_caption").load()
    expected = all_cider([(sample.prediction, example) for sample, example in zip(samples, examples, strict=True)])
    assert [sample.score for sample in samples] == pytest.approx(expected)
