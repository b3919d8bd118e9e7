"""Mitigations that sample while a stage trains: what is sampled, losses equal to formulas written out, budgets, refusals."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stage_parts import Parts, parts, shake, share_apart, stage, weights
from torch import Tensor
from typer.testing import CliRunner

from lmmcl.cli import app
from lmmcl.config.cluster import TrainingPlacement
from lmmcl.config.sweep import load_sweep
from lmmcl.errors import UserError
from lmmcl.ledger import Ledger
from lmmcl.methods import get_mitigation
from lmmcl.methods.divided import check_divided
from lmmcl.methods.mitigation import TrainingMitigation
from lmmcl.methods.on_policy.grpo import GRPO
from lmmcl.methods.on_policy.kl_on_samples import KLOnSamples
from lmmcl.methods.on_policy.policy import Sample
from lmmcl.methods.on_policy.sdft import SDFT
from lmmcl.models.generation.token_sampling import continued, draw, uniforms
from lmmcl.models.processing.encode import encode
from lmmcl.reports.collect import collect
from lmmcl.tasks.examples import Message, ask
from lmmcl.training.finetune import finetune
from lmmcl.training.stage.rollouts import Rollouts

ROWS_ASKED = [7, 0, 2]
MIXED = GRPO(group=4, temperature=2.0)


def ready(mitigation: TrainingMitigation, tmp_path: Path, *, moved: bool = True) -> tuple[Parts, Any, Rollouts]:
    """A stage in double precision whose model has moved since it began, its state, and what it samples from."""
    made = parts(stage(mitigation, recipe="llm"), tmp_path)
    made.model.double()
    state = mitigation.start(made.context)
    if moved:
        shake(made.model, size=0.01)
    return made, state, Rollouts(made.trainer, made.model, ROWS_ASKED)


def read(model: torch.nn.Module, made: Parts, example: Any, tokens: tuple[int, ...]) -> Tensor:
    """The logits that predict each of the tokens after a question: one forward pass for each token, nothing padded."""
    processor = made.trainer.train_dataset.processor
    prompt = encode(processor, example, with_answer=False)
    rows = []
    for count in range(len(tokens)):
        inputs = {name: value for name, value in continued(prompt, tokens[:count]).items() if name != "labels"}
        text = {
            name: value[None] for name, value in inputs.items() if not name.startswith("pixel") and "image_" not in name
        }
        images = {name: value for name, value in inputs.items() if name not in text}
        placed = {name: value.double() if value.is_floating_point() else value for name, value in images.items()}
        rows.append(model(**text, **placed).logits[0, -1])
    return torch.stack(rows)


def samples_of(mitigation: Any, policy: Rollouts) -> list[Sample]:
    return policy.sample(mitigation.drawn, mitigation.temperature, None)


def close(loss: Tensor, expected: Tensor, made: Parts) -> None:
    """The value agrees to 1e-6, the gradient as far as the model's own roundings let it."""
    own = list(made.trained().values())
    gained, wanted = (
        torch.cat([(one if one is not None else torch.zeros(1)).flatten().double() for one in grads])
        for grads in (torch.autograd.grad(value, own, allow_unused=True) for value in (loss, expected))
    )
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-6, abs=1e-7)
    assert wanted.norm() > 1e-6
    assert (
        gained - wanted
    ).norm() < 1e-5 * wanted.norm()  # norms inside the model are in fp32, whatever the batch's shape


