"""MR-LoRA for real: experts that were taught apart, a router among them, and answers that are those of the expert it names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from made import write_sweep
from typer.testing import CliRunner, Result

from lmmcl.cli import app
from lmmcl.config.sweep import Sweep, load_sweep
from lmmcl.errors import UserError
from lmmcl.evaluation.generate import answer, said
from lmmcl.evaluation.samples import read_samples
from lmmcl.inspection.gc import needed_weights
from lmmcl.inspection.step_details import step_facts
from lmmcl.ledger import Ledger
from lmmcl.steps import Evaluate, Finetune, Merge, Pretrained
from lmmcl.tasks.routing import RouterSkill, choice, routing_questions
from lmmcl.weights.adapter_export import export_adapter
from lmmcl.weights.checkpoint import export, load_checkpoint, named_tensors
from lmmcl.weights.expert_routing import routing_of

LORA = "{name: low, adapter: {rank: 8, alpha: 16}}"
MRLORA = f"""
name: routed
orders:
  main: [birds, counting]
benchmarks: {{held_out: [colour, shape]}}
training: {{epochs: 1, examples: 96, global_batch_size: 16, precision: fp32, learning_rate: 3.0e-3}}
evaluation: {{precision: fp32, limit: 12}}
grids:
  - {{model: [tiny-onevision], recipe: [{LORA}], mitigation: [{{mr_lora: {{examples: 12, epochs: 8, learning_rate: 3.0e-3}}}}]}}
