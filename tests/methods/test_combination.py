"""Several mitigations in one trial: the loss they make together, the order in which they act, what shares work, what is refused."""

from __future__ import annotations

import dataclasses
from copy import deepcopy
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch
from made import made_trial
from stage_parts import difference, made_skill, parts, shades, shake, stage, weights

from lmmcl.config.cluster import TrainingPlacement
from lmmcl.config.sweep import build_sweep
from lmmcl.errors import UserError
from lmmcl.ledger import Ledger
from lmmcl.methods import Mitigation, get_mitigation, get_recipe, mitigation_names
from lmmcl.methods.combination import CombinedTraining
from lmmcl.methods.data.mixing import Mix
from lmmcl.methods.divided import DIVIDED, check_divided
from lmmcl.methods.mitigation import HIDDEN, ROWS, TrainingMitigation
from lmmcl.models.head import head_inputs
from lmmcl.steps import Finetune, Merge
from lmmcl.training.finetune import finetune
from lmmcl.training.recovery import start_state as recovery
from lmmcl.training.stage.collate import encode_row
from lmmcl.weights.merging import merge

PLACE = TrainingPlacement()


def combined(*members: Any) -> CombinedTraining:
    found = get_mitigation(list(members)).in_training
    assert isinstance(found, CombinedTraining)
    return found


def divergence(teacher: Any, student: Any, labels: Any, temperature: float) -> Any:
    """T²·KL of the whole vocabulary, summed position by position over the tokens that `labels` teach."""
    total = student.new_zeros(())
    for row, column in (labels != -100).nonzero().tolist():
        p = (teacher[row, column - 1] / temperature).softmax(-1)
        q = (student[row, column - 1] / temperature).softmax(-1)
        total = total + temperature**2 * (p * (p.log() - q.log())).sum()
    return total


def test_penalties_add_to_the_loss_that_is_written_by_hand(tmp_path: Path) -> None:
    first = stage(max_steps=1, skill=made_skill("before", shades(6, 200)))
    finetune(first, Ledger(str(tmp_path / "store")), PLACE)
    mitigation = combined(
        {"l2_sp": {"weight": 0.5}},
        {"replay": {"examples": 2}},
        {"lwf": {"weight": 0.7, "temperature": 1.5, "top_k": None}},
    )
    made = parts(stage(mitigation, parent=first), tmp_path)
    assert [example.id for example in made.context.examples[12:]] != [] and len(made.context.examples) == 14
    made.model.double()
    start = {name: p.detach().clone() for name, p in made.trained().items()}
    teacher = deepcopy(made.model)
    made.trainer.mitigation_state = mitigation.start(made.context)
    shake(made.model)
    rows = [*[row for row in dict.fromkeys(made.context.rows) if row < 12][:2], 12]  # the last is one that is replayed
    assert set(rows) <= set(made.context.rows)
    batch = {**made.context.batch_of(rows), ROWS: torch.tensor(rows)}
    tokens = (batch["labels"] != -100).sum()
    made.trainer.current_gradient_accumulation_steps = 1
    loss = made.trainer.compute_loss(made.model, batch, num_items_in_batch=tokens)

    inputs = {key: value for key, value in batch.items() if key not in ("labels", ROWS)}
    logits = made.model(**inputs).logits
    with torch.no_grad():
        wise = teacher(**inputs).logits
    entropy = torch.nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten(), ignore_index=-100, reduction="sum"
    )
    near = sum((p - start[name]).square().sum() for name, p in made.trained().items())
    expected = (entropy + 0.7 * divergence(wise, logits, batch["labels"], 1.5)) / tokens + 0.25 * near
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    own = list(made.trained().values())
    found, wanted = torch.autograd.grad(loss, own), torch.autograd.grad(expected, own)
    for one, other in zip(found, wanted, strict=True):
        assert (one - other).norm() <= 1e-5 * other.norm() + 1e-9


