"""What stays loaded: checkpoints swapped over one base equal fresh loads to the bit, read and digested once, and still proved."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from stage_parts import BASE, made_skill, shades, stage

from lmmcl.config.cluster import TrainingPlacement
from lmmcl.errors import UserError
from lmmcl.ledger import Ledger
from lmmcl.methods.mitigation import TrainingMitigation
from lmmcl.models import get_model
from lmmcl.models.inputs.model_settings import ModelSettings
from lmmcl.models.quantized.base_settings import BaseSettings
from lmmcl.steps import Finetune, Pretrained
from lmmcl.training.finetune import finetune
from lmmcl.training.stage_errors import StageError
from lmmcl.weights import fast_digest, resident, swapping
from lmmcl.weights.checkpoint import load_checkpoint, named_tensors
from lmmcl.weights.delta import save_delta
from lmmcl.weights.resident import share_parameters
from lmmcl.weights.swapping import forget_loaded

PLACE = TrainingPlacement()
FROZEN = "model.language_model.embed_tokens.weight"
ATTENTION = "model.language_model.layers.0.self_attn.q_proj.weight"
NF4 = Pretrained(get_model("tiny-onevision").with_settings(ModelSettings(base=BaseSettings(quantize="nf4"))))
LORA: Any = {"lora_all": {"rank": 4, "alpha": 16}}
KINDS: dict[str, tuple[Any, Pretrained]] = {
    "component": ("sa_proj", BASE),
    "lora": (LORA, BASE),
    "qlora": (LORA, NF4),
    "experts": ("moe", BASE),
    "experts of lora": ("moelora", BASE),
    "osf": ("osf", BASE),
}

SLOW = ("experts of lora", "osf", "component")


@pytest.fixture(autouse=True)
def nothing_loaded() -> Iterator[None]:
    forget_loaded()
    yield
    forget_loaded()


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(str(tmp_path / "store"))


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often a pre-trained model was read, by precision."""
    counts: Counter[str] = Counter()
    read = resident._read

    def counted(lmm: Any, place: Any) -> Any:
        counts[place.precision] += 1
        return read(lmm, place)

    monkeypatch.setattr(resident, "_read", counted)
    return counts


def chain(recipe: Any, parent: Any, precision: str, count: int = 2) -> list[Finetune]:
    steps: list[Finetune] = []
    for number in range(count):
        skill = made_skill(f"skill{number}", shades(8, green=40 + 50 * number))
        start = steps[-1] if steps else parent
        steps.append(stage(recipe=recipe, parent=start, precision=precision, max_steps=1, skill=skill))
    return steps


def swapped(step: Any, ledger: Ledger, precision: str) -> dict[str, torch.Tensor]:
    return named_tensors(load_checkpoint(step, ledger, precision=precision, shared=True))


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        one[name].dtype == other[name].dtype and torch.equal(one[name], other[name]) for name in one
    )


@pytest.mark.parametrize(
    ("kind", "precision"),
    [("component", "fp32"), *((kind, "bf16") for kind in KINDS if kind not in SLOW)]
    + [pytest.param(kind, "bf16", marks=pytest.mark.slow) for kind in SLOW],
)
def test_a_checkpoint_that_is_swapped_in_is_the_one_that_a_fresh_process_loads(
    kind: str, precision: str, ledger: Ledger, reads: Counter[str]
) -> None:
    recipe, parent = KINDS[kind]
    steps = chain(recipe, parent, precision)
    for step in steps:
        finetune(step, ledger, PLACE)
    assert reads == {precision: 1}
    back_and_forth = [parent, steps[1], steps[0], steps[1], parent]
    tensors = [swapped(step, ledger, precision) for step in back_and_forth]
    other = {"fp32": "bf16", "bf16": "fp32"}[precision]
    otherwise = swapped(steps[1], ledger, other)
    forget_loaded()
    for step, values in zip(back_and_forth, tensors, strict=True):
        assert equal(values, named_tensors(load_checkpoint(step, ledger, precision=precision))), step.label
    forget_loaded()
    assert equal(otherwise, named_tensors(load_checkpoint(steps[1], ledger, precision=other)))


