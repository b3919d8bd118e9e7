"""A merge step: which checkpoints it combines, what it writes, and what it refuses."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
import torch
from made import made_trial
from safetensors.torch import load_file, save_file

from lmmcl.config.settings import Training
from lmmcl.errors import UserError
from lmmcl.ledger import Ledger
from lmmcl.methods import get_mitigation
from lmmcl.methods.mitigation import MergeMitigation
from lmmcl.methods.recipes.recipe import get_recipe
from lmmcl.models import get_model
from lmmcl.steps import Checkpoint, Finetune, Merge, Pretrained, skills_of
from lmmcl.tasks.skills import Benchmark, Skill
from lmmcl.weights.checkpoint import base_digest, load_checkpoint, named_tensors
from lmmcl.weights.delta import DELTA, CheckpointError, save_delta
from lmmcl.weights.merging import DeltaWriter, differing_bits, merge

MODEL = get_model("tiny-onevision")
BASE = Pretrained(MODEL)
Q0, V1, NORM = (
    f"model.language_model.{name}.weight" for name in ("layers.0.self_attn.q_proj", "layers.1.self_attn.v_proj", "norm")
)
RULES = ["wise_ft", "task_arithmetic", "ties", "dare", "grafting"]


def fine_tune(parent: Checkpoint, name: str, precision: str = "fp32") -> Finetune:
    skill = Skill(name, 1, load=list, benchmark=Benchmark(name, 1, "exact_match", load=list))
    return Finetune(parent, get_recipe("sa_proj"), None, skill, Training(precision=precision), seed=0)  # type: ignore[arg-type]


def rule(spec: str | dict) -> MergeMitigation:
    found = get_mitigation(spec)
    assert isinstance(found, MergeMitigation)
    return found


def start(precision: str = "fp32") -> dict[str, torch.Tensor]:
    return {name: t.detach().clone() for name, t in named_tensors(MODEL.load_model(precision=precision)).items()}


def moved(names: tuple[str, ...], seed: int, precision: str = "fp32") -> dict[str, torch.Tensor]:
    """The named tensors of the pre-trained model, each entry moved a little."""
    noise, own = torch.Generator().manual_seed(seed), start(precision)
    return {n: own[n] + (0.01 * torch.randn(own[n].shape, generator=noise)).to(own[n].dtype) for n in names}


def record(step: Finetune, ledger: Ledger, tensors: dict[str, torch.Tensor]) -> Finetune:
    """Write what training `step` would have left."""
    with ledger.writing(step) as draft:
        digest = base_digest(MODEL, step.training.precision)
        save_delta(draft.folder, tensors, parent_key=step.parent.key, base_digest=digest)
        draft.commit({"precision": step.training.precision, "provenance": {}})
    return step


def whole(step: Checkpoint, ledger: Ledger, precision: str = "fp32") -> dict[str, torch.Tensor]:
    return named_tensors(load_checkpoint(step, ledger, precision=precision))


def same_bits(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return set(one) == set(other) and not any(differing_bits(one[name], other[name]) for name in one)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(str(tmp_path))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_wise_ft_ends_in_the_two_models_bit_by_bit(ledger: Ledger, precision: str) -> None:
    first = record(fine_tune(BASE, "one", precision), ledger, moved((Q0, NORM), 1, precision))
    second = record(fine_tune(first, "two", precision), ledger, moved((Q0, V1), 2, precision))
    for alpha, end in ((0, first), (1, second)):
        step = Merge(first, (second,), rule({"wise_ft": {"alpha": alpha}}))
        merge(step, ledger)
        assert same_bits(whole(step, ledger, precision), whole(end, ledger, precision))


def test_only_tensors_that_differ_from_the_anchor_are_written(ledger: Ledger) -> None:
    step = record(fine_tune(BASE, "one"), ledger, moved((Q0, V1), 1))
    none = merge(Merge(BASE, (step,), rule({"wise_ft": {"alpha": 0}})), ledger)
    half = merge(Merge(BASE, (step,), rule({"wise_ft": {"alpha": 0.5}})), ledger)
    assert (none["merged_tensors"], none["changed_tensors"], none["changed_entries"]) == (2, 0, 0)
    assert (half["merged_tensors"], half["changed_tensors"]) == (2, 2)
    assert set(load_file(Path(ledger.store, half.path, DELTA))) == {Q0, V1}
    assert none["checkpoint_bytes"] < 1000 < half["checkpoint_bytes"]


def test_several_fine_tunes_from_the_base_are_added_where_each_moved_something(ledger: Ledger) -> None:
    one = record(fine_tune(BASE, "one"), ledger, moved((Q0, NORM), 1))
    two = record(fine_tune(BASE, "two"), ledger, moved((Q0, V1), 2))
    step = Merge(BASE, (one, two), rule({"task_arithmetic": {"scale": 0.5}}))
    merge(step, ledger)
    base, merged = start(), whole(step, ledger)
    change = {name: merged[name].double() - base[name].double() for name in base}
    for name in (Q0, V1, NORM):
        expected = sum(0.5 * (whole(each, ledger)[name].double() - base[name].double()) for each in (one, two))
        torch.testing.assert_close(change.pop(name), expected, atol=1e-7, rtol=0)
    assert not any(value.any() for value in change.values())


@pytest.mark.parametrize("spec", RULES)
def test_a_merge_can_be_merged_upon(ledger: Ledger, spec: str) -> None:
    first = record(fine_tune(BASE, "one"), ledger, moved((Q0,), 1))
    one = Merge(BASE, (first,), rule(spec))
    merge(one, ledger)
    second = record(fine_tune(one, "two"), ledger, moved((V1,), 2))
    two = Merge(one, (second,), rule(spec))
    assert merge(two, ledger)["merged_tensors"] == 1, "what the anchor has already is not merged again"
    assert torch.equal(whole(two, ledger)[Q0], whole(one, ledger)[Q0])
    assert [skill.name for skill in skills_of(second, since=BASE)] == ["one", "two"]
    assert [skill.name for skill in skills_of(second, since=one)] == ["two"]


@pytest.mark.parametrize("spec", [*RULES, {"ties": {"scope": "tensor"}}])
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_every_rule_keeps_the_precision_of_the_weights(ledger: Ledger, spec: str, precision: str) -> None:
    tuned = record(fine_tune(BASE, "one", precision), ledger, moved((Q0, NORM), 1, precision))
    step = Merge(BASE, (tuned,), rule(spec))
    merge(step, ledger)
    dtypes = {tensor.dtype for tensor in load_file(Path(ledger.store, step.path, DELTA)).values()}
    assert dtypes == {{"bf16": torch.bfloat16, "fp16": torch.float16}[precision]}


def test_a_merge_without_its_parent_is_refused(ledger: Ledger) -> None:
    step = Merge(BASE, (fine_tune(BASE, "one"),), rule("wise_ft"))
    with pytest.raises(CheckpointError, match="no such file"):
        merge(step, ledger)
    assert ledger.find(step) is None
    assert ledger.being_written() == set()


def test_a_fine_tune_of_another_parent_or_base_is_refused(ledger: Ledger) -> None:
    tuned, tensors = fine_tune(BASE, "one"), moved((Q0,), 1)
    for wrong, said in (
        ({"parent_key": "0" * 16}, "is a child of"),
        ({"base_digest": "fp32:0"}, "belongs to the base"),
    ):
        store = Ledger(f"{ledger.store}/{next(iter(wrong))}")
        with store.writing(tuned) as draft:
            right = {"parent_key": BASE.key, "base_digest": base_digest(MODEL, "fp32")}
            save_delta(draft.folder, tensors, **{**right, **wrong})
            draft.commit({})
        with pytest.raises(CheckpointError, match=said):
            merge(Merge(BASE, (tuned,), rule("ties")), store)


def test_weights_that_overflow_are_not_recorded(ledger: Ledger) -> None:
    tuned = record(fine_tune(BASE, "one", "fp16"), ledger, {Q0: start("fp16")[Q0] + 100})
    step = Merge(BASE, (tuned,), rule({"task_arithmetic": {"scale": 1e4}}))
    with pytest.raises(UserError, match="infinite or NaN"):
        merge(step, ledger)
    assert ledger.find(step) is None


def test_a_file_written_bit_by_bit_is_the_one_written_at_once(tmp_path: Path) -> None:
    tensors = {
        "wide": torch.randn(3, 5, dtype=torch.float64),
        "a.weight": torch.randn(4, 1),
        "half": torch.randn(7).bfloat16(),
        "none": torch.empty(0, 3).bfloat16(),
        "scalar": torch.tensor(2.0).half(),
    }
    with DeltaWriter(tmp_path / "streamed", [*tensors, "one that never comes"], {"format": "x"}) as file:
        for name, tensor in tensors.items():
            file.add(name, tensor)
    save_file(tensors, tmp_path / "at once", metadata={"format": "x"})
    streamed, at_once = load_file(tmp_path / "streamed"), load_file(tmp_path / "at once")
    assert same_bits(streamed, at_once) and set(streamed) == set(tensors)
    [room] = struct.unpack("<Q", (tmp_path / "streamed").read_bytes()[:8])
    assert room % 8 == 0, "tensors begin at an address that fits their dtype"


MULTIPLE = [name for name in RULES if name != "wise_ft"] + ["model_tailor"]
CHOICES = [(name, how) for name in MULTIPLE for how in ("merged", "tuned", "base")]


@pytest.mark.parametrize(("name", "how"), [*CHOICES, ("wise_ft", "merged"), ("wise_ft", "tuned")])
def test_where_the_next_stage_starts_decides_what_is_merged(name: str, how: str) -> None:
    skills = ("first", "second", "third")
    base, *merges = [
        stage.checkpoint for stage in made_trial(mitigation={name: {"continues_from": how}}, skills=skills).stages
    ]
    plain = [stage.checkpoint.key for stage in made_trial(skills=skills).stages][1:]
    for number, step in enumerate(merges):
        assert isinstance(step, Merge)
        before = merges[number - 1] if number else base
        starts = {"merged": before, "tuned": merges[number - 1].tuned if number else base, "base": base}  # type: ignore[union-attr]
        assert step.tuned.parent.key == starts[how].key
        assert step.anchor.key == (before if how == "merged" else base).key
        assert [f.skill.name for f in step.finetunes] == list(
            skills[: number + 1] if how == "base" else skills[number : number + 1]
        )
        assert step.depth == number + 1
        assert step.label.startswith(f"{number + 1}-{skills[number]}-llm")
        assert [s.name for s in skills_of(step.tuned, since=step.anchor)] == list(
            skills[: number + 1] if how == "tuned" else skills[number : number + 1]
        )
    if how == "tuned":
        assert [step.tuned.key for step in merges] == plain, "fine-tunes are those of a trial without mitigation"  # type: ignore[union-attr]


def test_all_rules_and_all_their_settings_share_the_fine_tunes_from_the_base() -> None:
    trials = [
        made_trial(mitigation=spec)
        for spec in [*MULTIPLE, {"ties": {"keep": 0.5}}, {"model_tailor": {"keep": 0.3}}, {"dare": {"seed": 3}}]
    ]
    kinds = [{key: step.kind for key, step in trial.steps().items()} for trial in trials]
    fine_tunes = {key for found in kinds for key, kind in found.items() if kind == "finetune"}
    merges = {key for found in kinds for key, kind in found.items() if kind == "merge"}
    assert len(fine_tunes) == 2
    assert len(merges) == 2 * len(trials)


def test_after_one_skill_all_ways_to_continue_are_one_step() -> None:
    keys = {
        made_trial(mitigation={"ties": {"continues_from": how}}).stages[1].checkpoint.key
        for how in ("merged", "tuned", "base")
    }
    assert len(keys) == 1


CAME_LATER = {"model_tailor": {"layers": ["llm"], "put_back": ["projector"]}}
"""Settings that are in an identity only where they are set, so that older keys stay."""


@pytest.mark.parametrize("name", [*MULTIPLE, "wise_ft"])
def test_every_setting_of_a_rule_but_where_it_continues_is_in_its_identity(name: str) -> None:
    fields = set(type(rule(name)).model_fields) - {"continues_from"}
    later = CAME_LATER.get(name, {})
    assert (fields - set(later)) | {"name", "version"} == set(rule(name).identity())
    assert fields | {"name", "version"} == set(rule({name: later}).identity())


def test_a_name_says_first_what_is_merged_then_where_it_goes_on() -> None:
    assert (
        rule({"wise_ft": {"continues_from": "tuned", "alpha": 0.5}}).label == "wise_ft(alpha=0.5,continues_from=tuned)"
    )
    assert rule({"ties": {"continues_from": "base", "keep": 0.2}}).label == "ties"