@pytest.mark.parametrize("kl", [0.0, 0.3])
def test_grpo_is_its_formula(kl: float, tmp_path: Path) -> None:
    mitigation = GRPO(group=4, temperature=2.0, kl=kl)
    made, state, policy = ready(mitigation, tmp_path)
    start = deepcopy(made.model)
    with torch.no_grad():
        for name, parameter in start.named_parameters():
            if kl and name in state["start"]:
                parameter.copy_(state["start"][name])
    samples = samples_of(mitigation, policy)
    rewards = np.array([policy.reward(sample) for sample in samples]).reshape(-1, 4)
    assert (rewards.std(axis=1) > 0).any(), "a group with unlike rewards"
    expected = torch.zeros((), dtype=torch.float64)
    for index, sample in enumerate(samples):
        group = rewards[index // 4]
        gain = (group[index % 4] - group.mean()) / (group.std(ddof=1) + 1e-4)
        example = made.context.examples[sample.row]
        spoken = (read(made.model, made, example, sample.tokens) / 2.0).log_softmax(-1)
        with torch.no_grad():
            before = (read(start, made, example, sample.tokens) / 2.0).log_softmax(-1)
        for at, token in enumerate(sample.tokens):
            log_p, rho = spoken[at, token], before[at, token] - spoken[at, token]
            term = -gain * (log_p - log_p.detach()).exp() + kl * (rho.exp() - rho - 1)
            expected = expected + term / len(sample.tokens) / 4
    close(mitigation.sample_loss(state, policy), expected, made)


@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_kl_on_samples_is_the_divergence_of_two_models_on_the_answers_of_one(direction: Any, tmp_path: Path) -> None:
    mitigation = KLOnSamples(weight=0.7, samples=2, direction=direction)
    made = parts(stage(mitigation, recipe="llm"), tmp_path)
    made.model.double()
    start, state = deepcopy(made.model), mitigation.start(made.context)
    shake(made.model, size=0.01)
    policy = Rollouts(made.trainer, made.model, ROWS_ASKED)
    expected = torch.zeros((), dtype=torch.float64)
    for sample in samples_of(mitigation, policy):
        example = made.context.examples[sample.row]
        new = read(made.model, made, example, sample.tokens).softmax(-1)
        with torch.no_grad():
            old = read(start, made, example, sample.tokens).softmax(-1)
        p, q = (old, new) if direction == "forward" else (new, old)
        expected = expected + 0.7 * (p * (p / q).log()).sum(-1).mean() / 2
    close(mitigation.sample_loss(state, policy), expected, made)


@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_sdft_follows_a_teacher_that_is_shown_the_answer(direction: Any, tmp_path: Path) -> None:
    mitigation = SDFT(rate=0.25, direction=direction)
    made = parts(stage(mitigation, recipe="llm"), tmp_path)
    made.model.double()
    teacher, state = deepcopy(made.model), mitigation.start(made.context)
    shake(made.model, size=0.01)
    policy = Rollouts(made.trainer, made.model, ROWS_ASKED)
    policy.update = 1  # one update was made: the teacher moves a quarter of the way
    with torch.no_grad():
        for own, moved in zip(teacher.parameters(), made.model.parameters(), strict=True):
            own.copy_(0.75 * own + 0.25 * moved)
    expected = torch.zeros((), dtype=torch.float64)
    for sample in samples_of(mitigation, policy):
        example = made.context.examples[sample.row]
        said = read(made.model, made, example, sample.tokens).softmax(-1)
        with torch.no_grad():
            wise = read(teacher, made, mitigation.demonstrated(example), sample.tokens).softmax(-1)
        p, q = (wise, said) if direction == "forward" else (said, wise)
        expected = expected + (p * (p / q).log()).sum(-1).mean()
    close(mitigation.sample_loss(state, policy), expected, made)


def test_a_demonstration_is_an_earlier_turn_or_what_a_template_says() -> None:
    example = ask("1", "How many?", "three", b"")
    asked = SDFT().demonstrated(example)
    assert [(m.role, m.content) for m in asked.prompt] == [
        ("user", "<image>\nHow many?"),
        ("assistant", "three"),
        ("user", "How many?"),
    ]
    assert asked.images == example.images
    worded = SDFT(template="{question} For example {answer}.").demonstrated(example)
    assert worded.prompt == (Message("user", "<image>\nHow many? For example three."),)
    with pytest.raises(UserError, match=r"must hold \{question\} and \{answer\}"):
        get_mitigation({"sdft": {"template": "{question}"}})


def test_tokens_are_drawn_as_often_as_they_are_likely() -> None:
    probabilities = torch.tensor([0.0, 0.5, 0.0, 0.3, 0.2, 0.0])
    numbers = torch.tensor(uniforms(0, 3, 5, 1, 4000))
    drawn = draw(probabilities.expand(4000, 6), numbers).bincount(minlength=6) / 4000
    assert torch.allclose(drawn, probabilities, atol=0.03)
    assert drawn[[0, 2, 5]].tolist() == [0, 0, 0]
    ends = draw(probabilities.expand(2, 6), torch.tensor([0.0, 1 - 1e-12], dtype=torch.float64))
    assert ends.tolist() == [1, 4]


def test_samples_are_the_same_however_a_batch_is_cut_and_others_at_another_update(tmp_path: Path) -> None:
    made, _, whole = ready(MIXED, tmp_path)
    made.model.train()
    together = samples_of(MIXED, whole)
    apart = [s for row in ROWS_ASKED for s in samples_of(MIXED, Rollouts(made.trainer, made.model, [row]))]
    assert together == apart
    assert len(set(together)) > len(ROWS_ASKED)
    whole.update = 1
    assert samples_of(MIXED, whole) != together
    assert made.model.training, "the model comes back in the mode it was in"


def test_no_token_of_an_image_is_ever_said(tmp_path: Path) -> None:
    hot = GRPO(group=8, temperature=1e4, max_new_tokens=40)
    made, _, policy = ready(hot, tmp_path)
    control = made.trainer.train_dataset.processor.tokenizer.convert_tokens_to_ids("<image>")
    samples = policy.sample(8, 1e4, 60)
    assert len({token for sample in samples for token in sample.tokens}) > 300
    assert all(control not in sample.tokens for sample in samples)
    assert policy.logits(samples).shape[0] == sum(len(sample.tokens) for sample in samples)


@pytest.mark.parametrize("name", ["kl_on_samples", "sdft", "grpo"])
def test_a_stage_is_the_same_however_its_batches_are_cut(name: str, tmp_path: Path) -> None:
    whole, cut = Ledger(str(tmp_path / "whole")), Ledger(str(tmp_path / "cut"))
    own = {"grpo": {"group": 4, "temperature": 2.0}}.get(name, {})
    step = stage(get_mitigation({name: own}).in_training)
    one = finetune(step, whole, TrainingPlacement())
    two = finetune(step, cut, TrainingPlacement(micro_batch_size=1))
    # Adam makes a whole step of a gradient that is rounding alone, so a few entries may go another way.
    assert share_apart(weights(step, whole), weights(step, cut), by=1e-4) < 1e-3
    assert one["mitigation"] == two["mitigation"]
    answers = 4 * 4 * (4 if name == "grpo" else 1)
    assert one["mitigation"]["samples"] == answers
    assert answers <= one["mitigation"]["generated_tokens"] <= 8 * answers


def test_a_group_of_like_answers_teaches_nothing_and_a_stage_of_such_groups_says_so(tmp_path: Path) -> None:
    mitigation = GRPO(group=2, temperature=0.01)
    with pytest.raises(UserError, match=r"all answers of each of 16 groups had the same reward .*raise grpo\.group"):
        finetune(stage(mitigation), Ledger(str(tmp_path)), TrainingPlacement())


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (["grpo", "lwf"], "lwf acts on the answers that are taught"),
        (["sdft", "eaft"], "eaft acts on the answers that are taught"),
        (["grpo", "sdft"], "learns from samples as well"),
        (["sdft", "kl_on_samples"], "learns from samples as well"),
        (["grpo", "replay"], "replay mixes in questions of others"),
    ],
)
def test_what_does_not_combine_is_refused_with_the_reason(names: list[str], reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        get_mitigation(names)
    for other in (["grpo", "l2_sp", "mofo"], ["sdft", "replay"], ["kl_on_samples", "eaft", "token_masking", "lwf"]):
        get_mitigation(other)


@pytest.mark.parametrize("strategy", ["zero3", "fsdp"])
def test_sampling_from_a_model_that_is_divided_is_refused(strategy: str) -> None:
    for name in ("grpo", "sdft", "kl_on_samples"):
        with pytest.raises(UserError, match=f"{name} samples answers .*needs all weights, and {strategy} divides"):
            check_divided(get_mitigation(name), strategy, trains_head=lambda: False)
        check_divided(get_mitigation(name), "zero2", trains_head=lambda: False)


@pytest.mark.slow
def test_the_preset_of_the_methods_of_2026_runs_and_shows_budgets_and_the_divergence(tmp_path: Path) -> None:
    sweep = str(Path(__file__).parents[2] / "sweeps" / "2026_small.yaml")
    done = CliRunner().invoke(app, ["run", sweep, "--store", str(tmp_path), "--inline", "--mlflow", "off"])
    assert done.exit_code == 0, done.output
    assert "Generated while training" in done.output
    trials = {trial.axes["mitigation"]: trial for trial in collect(load_sweep(sweep), Ledger(str(tmp_path))).trials}
    assert all(trial.state == "done" for trial in trials.values())
    assert {name: trial.cost("samples") for name, trial in trials.items()} == {
        **dict.fromkeys([None, "eaft", "dft", "kl_to_start"]),
        **dict.fromkeys(["kl_on_samples", "sdft"], 960),
        "grpo": 8 * 960,
    }
    assert trials["grpo"].stages[1].cost["last_reward"] > trials["grpo"].stages[1].cost["first_reward"]
    assert (tmp_path / "reports" / "2026_small" / "divergence.png").stat().st_size > 10_000