def test_a_token_that_is_masked_is_neither_taught_nor_held(tmp_path: Path) -> None:
    mitigation = combined({"token_masking": {"threshold": 1e5}}, {"lwf": {"top_k": None, "temperature": 1.0}})
    made = parts(stage(mitigation), tmp_path)
    state = mitigation.start(made.context)
    teacher = deepcopy(made.model)
    rows = list(dict.fromkeys(made.context.rows))[:3]
    for row in rows:  # every second answer token of a row is taken for a surprise
        state[0][row] = torch.arange(len(state[0][row])) % 2 == 0
    shake(made.model)
    whole = {**made.context.batch_of(rows), ROWS: torch.tensor(rows)}
    batch = mitigation.batch(state, whole)
    kept, all_tokens = int((batch["labels"] != -100).sum()), int((whole["labels"] != -100).sum())
    assert 0 < kept < all_tokens
    with head_inputs(made.model) as seen:
        outputs = made.context.forward(batch)
    penalty = mitigation.token_penalty(state, made.model, outputs, {**batch, HIDDEN: seen[-1]})
    inputs = {key: value for key, value in whole.items() if key not in ("labels", ROWS)}
    with torch.no_grad():
        expected = divergence(teacher(**inputs).logits, made.model(**inputs).logits, batch["labels"], 1.0)
    assert penalty is not None and penalty.item() == pytest.approx(expected.item(), rel=1e-3)
    made.trainer.mitigation_state, made.trainer.current_gradient_accumulation_steps = state, 1
    loss = made.trainer.compute_loss(made.model, batch, num_items_in_batch=torch.tensor(kept))
    assert bool(torch.isfinite(loss)), "the batch's labels before masking are not an input of the model"


def test_a_mix_of_a_mix_encodes_every_row_as_what_it_is(tmp_path: Path) -> None:
    first = stage(max_steps=1, skill=made_skill("before", shades(6, 200)))
    finetune(first, Ledger(str(tmp_path / "store")), PLACE)
    mitigation = combined({"data_hybrid": {"ratio": 0.4}}, {"replay": {"examples": 3}})
    assert [member.name for member in mitigation.members] == ["replay", "data_hybrid"]
    made = parts(stage(mitigation, parent=first), tmp_path)
    examples = made.context.examples
    assert isinstance(examples, Mix) and not any(isinstance(source, Mix) for source in examples.sources)
    assert {int(each) for each in examples.which} == {0, 1, 2}, "the stage's own, what is replayed, and diverse data"
    data: Any = made.trainer.train_dataset
    for source in (0, 1, 2):
        row = int((examples.which == source).nonzero()[0][0])
        alone = encode_row(data.processor, "any", examples, row)
        assert all(torch.equal(value, data.encoded(row)[name]) for name, value in alone.items())
    share = float((examples.which == 2).mean())
    assert 0.3 < share < 0.5, "diverse data are a share of all that is trained, replayed rows included"


def test_the_file_orders_merges_and_nothing_else() -> None:
    one = get_mitigation([{"wise_ft": {"alpha": 0.5}}, "lwf", {"replay": {"examples": 5}}, "mofo", "token_masking"])
    other = get_mitigation(["mofo", "token_masking", {"replay": {"examples": 5}}, "lwf", {"wise_ft": {"alpha": 0.5}}])
    assert one.label == "replay(examples=5) + token_masking + lwf + mofo + wise_ft(alpha=0.5)" == other.label
    assert one.identity() == other.identity()
    assert get_mitigation(["dare", "wise_ft"]).label != get_mitigation(["wise_ft", "dare"]).label


def test_a_combination_of_one_is_that_one() -> None:
    assert get_mitigation(["lwf"]) == get_mitigation("lwf")


def test_a_training_mitigation_and_a_merge_share_the_fine_tunes_of_the_first_alone() -> None:
    alone = made_trial(mitigation="lwf")
    both = made_trial(mitigation=["lwf", {"wise_ft": {"continues_from": "tuned"}}])
    merged = made_trial(mitigation=["lwf", "wise_ft"])
    key = [[stage.tuned.key for stage in trial.stages if stage.tuned] for trial in (alone, both, merged)]
    assert key[0] == key[1]
    assert key[0][0] == key[2][0] and key[0][1] != key[2][1], "its second stage starts from the merge"
    assert isinstance(both.stages[2].checkpoint, Merge)


def test_merges_follow_each_other_over_one_anchor() -> None:
    trial = made_trial(mitigation=[{"ties": {"keep": 0.5}}, {"wise_ft": {"alpha": 0.5}}, "dare"])
    base, last = trial.stages[0].checkpoint, trial.stages[2].checkpoint
    chain = [last, last.finetunes[0], last.finetunes[0].finetunes[0]]
    assert [step.rule.name for step in chain] == ["dare", "wise_ft", "ties"]
    assert all(step.anchor == base for step in chain), "ties combines fine-tunes of the base; the others follow it"
    assert chain[2].finetunes == tuple(stage.tuned for stage in trial.stages[1:])
    assert trial.stages[2].tuned == chain[2].finetunes[1] and last.depth == 2
    assert last.label.startswith("2-second-") and last.label.endswith("-ties-wise_ft-dare")


