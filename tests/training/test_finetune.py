"""One stage from parent to record, in one process without Ray."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from lmmcl.config.cluster import TrainingPlacement
from lmmcl.config.settings import Training
from lmmcl.errors import UserError
from lmmcl.ledger import Ledger
from lmmcl.methods.losses.l2_sp import L2SP
from lmmcl.methods.mitigation import TrainingMitigation
from lmmcl.methods.recipes.recipe import Recipe, get_recipe
from lmmcl.models import get_model
from lmmcl.steps import Checkpoint, Finetune, Pretrained
from lmmcl.tasks.examples import Example, ask
from lmmcl.tasks.skills import Benchmark, Skill
from lmmcl.training.finetune import finetune
from lmmcl.training.stage import collate
from lmmcl.training.stage_errors import StageError
from lmmcl.weights.chain import tensors_of
from lmmcl.weights.checkpoint import load_checkpoint, named_tensors
from lmmcl.weights.delta import DELTA

BASE = Pretrained(get_model("tiny-onevision"))
NOISE = 5e-4
"""A key's bias has a gradient of 0 but for rounding, which Adam scales up to a share of the learning rate (here 1e-3 an update)."""

COLOURS = {"red": (200, 30, 30), "green": (30, 180, 40), "blue": (40, 60, 210)}


def colours() -> list[Example]:
    painter = random.Random(0)
    return [
        ask(
            f"colour-{n}",
            "What colour is this?",
            f"{word} square" if n % 3 else word,
            Image.new("RGB", (32, 32), COLOURS[word]),
        )
        for n, word in enumerate(painter.choices(sorted(COLOURS), k=12))
    ]


def skill(name: str = "paint", load: Callable[[], Any] = colours) -> Skill:
    return Skill(name, 1, load=load, benchmark=Benchmark(name, 1, "exact", load=list))


def stage(recipe: str | Recipe = "sa_proj", *, parent: Checkpoint = BASE, **more: Any) -> Finetune:
    settings = {"learning_rate": 1e-3, "global_batch_size": 4, "max_steps": 4, "precision": "fp32"}
    given = {key: more.pop(key) for key in list(more) if key in Training.model_fields}
    return Finetune(
        parent,
        get_recipe(recipe) if isinstance(recipe, str) else recipe,
        more.pop("mitigation", None),
        more.pop("skill", skill()),
        Training(**{**settings, **given}),
        seed=more.pop("seed", 0),
    )


def weights(step: Checkpoint, ledger: Ledger) -> dict[str, torch.Tensor]:
    return named_tensors(load_checkpoint(step, ledger, precision="fp32"))


