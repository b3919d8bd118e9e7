"""A strategy divides a model among workers and changes nothing of what comes out; what was not applied is refused."""

from __future__ import annotations

import os
import sys
import time
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from lmmcl.errors import UserError
from lmmcl.ledger import Ledger
from lmmcl.methods import get_mitigation
from lmmcl.methods.mitigation import TrainingMitigation
from lmmcl.methods.recipes import get_recipe
from lmmcl.models import get_model
from lmmcl.spec.cluster import TrainingPlacement
from lmmcl.spec.settings import Training
from lmmcl.spec.steps import Checkpoint, Finetune, Pretrained
from lmmcl.tasks.base import Benchmark, Example, Skill, ask
from lmmcl.training.errors import StageError
from lmmcl.training.finetune import finetune
from lmmcl.training.strategies import check_strategy, deepspeed_config, describe, strategy_arguments, wanted
from lmmcl.weights.checkpoint import load_checkpoint, named_tensors

BASE = Pretrained(get_model("tiny-onevision"))
TOLERANCE = 5e-4
"""Of weights after six updates of 1e-3 in fp32: the order of sums differs, and Adam scales rounding up where gradients are 0."""


def shades() -> list[Example]:
    """Answers of different lengths, so that a mean per worker would differ from the mean over the global batch."""
    words = ["red", "red circle", "small red circle left of blue square"]
    return [
        ask(str(n), "What is shown?", words[n % 3], Image.new("RGB", (32, 32), (20 * n, 40, 90))) for n in range(12)
    ]


def stage(
    recipe: str = "sa_proj", mitigation: TrainingMitigation | None = None, parent: Checkpoint = BASE, **more: Any
) -> Finetune:
    skill = Skill("shades", 1, load=shades, benchmark=Benchmark("shades", 1, "exact", load=list))
    settings = {"learning_rate": 1e-3, "global_batch_size": 4, "max_steps": 6, "precision": "fp32", **more}
    return Finetune(parent, get_recipe(recipe), mitigation, skill, Training(**settings), seed=0)


def zero(number: int, **more: Any) -> TrainingPlacement:
    return TrainingPlacement.model_validate({"workers": 1, "strategy": "deepspeed", "zero_stage": number, **more})


def difference(step: Finetune, one: Ledger, other: Ledger) -> float:
    first, second = (named_tensors(load_checkpoint(step, ledger, precision="fp32")) for ledger in (one, other))
    return max(float((first[name] - second[name]).detach().abs().max()) for name in first)


def test_a_placement_says_its_strategy_in_a_word() -> None:
    assert wanted(TrainingPlacement()) == "single"
    assert wanted(TrainingPlacement(workers=2)) == "ddp"
    assert wanted(zero(3)) == "zero3"


def test_switches_reach_the_trainer() -> None:
    told = strategy_arguments(TrainingPlacement(gradient_checkpointing=True, compile=True))
    assert told["gradient_checkpointing"] and told["torch_compile"] and "deepspeed" not in told
    config = deepspeed_config(zero(3, offload="parameters"))
    assert config["zero_optimization"]["offload_param"] == {"device": "cpu"}
    assert config["zero_optimization"]["offload_optimizer"] == {"device": "cpu"}
    assert "offload_optimizer" not in deepspeed_config(zero(2))["zero_optimization"]


def test_a_mitigation_that_reads_what_is_divided_is_refused() -> None:
    penalty = stage(mitigation=get_mitigation({"l2_sp": {"weight": 1.0}}))
    check_strategy(penalty, zero(2))
    with pytest.raises(UserError, match=r"l2_sp reads weights.*zero3.*allowed with it"):
        check_strategy(penalty, zero(3))
    check_strategy(stage(), zero(3))


def test_a_strategy_that_the_trainer_would_silently_drop_is_refused() -> None:
    hidden = TrainingPlacement.model_construct(**{**TrainingPlacement(workers=2).model_dump(), "strategy": "fsdp"})
    with pytest.raises(UserError, match="without a word"):
        check_strategy(stage(), hidden)