def test_stages_that_start_from_memory_give_the_weights_that_stages_from_files_give(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = chain("sa_proj", BASE, "bf16")
    ledgers = [Ledger(str(tmp_path / name)) for name in ("memory", "files")]
    for step in steps:
        finetune(step, ledgers[0], PLACE)
    for step in steps:
        forget_loaded()
        finetune(step, ledgers[1], PLACE)
    digests = [[ledger.find(step).files["delta.safetensors"] for step in steps] for ledger in ledgers]  # type: ignore[union-attr]
    assert digests[0] == digests[1]


def test_a_stage_after_another_reads_no_delta_and_proves_each_tensor_once_without_sha256(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    digested: Counter[int] = Counter()
    digest = fast_digest.fast_digest

    def counted(tensor: torch.Tensor) -> str:
        digested[0] += tensor.nbytes
        return digest(tensor)

    first, second, third = chain("sa_proj", BASE, "fp32", 3)
    finetune(first, ledger, PLACE)
    size = sum(tensor.nbytes for tensor in named_tensors(load_checkpoint(first, ledger, precision="fp32")).values())
    monkeypatch.setattr(fast_digest, "fast_digest", counted)
    monkeypatch.setattr(resident, "digest_tensor", lambda _: pytest.fail("SHA-256 of weights"))
    monkeypatch.setattr("lmmcl.weights.delta.Delta.tensor", lambda *_: pytest.fail("a delta is read"))
    for step in (second, third):
        digested.clear()
        finetune(step, ledger, PLACE)
        assert digested[0] == size  # once, when the stage is over


class Meddling(TrainingMitigation[None]):
    """Flips the lowest bit of the last entry of a weight that is frozen, in place."""

    name, version = "meddling", 1

    def end(self, state: None, model: Any) -> None:
        dict(model.named_parameters())[FROZEN].detach().view(torch.int32).view(-1)[-1] ^= 1


class Replacing(TrainingMitigation[None]):
    """Puts another tensor in the place of a frozen weight, and writes into a buffer."""

    name, version = "replacing", 1

    def end(self, state: None, model: Any) -> None:
        weight = dict(model.named_parameters())[FROZEN]
        weight.data = weight.data.clone()
        weight.data[0, 0] = -weight.data[0, 0]
        next(buffer for buffer in model.buffers() if buffer.is_floating_point()).view(-1)[0] += 1


def test_frozen_weights_that_are_replaced_and_buffers_that_are_written_fail_the_stage(ledger: Ledger) -> None:
    with pytest.raises(StageError, match="2 frozen tensors changed"):
        finetune(stage(Replacing(), max_steps=1), ledger, PLACE)


def test_one_flipped_bit_of_a_frozen_weight_fails_the_stage_and_does_not_stay(
    ledger: Ledger, reads: Counter[str]
) -> None:
    with pytest.raises(StageError, match=f"1 frozen tensors changed: {FROZEN}"):
        finetune(stage(Meddling()), ledger, PLACE)
    pretrained = named_tensors(BASE.model.load_model())
    assert torch.equal(swapped(BASE, ledger, "fp32")[FROZEN], pretrained[FROZEN])
    assert reads == {"fp32": 2}


def test_what_is_the_callers_own_may_be_written_into(ledger: Ledger) -> None:
    (step,) = chain("sa_proj", BASE, "fp32", 1)
    finetune(step, ledger, PLACE)
    before = {name: tensor.clone() for name, tensor in swapped(step, ledger, "fp32").items()}
    own = load_checkpoint(step, ledger, precision="fp32")
    with torch.no_grad():
        for tensor in named_tensors(own).values():
            tensor += 1
    assert equal(swapped(step, ledger, "fp32"), before)


def test_a_checkpoint_of_the_same_key_with_other_weights_is_not_taken_from_memory(tmp_path: Path) -> None:
    here, there = Ledger(str(tmp_path / "here")), Ledger(str(tmp_path / "there"))
    (step,) = chain("sa_proj", BASE, "fp32", 1)
    finetune(step, here, PLACE)
    assert len(swapping._STATES) == 1
    value = swapped(step, here, "fp32")[ATTENTION]
    with there.writing(step) as draft:
        digest = resident.resident_base(BASE.model, "fp32", "cpu", "sdpa").digest
        save_delta(draft.folder, {ATTENTION: value + 1}, parent_key=BASE.key, base_digest=digest)
        draft.commit({"precision": "fp32", "provenance": {}})
    assert torch.equal(swapped(step, there, "fp32")[ATTENTION], value + 1)
    assert torch.equal(swapped(step, here, "fp32")[ATTENTION], value)


def test_parameters_are_shared_tied_ones_stay_tied_and_buffers_are_copied() -> None:
    class Tied(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.head = torch.nn.Embedding(5, 3), torch.nn.Linear(3, 5, bias=False)
            self.head.weight = self.embedding.weight
            self.register_buffer("scale", torch.ones(2))

    model: Any = Tied()
    model.embedding.weight.requires_grad_(False)
    copied: Any = share_parameters(model)
    assert copied.head.weight is copied.embedding.weight is not model.head.weight
    assert copied.head.weight.data_ptr() == model.head.weight.data_ptr() and not copied.head.weight.requires_grad
    assert copied.scale.data_ptr() != model.scale.data_ptr() and torch.equal(copied.scale, model.scale)
    copied.head.weight.data = torch.zeros(5, 3)
    assert bool(model.head.weight.any()), "what replaces a parameter leaves the other as it is"


GIB = 2**30


@pytest.mark.parametrize(
    ("size", "available", "limit", "stays"),
    [
        (14 * GIB, 100 * GIB, None, True),
        (14 * GIB, 20 * GIB, None, False),  # a tenth of 128 GiB would not be left
        (14 * GIB, 100 * GIB, "10", False),
        (14 * GIB, 1 * GIB, "16", True),
        (2**20, 0, "0", True),  # a copy of a small one is made faster than a file is read
    ],
)
def test_a_model_stays_while_memory_allows(
    size: int, available: int, limit: str | None, stays: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resident, "available_memory", lambda device: (available, 128 * GIB))
    if limit is None:
        monkeypatch.delenv(resident.VARIABLE, raising=False)
    else:
        monkeypatch.setenv(resident.VARIABLE, limit)
    assert resident.stays(size, "cpu") is stays


def test_a_limit_that_is_not_a_number_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(resident.VARIABLE, "all")
    with pytest.raises(UserError, match="LMMCL_RESIDENT_GB=all is not a number of gigabytes"):
        resident.has_room(1, "cpu")


def test_without_memory_nothing_stays_and_every_load_is_a_fresh_one(
    ledger: Ledger, reads: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (resident, swapping):
        monkeypatch.setattr(module, "SMALL_BYTES", 0)
    monkeypatch.setenv(resident.VARIABLE, "0")
    first, second = chain("sa_proj", BASE, "fp32", 2)
    for step in (first, second):
        finetune(step, ledger, PLACE)
    assert not resident._KEPT and not swapping._STATES and reads == {"fp32": 2}
    assert equal(swapped(second, ledger, "fp32"), named_tensors(load_checkpoint(second, ledger, precision="fp32")))


def test_the_least_recently_used_model_makes_room_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    size = resident.resident_base(BASE.model, "fp32", "cpu", "sdpa").size
    monkeypatch.setattr(resident, "SMALL_BYTES", 0)
    monkeypatch.setenv(resident.VARIABLE, str(1.6 * size / 1e9))  # one in fp32 and one in bf16, or fewer
    resident.resident_base(BASE.model, "bf16", "cpu", "sdpa")
    resident.resident_base(get_model("tiny-qwen"), "bf16", "cpu", "sdpa")
    kept = [(place.precision, '"tiny-qwen"' in place.identity) for place in resident._KEPT]
    assert kept == [("bf16", False), ("bf16", True)]


def test_memory_is_read_from_the_machine() -> None:
    available, total = resident.available_memory("cpu")
    assert 0 < available <= total