def test_a_combination_with_a_merge_equals_merging_checkpoints_by_hand(tmp_path: Path) -> None:
    ledger = Ledger(str(tmp_path))
    trial = made_trial(mitigation=["l2_sp", {"wise_ft": {"alpha": 0.25}}, {"grafting": {"keep": 0.5}}])
    tuned = stage(trial.mitigation.in_training, max_steps=2)
    finetune(tuned, ledger, PLACE)
    first, second = trial.mitigation.merges
    middle = Merge(tuned.parent, (tuned,), first)
    merge(middle, ledger)
    merge(Merge(tuned.parent, (middle,), second), ledger)
    base, after = weights(tuned.parent, ledger), weights(tuned, ledger)
    by_hand = {
        name: base[name].lerp(after[name], 0.25) if base[name].is_floating_point() else base[name] for name in base
    }
    assert difference(weights(middle, ledger), by_hand) < 1e-7
    found = weights(Merge(tuned.parent, (middle,), second), ledger)
    moves = {
        name: (by_hand[name] - base[name]).detach().abs() for name in base if not torch.equal(base[name], after[name])
    }
    order = torch.cat([move.flatten() for move in moves.values()]).sort(descending=True).values
    edge = order[len(order) // 2 - 1]
    for name, move in moves.items():
        expected = torch.where(move >= edge, by_hand[name], base[name])
        off = (found[name] - expected).detach().abs()
        assert off[(move - edge).abs() > 1e-9].max() < 1e-7


def refusal(*members: Any) -> str:
    with pytest.raises(UserError) as refused:
        get_mitigation(list(members))
    return str(refused.value)


def test_what_does_not_combine_is_refused_with_the_reason() -> None:
    assert "mofo and spider both rewrite the optimizer's update" in refusal("mofo", "lwf", "spider")
    assert "lwf is listed twice" in refusal("lwf", {"lwf": {"weight": 2.0}})
    assert "allowed: ties as the first merge" in refusal("wise_ft", "ties")
    assert "allowed: model_tailor as the first merge" in refusal("dare", "model_tailor")
    assert "one of them" in refusal("ties", "model_tailor") and "one of them" in refusal("model_tailor", "ties")
    assert "continues_from: tuned" in refusal("ties", {"wise_ft": {"continues_from": "tuned"}})
    assert "cannot be combined with others" in refusal("lwf", None)
    assert refusal("lwf", "replai").startswith("[1]: unknown mitigation 'replai'")
    with pytest.raises(UserError, match="ewc measures"):
        get_mitigation(["replay", "ewc"]).check_recipe(get_recipe("moe"))


def sweep_of(mitigation: Any, **more: Any) -> Any:
    grid = {"model": ["tiny-onevision"], "recipe": more.pop("recipe", ["mlp"]), "mitigation": mitigation}
    return build_sweep({"name": "made", "orders": {"main": ["counting", "clock"]}, "grids": [grid], **more})


def test_a_list_inside_the_axis_is_one_trial_and_the_axis_stays_a_list_of_alternatives() -> None:
    sweep = sweep_of([None, "lwf", "replay", ["lwf", "replay"]])
    assert [trial.axes["mitigation"] for trial in sweep.trials] == [None, "lwf", "replay", "replay + lwf"]
    assert sweep.trial("replay + lwf").mitigation.name == "replay+lwf"


@pytest.mark.parametrize(
    ("mitigation", "place", "why"),
    [
        ([["lwf", "nothing"]], "grids[0].mitigation[0][1]", "unknown mitigation"),
        (["lwf", ["mofo", "spider"]], "grids[0].mitigation[1]", "both rewrite"),
        ([[]], "grids[0].mitigation[0]", "null stands for no mitigation"),
        ([["lwf", None]], "grids[0].mitigation[0]", "remove it from the inner list"),
        ([["lwf", "replay"], ["replay", "lwf"]], "grids[0].mitigation[1]", "is already listed"),
    ],
)
def test_a_refusal_names_the_place_in_the_combination(mitigation: Any, place: str, why: str) -> None:
    with pytest.raises(UserError) as refused:
        sweep_of(mitigation)
    assert place in str(refused.value) and why in str(refused.value)


def test_a_skill_may_have_a_combination_of_its_own() -> None:
    trial = sweep_of([None], per_skill={"clock": {"mitigation": ["replay", "lwf"]}}).trials[0]
    assert [stage.tuned.mitigation and stage.tuned.mitigation.name for stage in trial.stages[1:]] == [
        None,
        "replay+lwf",
    ]
    assert [each.name for each in trial.mitigations] == ["replay", "lwf"]


def test_merges_of_a_combination_meet_what_earlier_stages_trained() -> None:
    with pytest.raises(UserError, match="wise_ft merges tensors that all checkpoints have"):
        sweep_of([["lwf", "wise_ft"]], recipe=["moe"])


def combine_at_all(pair: tuple[str, str]) -> bool:
    try:
        get_mitigation(list(pair))
    except UserError:
        return False
    return True


@pytest.mark.parametrize("strategy", ["ddp", *DIVIDED])
def test_a_strategy_takes_a_combination_when_it_takes_every_member(strategy: str) -> None:
    def goes(mitigation: Mitigation) -> bool:
        try:
            check_divided(mitigation.in_training, strategy, trains_head=lambda: False)
        except UserError:
            return False
        return True

    training = [name for name in mitigation_names() if isinstance(get_mitigation(name), TrainingMitigation)]
    pairs = [pair for pair in combinations(training, 2) if combine_at_all(pair)]
    assert len(pairs) > 25 and ("mofo", "spider") not in pairs
    for one, other in pairs:
        assert goes(get_mitigation([one, other])) == (goes(get_mitigation(one)) and goes(get_mitigation(other)))
    held = [pair for pair in pairs if goes(get_mitigation(list(pair)))]
    assert ("lwf", "token_masking") in held and (strategy == "ddp") == (("lwf", "mofo") in held)


def test_what_each_member_worked_out_is_kept_for_a_stage_that_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "LEAST_SECONDS", 0.0)
    monkeypatch.setattr(recovery, "SHARE", 1e9)
    mitigation = combined("lwf", "l2_sp", {"token_masking": {"threshold": 50.0}})
    made = parts(stage(mitigation), tmp_path)
    first = recovery.start_state(mitigation, made.context, tmp_path / "runs", alone=True)
    assert [path.parent.name for path in sorted((tmp_path / "runs").rglob("state.pt"))] == ["lwf", "token_masking"]
    shake(made.model)  # what is read back is of the weights before
    again = recovery.start_state(mitigation, made.context, tmp_path / "runs", alone=True)
    at = [member.name for member in mitigation.members].index("lwf")
    one, other = first[at]["rows"], again[at]["rows"]
    assert all(torch.equal(one[row], other[row]) for row in one)


