"""The last MLP computed where logits are needed: the same logits and gradients to the bit, and only where that is so."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from stage_parts import made_skill, stage

from lmmcl.config.cluster import TrainingPlacement
from lmmcl.ledger import Ledger
from lmmcl.models import get_model
from lmmcl.models.generation.decoding import answering, greedy
from lmmcl.models.kernels import last_mlp
from lmmcl.models.kernels.last_mlp import at_last_positions
from lmmcl.models.processing.encode import encode
from lmmcl.models.processing.padding import pad
from lmmcl.models.roles import select
from lmmcl.training.efficiency.answer_loss import answer_loss, answer_span
from lmmcl.training.finetune import finetune

pytestmark = pytest.mark.usefixtures("rows_that_round_alike")
MODELS = ("tiny-onevision", "tiny-next", "tiny-qwen")


@pytest.fixture
def rows_that_round_alike() -> Iterator[None]:
    """One thread, on a CPU where a row has the same bits among few rows and among many."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    if not last_mlp.rows_round_alike(384, 96, 1):
        pytest.skip("rows of a product are rounded otherwise here, so all is computed")
    yield
    torch.set_num_threads(threads)


def prepared(name: str, trained: tuple[str, ...], *, with_answer: bool = True) -> tuple[Any, Any, dict[str, Any]]:
    lmm = get_model(name)
    model, processor = lmm.load_model(), lmm.load_processor()
    names = [parameter for parameter, _ in model.named_parameters()]
    chosen = select(lmm.roles_of(names), trained, model=name) if trained else set()
    for parameter, tensor in model.named_parameters():
        tensor.requires_grad_(parameter in chosen)
    examples = made_skill().load()[:9]
    return model, processor, pad(processor, [encode(processor, one, with_answer=with_answer) for one in examples])


def learnt(model: Any, batch: dict[str, Any], *, in_part: bool) -> dict[str, torch.Tensor]:
    """The kept logits and all gradients of one batch."""
    keep = answer_span(batch["labels"]) + 1
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    with at_last_positions(last_mlp.last_mlp(model) if in_part else None, keep):
        logits = model(**inputs, logits_to_keep=keep, use_cache=False).logits
    answer_loss(logits, batch["labels"], 9).backward()
    found = {name: tensor.grad.clone() for name, tensor in model.named_parameters() if tensor.grad is not None}
    model.zero_grad()
    return {**found, "logits": logits.detach()}


@pytest.mark.parametrize(
    "trained", [("llm",), ("llm.blocks.*.attention",), ("llm.blocks.*.mlp.gate", "llm.blocks.*.mlp.up")], ids=str
)
@pytest.mark.parametrize("name", MODELS)
def test_logits_and_gradients_are_those_of_the_whole_mlp(name: str, trained: tuple[str, ...]) -> None:
    model, _, batch = prepared(name, trained)
    mlp = last_mlp.last_mlp(model)
    assert mlp is not None
    whole, part = learnt(model, batch, in_part=False), learnt(model, batch, in_part=True)
    assert whole.keys() == part.keys() and len(whole) > 3
    assert all(torch.equal(whole[key], part[key]) for key in whole)
    assert "forward" not in vars(mlp)


def test_only_the_last_positions_reach_its_layers() -> None:
    model, *_ = prepared("tiny-onevision", ("llm",))
    mlp: Any = last_mlp.last_mlp(model)
    hidden = torch.randn(4, 9, 96)
    with at_last_positions(mlp, 3):
        part = mlp(hidden)
    assert torch.equal(part[:, -3:], mlp(hidden)[:, -3:]) and not part[:, :-3].any()
    with at_last_positions(mlp, 9):
        assert torch.equal(mlp(hidden), mlp(hidden.clone()))
    with at_last_positions(mlp, None):
        assert mlp(hidden)[:, :-3].any()
    with at_last_positions(mlp, 1):
        assert mlp(hidden)[:, 0].any(), "four rows are left to another kernel"


def test_several_threads_compute_all() -> None:
    model, *_ = prepared("tiny-onevision", ("llm",))
    assert last_mlp.last_mlp(model) is not None
    torch.set_num_threads(2)
    assert last_mlp.last_mlp(model) is None


@pytest.mark.parametrize("name", MODELS)
def test_answers_are_those_of_the_whole_mlp(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, processor, batch = prepared(name, (), with_answer=False)
    with answering(model, processor):
        part = greedy(model, batch, 4, output_logits=True)
        monkeypatch.setattr("lmmcl.models.generation.decoding.last_mlp", lambda model: None)
        whole = greedy(model, batch, 4, output_logits=True)
    assert torch.equal(part.sequences, whole.sequences)
    assert all(torch.equal(one, other) for one, other in zip(part.logits, whole.logits, strict=True))


def test_hidden_states_that_are_asked_for_are_whole() -> None:
    model, processor, batch = prepared("tiny-onevision", (), with_answer=False)
    inner = []
    last_mlp_module: Any = last_mlp.last_mlp(model)
    model.model.language_model.norm.register_forward_pre_hook(lambda _, inputs: inner.append(inputs[0]))
    with answering(model, processor):
        greedy(model, batch, 1, output_hidden_states=True)
        greedy(model, batch, 1)
    assert last_mlp_module is not None
    assert torch.equal(inner[0][:, -1], inner[1][:, -1]) and not torch.equal(inner[0][:, 0], inner[1][:, 0])


def test_it_is_left_whole_where_rows_would_be_rounded_otherwise_or_somebody_watches() -> None:
    lmm = get_model("tiny-onevision")
    assert last_mlp.last_mlp(lmm.load_model(precision="bf16")) is None
    model = lmm.load_model()
    mlp: Any = last_mlp.last_mlp(model)
    hidden = torch.randn(8, 4, 96)
    handle = mlp.up_proj.register_forward_hook(lambda *_: None)
    with at_last_positions(mlp, 1):
        assert mlp(hidden)[:, 0].any()
    handle.remove()
    with at_last_positions(mlp, 1):
        assert not mlp(hidden)[:, 0].any()
        with torch.autocast("cpu", dtype=torch.bfloat16):  # where the Trainer begins it: inside
            assert mlp(hidden)[:, 0].any()
    mlp.up_proj = torch.nn.Sequential(mlp.up_proj)  # as an adapter puts a layer of its own there
    assert last_mlp.last_mlp(model) is None


def test_a_stage_learns_the_same_with_and_without(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    checksums = []
    for number, whole in enumerate((False, True)):
        if whole:
            monkeypatch.setattr("lmmcl.training.stage.preparation.last_mlp", lambda model: None)
        step = stage(recipe="llm", max_steps=3)
        record = finetune(step, Ledger(str(tmp_path / str(number))), TrainingPlacement())
        checksums.append((record.files["delta.safetensors"]["sha256"], record["loss"]))
    assert checksums[0] == checksums[1]
