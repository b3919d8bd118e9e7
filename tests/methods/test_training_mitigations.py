"""What holds for every mitigation that acts during training: half precision, resuming, cutting of batches, worker groups."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from stage_parts import difference, made_skill, shades, stage, weights

from lmmcl.config.cluster import TrainingPlacement
from lmmcl.ledger import Ledger
from lmmcl.methods import get_mitigation
from lmmcl.methods.mitigation import TrainingMitigation
from lmmcl.registry import members
from lmmcl.steps import Finetune
from lmmcl.training.finetune import finetune

KINDS: dict[str, type[TrainingMitigation]] = {
    name: kind for name, kind in members("lmmcl.methods", "MITIGATIONS").items() if issubclass(kind, TrainingMitigation)
}
EASY: dict[str, dict[str, Any]] = {
    "token_masking": {"threshold": 50.0},
    "ewc": {"examples": 6},
    "grpo": {"group": 4, "kl": 0.1, "temperature": 2.0},
    "sdft": {"rate": 0.5},
}
"""Settings under which a handful of examples suffices."""


COMBINED = (
    "replay+token_masking+lwf+l2_sp",
    "lwf+ewc+mofo",
    "token_masking+eaft+kl_to_start",
    "dft+kl_on_samples",
    "sdft+l2_sp",
)
"""Combinations that have every hook between them."""


def made(name: str) -> TrainingMitigation:
    found = get_mitigation([{each: EASY.get(each, {})} for each in name.split("+")]).in_training
    assert found is not None
    return found


def second_stage(name: str, ledger: Ledger, **more: Any) -> Finetune:
    """A protected stage after a plain one, which is recorded."""
    first = stage(max_steps=1, precision=more.get("precision", "fp32"), skill=made_skill("before"))
    finetune(first, ledger, TrainingPlacement())
    return stage(made(name), parent=first, skill=made_skill("after", shades(12, green=200)), **more)


def test_there_are_as_many_as_the_literature_compares() -> None:
    assert set(KINDS) >= {
        "l2_sp",
        "lwf",
        "ewc",
        "mofo",
        "spider",
        "token_masking",
        "data_hybrid",
        "replay",
        "eaft",
        "dft",
        "kl_to_start",
    }


@pytest.mark.parametrize("name", KINDS)
def test_a_stage_in_half_precision_is_protected_too(name: str, tmp_path: Path) -> None:
    ledger = Ledger(str(tmp_path))
    record = finetune(second_stage(name, ledger, precision="bf16", max_steps=2), ledger, TrainingPlacement())
    assert record["updates"] == 2
    assert (0 if name != "grpo" else -1) < record["loss"] < 20, "the advantages of a group sum to 0"


class Killed(BaseException):
    """Stands for the end of the process: no handler of Exception sees it."""


@pytest.mark.parametrize("name", [*KINDS, *COMBINED])
def test_a_killed_stage_goes_on_to_the_same_weights(name: str, tmp_path: Path) -> None:
    whole, killed = Ledger(str(tmp_path / "whole")), Ledger(str(tmp_path / "killed"))
    placement = TrainingPlacement(save_every=2)
    step = second_stage(name, whole)
    second_stage(name, killed)
    finetune(step, whole, placement)

    def die(shown: dict[str, Any]) -> None:
        if shown["update"] == 3:
            raise Killed

    with pytest.raises(Killed):
        finetune(step, killed, placement, progress=die)
    seen: list[int] = []
    finetune(step, killed, placement, progress=lambda shown: seen.append(shown["update"]))
    assert seen == [3, 4]
    assert difference(weights(step, whole), weights(step, killed)) == 0


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    import ray

    paths = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1]), str(Path(__file__).parent)]
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        runtime_env={"env_vars": {"PYTHONPATH": os.pathsep.join(paths)}},
        _temp_dir=str(tmp_path_factory.mktemp("ray")),
    )
    yield
    ray.shutdown()


@pytest.mark.slow
@pytest.mark.parametrize("name", [*KINDS, *COMBINED])
def test_two_workers_compute_what_one_process_does(name: str, tmp_path: Path, cluster: None) -> None:
    alone, shared = Ledger(str(tmp_path / "alone")), Ledger(str(tmp_path / "shared"))
    step = second_stage(name, alone)
    second_stage(name, shared)
    finetune(step, alone, TrainingPlacement())
    finetune(step, shared, TrainingPlacement(workers=2, micro_batch_size=1))
    assert difference(weights(step, alone), weights(step, shared)) < 1e-4
