"""A checkpoint as a transformers model: the weights that were evaluated, and the processor that goes with them."""

from __future__ import annotations

from pathlib import Path

import pytest
from made import write_sweep

import lmmcl
from lmmcl.errors import UserError

SWEEP = """
name: small
orders: {main: [counting]}
benchmarks: {held_out: [colour]}
training: {examples: 8, max_steps: 2, global_batch_size: 4, precision: fp32, learning_rate: 1.0e-3}
evaluation: {precision: fp32, limit: 8}
grids: [{model: [tiny-onevision], recipe: [sa_proj]}]
"""


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> lmmcl.Results:
    folder = tmp_path_factory.mktemp("loading")
    return lmmcl.run(write_sweep(folder, SWEEP), store=folder / "store", inline=True, mlflow="off", quiet=True)


def test_the_model_of_a_checkpoint_answers_what_was_recorded(results: lmmcl.Results) -> None:
    from lmmcl.evaluation.generate import answer
    from lmmcl.tasks import get_benchmark

    last = results.scores().query("stage == 1 and benchmark == 'colour'").iloc[0]
    model = lmmcl.load_model(last["checkpoint_key"], store=results.store)
    processor = lmmcl.load_processor(last["checkpoint_key"], store=results.store)
    answers = answer(model, processor, get_benchmark("colour"), limit=8, batch_size=8)
    assert [sample.prediction for sample in answers] == list(results.samples("colour", stage=1)["prediction"])


def test_only_what_the_recipe_trains_differs_from_the_pre_trained_model(results: lmmcl.Results) -> None:
    import torch

    tuned = lmmcl.load_model(results.trials()["checkpoint_key"][0][:10], store=results.store).state_dict()
    base = lmmcl.load_model("tiny-onevision").state_dict()
    moved = {name for name in base if not torch.equal(base[name], tuned[name])}
    assert moved and all("self_attn" in name and "language_model" in name for name in moved)


def test_a_precision_can_be_chosen(results: lmmcl.Results) -> None:
    import torch

    assert lmmcl.load_model("tiny-onevision", precision="bf16").dtype == torch.bfloat16
    with pytest.raises(UserError, match="precision is fp32, bf16 or fp16, not 'int8'"):
        lmmcl.load_model("tiny-onevision", precision="int8")


def test_an_unknown_checkpoint_and_a_missing_store_are_refused(results: lmmcl.Results, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unknown checkpoint or trial 'feed'"):
        lmmcl.load_model("feed", store=results.store)
    with pytest.raises(UserError, match=str(tmp_path / "nowhere")):
        lmmcl.load_model("feed", store=tmp_path / "nowhere")