"""


def lmmcl(*arguments: str | Path) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("routed")
    path = write_sweep(folder, MRLORA)
    done = lmmcl("run", path, "--store", folder / "store", "--inline", "--mlflow", "off")
    assert done.exit_code == 0, done.output
    return folder


@pytest.fixture(scope="module")
def sweep(folder: Path) -> Sweep:
    return load_sweep(folder / "small.yaml")


@pytest.fixture(scope="module")
def ledger(folder: Path) -> Ledger:
    return Ledger(str(folder / "store"))


def last(sweep: Sweep) -> Merge:
    checkpoint = sweep.trials[0].stages[-1].checkpoint
    assert isinstance(checkpoint, Merge)
    return checkpoint


def test_every_expert_is_the_stage_that_the_skill_alone_would_be(sweep: Sweep, folder: Path) -> None:
    alone = MRLORA.replace("main: [birds, counting]", "main: [counting]").partition(", mitigation")[0] + "}\n"
    (trial,) = load_sweep(write_sweep(folder, alone, "alone.yaml")).trials
    first, second = last(sweep).experts
    assert isinstance(first.parent, Pretrained) and isinstance(second.parent, Pretrained)
    assert second.key == trial.stages[-1].checkpoint.key


def test_the_first_stage_has_one_expert_and_no_router_and_the_second_both(sweep: Sweep, ledger: Ledger) -> None:
    one, two = (routing_of(stage.checkpoint, ledger) for stage in sweep.trials[0].stages[1:])
    assert one and two
    assert [expert.key for expert in one.experts] == [last(sweep).experts[0].key] and one.router is None
    assert [expert.key for expert in two.experts] == [expert.key for expert in last(sweep).experts]
    assert two.router and two.router.key == (last(sweep).router or one.router).key  # type: ignore[union-attr]
    assert [text.partition(":")[0] for text in two.pool] == ["birds", "counting"]


def test_the_router_is_trained_on_the_mean_of_the_experts_on_examples_of_all_skills(
    sweep: Sweep, ledger: Ledger
) -> None:
    router = last(sweep).router
    assert isinstance(router, Finetune) and isinstance(router.skill, RouterSkill)
    assert len(router.skill.load()) == 24 and router.updates == 12
    experts = [named_tensors(load_checkpoint(each, ledger, precision="fp32")) for each in last(sweep).experts]
    mean = named_tensors(load_checkpoint(router.parent, ledger, precision="fp32"))
    weights = [name for name, value in mean.items() if value.is_floating_point()]
    for name in weights:
        torch.testing.assert_close(mean[name], (experts[0][name] + experts[1][name]) / 2, rtol=1e-5, atol=1e-5)
    assert any(not torch.equal(experts[0][name], experts[1][name]) for name in weights)


def test_every_question_is_answered_by_the_expert_that_the_router_names(sweep: Sweep, ledger: Ledger) -> None:
    """Against models that are loaded one by one and asked everything."""
    checkpoint = last(sweep)
    processor = checkpoint.model.load_processor()
    assert checkpoint.router is not None
    router = load_checkpoint(checkpoint.router, ledger, precision="fp32")
    experts = [load_checkpoint(each, ledger, precision="fp32") for each in checkpoint.experts]
    pool = routing_of(checkpoint, ledger).pool  # type: ignore[union-attr]
    used = set()
    for step in sweep.trials[0].stages[-1].evaluations:
        chosen = said(router, processor, routing_questions(step.benchmark, pool), limit=12, batch_size=4)
        each = [answer(model, processor, step.benchmark, limit=12, batch_size=4) for model in experts]
        numbers = [choice(text, 2, example.id)[0] for example, text in chosen]
        recorded = ledger.find(step)
        assert recorded is not None
        assert recorded["routed"]["experts"] == [numbers.count(0), numbers.count(1)]
        with ledger.opened(step.path, "samples.jsonl") as file:
            samples = read_samples(file)
        assert [sample.prediction for sample in samples] == [
            each[number][row].prediction for row, number in enumerate(numbers)
        ]
        used |= set(numbers)
    assert used == {0, 1}, "both experts answer something"


def test_it_is_no_single_model_to_export_or_to_continue_from(sweep: Sweep, ledger: Ledger, tmp_path: Path) -> None:
    checkpoint = last(sweep)
    for write in (export, export_adapter):
        with pytest.raises(
            UserError, match=f"one of 2 experts, .*allowed: one of its experts, {checkpoint.experts[0].key}"
        ):
            write(checkpoint, ledger, tmp_path / "out")
    with pytest.raises(UserError, match="no weights of a single model"):
        load_checkpoint(ledger.checkpoint(checkpoint.key), ledger, precision="fp32")
    with pytest.raises(UserError, match=f"with its expert, .*allowed: that expert, {checkpoint.experts[0].key}"):
        export(sweep.trials[0].stages[1].checkpoint, ledger, tmp_path / "out")
    assert step_facts(ledger, checkpoint.key)["export"] is None, "a command that is refused"
    assert step_facts(ledger, checkpoint.experts[0].key)["export"]
    export_adapter(checkpoint.experts[0], ledger, tmp_path / "expert")
    assert (tmp_path / "expert" / "adapter_model.safetensors").is_file()


def test_a_benchmark_that_is_asked_later_is_routed_and_needs_the_experts_weights(
    sweep: Sweep, folder: Path, ledger: Ledger
) -> None:
    checkpoint = last(sweep)
    asked = lmmcl("eval", checkpoint.key, "-b", "size", "--limit", "4", "--store", folder / "store", "--json")
    assert set(json.loads(asked.stdout)) == {"size"}
    benchmark = load_sweep(write_sweep(folder, MRLORA.replace("[colour, shape]", "[pattern]"), "more.yaml"))
    step = benchmark.trials[0].stages[-1].evaluations[-1]
    assert isinstance(step, Evaluate) and ledger.find(step) is None
    needed = needed_weights([step], ledger)
    assert {each.path for each in checkpoint.bases} <= needed
    assert checkpoint.router and checkpoint.router.path in needed


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (LORA, "sa_proj", "mr_lora keeps a LoRA adapter for each skill, and 'sa_proj' trains none; allowed"),
        ("mitigation: [{mr_lora: {examples: 12, epochs: 8, learning_rate: 3.0e-3}}]",
         "mitigation: [[mr_lora, wise_ft]]", "mr_lora keeps an expert for each skill apart, and wise_ft combines"),
        ("mitigation: [{mr_lora: {examples: 12, epochs: 8, learning_rate: 3.0e-3}}]",
         "mitigation: [[grafting, mr_lora]]", "mr_lora keeps an expert .* and grafting combines"),
        ("examples: 12, epochs: 8", "continues_from: merged, epochs: 8", r"mr_lora\.continues_from"),
        ("examples: 12, epochs: 8", "descriptions: {bird: which}", "unknown skill 'bird'.*birds"),
        ("examples: 12, epochs: 8", "descriptions: [birds]", r"descriptions are a mapping such as"),
        ("grids:", "probes: [number_bias]\ngrids:", r"a probe \(number_bias\) looks into a single model"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_refused_at_the_door(old: str, new: str, said: str, tmp_path: Path) -> None:
    assert old in MRLORA
    with pytest.raises(UserError, match=said):
        load_sweep(write_sweep(tmp_path, MRLORA.replace(old, new)))