def test_a_combination_trains_the_same_however_its_batches_are_cut(tmp_path: Path) -> None:
    whole, cut = Ledger(str(tmp_path / "whole")), Ledger(str(tmp_path / "cut"))
    mitigation = combined("lwf", {"token_masking": {"threshold": 50.0}}, {"l2_sp": {"weight": 1.0}}, "spider")
    step = stage(mitigation)
    assert "token_masking+lwf+l2_sp+spider" in step.label
    finetune(step, whole, PLACE)
    finetune(step, cut, TrainingPlacement(micro_batch_size=1))
    assert difference(weights(step, whole), weights(step, cut)) < 1e-4


SETTINGS = {
    "replay": {"examples": 2},
    "model_tailor": {"samples": 8},
    "token_masking": {"threshold": 50.0},
    "mr_lora": {"examples": 2, "epochs": 2},  # two updates for the router, too
}


@pytest.mark.slow
@pytest.mark.parametrize("pair", list(combinations(mitigation_names(), 2)), ids="+".join)
def test_every_pair_that_is_not_refused_runs_two_stages(pair: tuple[str, str], tmp_path: Path) -> None:
    try:
        mitigation = get_mitigation([{name: SETTINGS.get(name, {})} for name in pair])
    except UserError:
        try:
            mitigation = get_mitigation([{name: SETTINGS.get(name, {})} for name in reversed(pair)])
        except UserError as refused:
            assert "allowed: " in str(refused)
            return
    recipe = get_recipe({"lora": {"rank": 4}} if {"o_lora", "mr_lora"} & set(pair) else "mlp")
    mitigation.check_recipe(recipe)
    skills = (made_skill("one", shades(8, 40)), made_skill("two", shades(8, 150)))
    trial = made_trial(mitigation=None, max_steps=2, global_batch_size=4, precision="fp32", learning_rate=1e-3)
    model = stage().parent.model
    trial = dataclasses.replace(trial, model=model, recipe=recipe, mitigation=mitigation, skills=skills, held_out=())
    ledger = Ledger(str(tmp_path))
    for step in trial.steps().values():
        if isinstance(step, Finetune):
            assert finetune(step, ledger, PLACE)["updates"] == 2
        elif isinstance(step, Merge):
            merge(step, ledger)