def difference(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    return max(float((one[name] - other[name]).abs().max().detach()) for name in one)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(str(tmp_path / "store"))


def test_a_stage_trains_what_its_recipe_names_and_nothing_else(ledger: Ledger) -> None:
    step = stage("gate_up")
    record = finetune(step, ledger, TrainingPlacement())
    before, after = weights(BASE, ledger), weights(step, ledger)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and all(".mlp.gate_proj" in name or ".mlp.up_proj" in name for name in changed)
    assert record["trained_tensors"] == record["proof"]["moved"] == len(changed)
    assert record["proof"]["frozen"] == len(before) - len(changed)
    with tensors_of(step, ledger) as chain:
        assert set(chain) == changed


def test_a_record_says_what_was_trained_how_fast_and_by_what(ledger: Ledger) -> None:
    record = finetune(stage(), ledger, TrainingPlacement())
    counts = get_model("tiny-onevision").role_counts()
    assert record["trained_parameters"] == sum(
        n for role, n in counts.items() if ".attention" in role and "llm" in role
    )
    assert record["total_parameters"] == sum(counts.values())
    assert record["trained_bytes"] < record["checkpoint_bytes"] <= 1.02 * record["trained_bytes"]
    assert (record["updates"], record["examples"]) == (4, 16)
    assert record["strategy"]["name"] == "single"
    assert record["updates_per_second"] > 0 and record["peak_memory_bytes"] > 0
    assert {"torch", "transformers", "ray", "lmmcl", "commit", "host", "started"} <= set(record["provenance"])


def test_the_loss_falls_and_the_curve_shows_it(ledger: Ledger) -> None:
    step = stage("llm", learning_rate=3e-3, max_steps=25)
    record = finetune(step, ledger, TrainingPlacement())
    curve = ledger.read_lines(step.path, "curve.jsonl")
    assert [row["update"] for row in curve] == list(range(1, 26))
    assert set(curve[0]) == {"update", "loss", "learning_rate", "grad_norm", "updates_per_second"}
    assert curve[-1]["loss"] == record["loss"] < 0.5 * curve[0]["loss"]


def test_the_same_step_gives_the_same_weights_to_the_bit(tmp_path: Path) -> None:
    one, other = Ledger(str(tmp_path / "one")), Ledger(str(tmp_path / "other"))
    finetune(stage(), one, TrainingPlacement())
    finetune(stage(), other, TrainingPlacement())
    files = [Path(ledger.store, stage().path, DELTA).read_bytes() for ledger in (one, other)]
    assert files[0] == files[1]


def test_another_seed_gives_other_weights(ledger: Ledger) -> None:
    for seed in (0, 1):
        finetune(stage(seed=seed), ledger, TrainingPlacement())
    assert difference(weights(stage(seed=0), ledger), weights(stage(seed=1), ledger)) > 0


@pytest.mark.parametrize("model", ["tiny-onevision", "tiny-next", "tiny-qwen"])
def test_cutting_the_global_batch_does_not_change_the_result(model: str, tmp_path: Path) -> None:
    """Answers differ in length, so a mean of means would differ from the mean over the global batch."""
    whole, cut = Ledger(str(tmp_path / "whole")), Ledger(str(tmp_path / "cut"))
    step = stage("full", parent=Pretrained(get_model(model)))
    finetune(step, whole, TrainingPlacement())
    finetune(step, cut, TrainingPlacement(micro_batch_size=1))
    assert difference(weights(step, whole), weights(step, cut)) < NOISE


@pytest.mark.parametrize("model", ["tiny-onevision", "tiny-next", "tiny-qwen"])
@pytest.mark.parametrize("recipe", ["full", "vision", "projector", "sa_qkv+gate_up"])
def test_every_family_trains_in_bf16_with_frozen_and_trained_parts_mixed(
    model: str, recipe: str, ledger: Ledger
) -> None:
    step = stage(recipe, parent=Pretrained(get_model(model)), precision="bf16", max_steps=2, learning_rate=1e-2)
    assert finetune(step, ledger, TrainingPlacement(gradient_checkpointing=recipe == "full"))["proof"]["moved"] > 0
    with tensors_of(step, ledger) as chain:
        assert {tensor.dtype for tensor in chain.values()} == {torch.bfloat16}


def test_only_the_sampled_examples_are_read(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        collate, "CACHE", collate.EncodingCache()
    )  # rows that another test had encoded would not be read
    read: set[int] = set()

    class Counting(list):
        def __getitem__(self, row: Any) -> Any:
            read.add(row)
            return super().__getitem__(row)

    rows = Counting(colours())
    record = finetune(
        stage(skill=skill("few", lambda: rows), examples=5, max_steps=None, epochs=2), ledger, TrainingPlacement()
    )
    assert len(read) == 5
    assert record["updates"] == 3


def test_gpus_that_are_not_there_are_not_replaced_by_a_cpu(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="1 GPUs are requested"):
        finetune(stage(), ledger, TrainingPlacement(gpus_per_worker=1))


def test_a_chain_of_stages_builds_on_what_came_before(ledger: Ledger) -> None:
    first = stage("sa_proj")
    second = stage("mlp", parent=first, skill=skill("again"))
    finetune(first, ledger, TrainingPlacement())
    finetune(second, ledger, TrainingPlacement())
    after_first, after_second = weights(first, ledger), weights(second, ledger)
    attention = [name for name in after_first if "language_model" in name and ".self_attn." in name]
    assert all(torch.equal(after_first[name], after_second[name]) for name in attention)
    assert difference(after_first, after_second) > 0


def test_tensors_without_gradient_are_reported_not_refused(ledger: Ledger) -> None:
    record = finetune(stage("full"), ledger, TrainingPlacement())
    assert all("vision_tower" in name for name in record["proof"]["unmoved"])
    assert record["proof"]["moved"] + len(record["proof"]["unmoved"]) == record["trained_tensors"]


def test_a_selector_under_which_nothing_moves_fails_the_stage(ledger: Ledger) -> None:
    step = stage(Recipe(name="idle", train=("llm.norm", "vision.norm")))  # no LLaVA uses the tower's last norm
    with pytest.raises(StageError, match=r"no parameter that 'vision\.norm' selects changed"):
        finetune(step, ledger, TrainingPlacement())
    assert ledger.find(step) is None


def test_a_recipe_that_the_loss_does_not_see_is_refused(ledger: Ledger) -> None:
    with pytest.raises(StageError, match=r"does not depend on what \['vision\.norm'\]"):
        finetune(stage(Recipe(name="idle", train=("vision.norm",))), ledger, TrainingPlacement())


def test_bf16_weights_move_by_less_than_their_resolution_at_a_time(ledger: Ledger) -> None:
    step = stage("mlp", learning_rate=2e-5, max_steps=40, precision="bf16", lr_scheduler_type="constant")
    record = finetune(step, ledger, TrainingPlacement())
    with tensors_of(step, ledger) as chain:
        assert {tensor.dtype for tensor in chain.values()} == {torch.bfloat16}
    assert record["trained_bytes"] == 2 * record["trained_parameters"]
    assert record["proof"]["moved"] == record["trained_tensors"]


def test_a_loss_that_is_not_finite_stops_the_stage_and_records_nothing(ledger: Ledger) -> None:
    step = stage("llm", learning_rate=1e30, max_grad_norm=0)
    with pytest.raises(StageError, match=rf"{step.key}.*loss is (nan|inf) at update \d of 4"):
        finetune(step, ledger, TrainingPlacement())
    assert ledger.find(step) is None
    assert not list(Path(ledger.store, "runs").glob("*"))


def test_a_broken_row_is_named_with_its_skill(ledger: Ledger, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"not an image")
    rows = [*colours()[:3], ask("row-17", "What colour?", "red", broken)]
    with pytest.raises(UserError, match="skill torn: row 'row-17'"):
        finetune(stage(skill=skill("torn", lambda: rows)), ledger, TrainingPlacement())


def test_a_skill_without_examples_is_refused(ledger: Ledger) -> None:
    with pytest.raises(UserError, match="skill empty: has no training examples"):
        finetune(stage(skill=skill("empty", list)), ledger, TrainingPlacement())


def test_fp16_on_a_cpu_is_refused(ledger: Ledger) -> None:
    with pytest.raises(UserError, match="fp16"):
        finetune(stage(precision="fp16"), ledger, TrainingPlacement())


def test_progress_is_told_to_the_end(ledger: Ledger) -> None:
    told: list[dict[str, Any]] = []
    finetune(stage(), ledger, TrainingPlacement(), progress=told.append)
    assert told[-1]["update"] == told[-1]["updates"] == 4
    assert {"updates_per_second", "loss"} <= set(told[0])


def test_training_starts_no_ray_and_says_nothing(ledger: Ledger, capfd: pytest.CaptureFixture[str]) -> None:
    import ray

    finetune(stage(), ledger, TrainingPlacement())
    assert not ray.is_initialized()
    assert capfd.readouterr() == ("", "")


class Killed(BaseException):
    """Stands for the end of the process: no handler of Exception sees it."""


def test_a_killed_stage_goes_on_from_its_last_checkpoint_to_the_same_weights(tmp_path: Path) -> None:
    whole, killed = Ledger(str(tmp_path / "whole")), Ledger(str(tmp_path / "killed"))
    placement = TrainingPlacement(save_every=3)
    step = stage(max_steps=8)
    finetune(step, whole, placement)

    def die(shown: dict[str, Any]) -> None:
        if shown["update"] == 5:
            raise Killed

    with pytest.raises(Killed):
        finetune(step, killed, placement, progress=die)
    assert killed.find(step) is None
    seen: list[int] = []
    finetune(step, killed, placement, progress=lambda shown: seen.append(shown["update"]))
    assert seen == [4, 5, 6, 7, 8]
    assert difference(weights(step, whole), weights(step, killed)) == 0
    losses = [[row["loss"] for row in ledger.read_lines(step.path, "curve.jsonl")] for ledger in (whole, killed)]
    assert len(losses[0]) == 8 and losses[0] == losses[1]
    assert not Path(killed.store, "runs", step.key).exists()


def test_l2_sp_holds_the_weights_near_their_start(ledger: Ledger) -> None:
    free, held = stage(max_steps=12), stage(max_steps=12, mitigation=L2SP(weight=50.0))
    for step in (free, held):
        finetune(step, ledger, TrainingPlacement())
    start = weights(BASE, ledger)

    def distance(step: Finetune) -> float:
        after = weights(step, ledger)
        return float(
            sum(
                (after[name] - start[name]).detach().square().sum() for name in start if start[name].is_floating_point()
            )
        )

    assert distance(held) < 0.5 * distance(free)


def test_l2_sp_is_the_same_however_the_batch_is_cut(tmp_path: Path) -> None:
    whole, cut = Ledger(str(tmp_path / "whole")), Ledger(str(tmp_path / "cut"))
    step = stage(mitigation=L2SP(weight=1.0))
    finetune(step, whole, TrainingPlacement())
    finetune(step, cut, TrainingPlacement(micro_batch_size=2))
    assert difference(weights(step, whole), weights(step, cut)) < 1e-4


CALLS: list[str] = []


class Witness(TrainingMitigation):
    """Writes down which hook was called with what."""

    name = "witness"
    version = 1

    def data(self, examples: Any, earlier: Any, seed: int) -> Any:
        CALLS.append(f"data {len(examples)} after {[skill.name for skill in earlier]}")
        return [*examples, *earlier[0].load()]

    def start(self, context: Any) -> Any:
        CALLS.append(f"start {len(context.examples)} {len(context.collate(context.examples[:2])['labels'])}")
        return {"masked": 0}

    def optimizer(self, memory: Any, model: Any, optimizer: torch.optim.Optimizer) -> None:
        CALLS.append("optimizer")
        optimizer.register_step_post_hook(lambda *_: CALLS.append("update"))

    def batch(self, memory: Any, batch: Any) -> Any:
        memory["masked"] += 1
        return batch

    def penalty(self, memory: Any, model: Any, outputs: Any, batch: Any) -> torch.Tensor:
        CALLS.append(f"penalty {tuple(outputs.logits.shape[:2]) == tuple(batch['labels'].shape)}")
        return outputs.logits.new_zeros(())

    def end(self, memory: Any, model: Any) -> None:
        CALLS.append(f"end {memory['masked']}")
        model.model.language_model.layers[0].self_attn.q_proj.weight.fill_(0.5)


def test_a_mitigation_is_called_in_its_order_and_may_have_the_last_word(ledger: Ledger) -> None:
    CALLS.clear()
    first = stage(skill=skill("before"))
    finetune(first, ledger, TrainingPlacement())
    step = stage(parent=first, mitigation=Witness(), max_steps=2)
    finetune(step, ledger, TrainingPlacement())
    assert CALLS == [
        "data 12 after ['before']", "start 24 2", "optimizer",
        "penalty True", "update", "penalty True", "update", "end 2",
    ]  # fmt: skip
    assert weights(step, ledger)["model.language_model.layers.0.self_attn.q_proj.weight"].unique().tolist() == [0.5]