def test_kernels_that_would_replace_nothing_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    kernels = types.ModuleType("liger_kernel.transformers.monkey_patch")
    kernels.MODEL_TYPE_TO_APPLY_LIGER_FN = {"qwen2_5_vl": print}  # type: ignore[attr-defined]
    for name in ("liger_kernel", "liger_kernel.transformers"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, kernels.__name__, kernels)
    asked = TrainingPlacement.model_construct(**{**TrainingPlacement().model_dump(), "liger": True})

    def trainer(model_type: str) -> Any:
        config = types.SimpleNamespace(model_type=model_type)
        model = torch.nn.Linear(1, 1)
        return types.SimpleNamespace(
            step=stage(),
            taught=types.SimpleNamespace(config=config),
            model_wrapped=model,
            is_deepspeed_enabled=False,
            args=types.SimpleNamespace(world_size=1, device="cuda:0"),
        )

    assert describe(trainer("qwen2_5_vl"), asked)["liger"]
    with pytest.raises(StageError, match="no kernels for llava_onevision"):
        describe(trainer("llava_onevision"), asked)


class DieOnce(TrainingMitigation):
    """Ends the process of a worker, without a word, in the fifth update; `diary` gets a line for each batch."""

    name = "die_once"
    version = 1
    diary: str

    def batch(self, memory: Any, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        with Path(self.diary).open("a") as diary:
            diary.write("batch\n")
        if len(Path(self.diary).read_text().splitlines()) == 5:
            time.sleep(5)  # what was reported within two seconds of a death may be lost
            os._exit(1)
        return batch


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    import ray

    paths = [str(Path(__file__).parents[2]), str(Path(__file__).parent)]
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        runtime_env={"env_vars": {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}},
        _temp_dir=str(tmp_path_factory.mktemp("ray")),
    )
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Ledger:
    """Stages trained in one process without any strategy."""
    ledger = Ledger(str(tmp_path_factory.mktemp("plain")))
    finetune(stage(), ledger, TrainingPlacement())
    finetune(stage(max_steps=8), ledger, TrainingPlacement())
    return ledger


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize(("number", "workers"), [(2, 1), (3, 1), (2, 2), (3, 2)])
def test_zero_trains_the_same_weights_and_says_so(plain: Ledger, number: int, workers: int, tmp_path: Path) -> None:
    ledger, step = Ledger(str(tmp_path)), stage()
    record = finetune(step, ledger, zero(number, workers=workers))
    assert record["strategy"]["name"] == f"zero{number}"
    assert (record["strategy"]["workers"], record["strategy"]["backend"]) == (workers, "gloo")
    before = plain.find(step)
    assert before is not None
    assert record["proof"] == before["proof"], "the same tensors moved, all others are bit-identical"
    assert record["checkpoint_bytes"] == before["checkpoint_bytes"]
    assert difference(step, plain, ledger) < TOLERANCE
    losses = [[row["loss"] for row in each.read_lines(step.path, "curve.jsonl")] for each in (plain, ledger)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    after = stage(parent=step)  # what one strategy saved, another goes on from
    assert finetune(after, ledger, TrainingPlacement())["proof"]["moved"] == record["proof"]["moved"]


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_zero_offloads_the_optimizer_and_accumulates_in_half_precision(tmp_path: Path) -> None:
    ledger, step = Ledger(str(tmp_path)), stage(precision="bf16")
    record = finetune(step, ledger, zero(2, offload="optimizer", micro_batch_size=2, gradient_checkpointing=True))
    assert record["strategy"]["offload"] == "optimizer" and record["strategy"]["gradient_checkpointing"]
    whole = Ledger(str(tmp_path / "whole"))
    finetune(step, whole, TrainingPlacement())
    assert difference(step, whole, ledger) < 8e-3, "a unit in the last place of bf16 at 1, and two roundings"


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("number", [2, 3])
def test_a_divided_stage_goes_on_from_its_last_checkpoint(plain: Ledger, number: int, tmp_path: Path) -> None:
    ledger, diary = Ledger(str(tmp_path / "store")), tmp_path / "diary"
    step = stage(mitigation=DieOnce(diary=str(diary)), max_steps=8)
    record = finetune(step, ledger, zero(number, save_every=3, max_failures=1))
    assert record["updates"] == 8
    assert len(diary.read_text().splitlines()) < 5 + 8, "updates 1 to 3 were not repeated"
    own = named_tensors(load_checkpoint(step, ledger, precision="fp32"))
    other = named_tensors(load_checkpoint(stage(max_steps=8), plain, precision="fp32"))
    assert max(float((own[name] - other[name]).detach().abs().max()) for name in own) < TOLERANCE
