"""Packed rows are learnt from as padded ones are, or refused by the name of what cannot be packed."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
from models import small_families
from PIL import Image
from stage_parts import difference, made_skill, parts, stage, weights
from transformers import AutoConfig, AutoModelForImageTextToText

from lmmcl.config.cluster import Cluster, TrainingPlacement
from lmmcl.errors import UserError
from lmmcl.ledger import Ledger
from lmmcl.methods import get_mitigation
from lmmcl.models import get_model
from lmmcl.models.processing.encode import encode, hold
from lmmcl.models.processing.padding import IGNORED
from lmmcl.planning.fits import check_stage
from lmmcl.steps import Finetune, Pretrained
from lmmcl.tasks.examples import Example, ask
from lmmcl.training.efficiency import packed_rows as packing
from lmmcl.training.finetune import finetune
from lmmcl.training.stage.collate import COMPANION, Collator, companion_of
from lmmcl.training.stage_errors import StageError

NEAR = 0.15
"""Of the way that weights went: Adam's first updates are ± the learning rate, and rounding decides the sign of tiny gradients."""
PACKED = TrainingPlacement(packing=True, micro_batch_size=4)


def mixed() -> list[Example]:
    """Pictures of two sizes, and rows without one."""
    return [
        ask(
            str(n),
            "What is shown?",
            " ".join(["red square"] * (1 + 5 * n % 7)),
            Image.new("RGB", (32 + 32 * (n % 2), 32), (20 * n, 90, 9)) if n % 3 else None,
        )
        for n in range(12)
    ]


def mixed_stage(model: str, **more: Any) -> Finetune:
    usual = {"global_batch_size": 8, "max_steps": 2, "recipe": "llm", "skill": made_skill("packable", mixed())}
    return stage(parent=Pretrained(get_model(model)), **{**usual, **more})


@pytest.mark.parametrize("model", ["tiny-onevision", "tiny-qwen"])
def test_packed_rows_teach_what_padded_ones_teach(model: str, tmp_path: Path) -> None:
    step, stores = mixed_stage(model), {}
    for name, placement in (("packed", PACKED), ("padded", TrainingPlacement(micro_batch_size=4))):
        stores[name] = Ledger(str(tmp_path / name))
        record = finetune(step, stores[name], placement)
        assert record["strategy"].get("packing", False) == (name == "packed")
        assert (record["padding_share"] == 0) == (name == "packed")
    losses = [[row["loss"] for row in store.read_lines(step.path, "curve.jsonl")] for store in stores.values()]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    packed, padded = (weights(step, store) for store in stores.values())
    moved = difference(padded, weights(step.parent, stores["padded"]))
    assert difference(packed, padded) < NEAR * moved


@pytest.mark.parametrize("model", ["tiny-onevision", "tiny-qwen"])
def test_gradients_of_packed_rows_are_those_of_padded_ones(model: str, tmp_path: Path) -> None:
    gradients = []
    for packs in (False, True):
        trainer = parts(mixed_stage(model), tmp_path, packing=packs).trainer
        data: Any = trainer.train_dataset
        batch = trainer.prepare_batch(trainer.data_collator([data[position] for position in range(8)]))
        trainer.compute_loss(trainer.taught, batch, num_items_in_batch=torch.tensor(40)).backward()
        gradients.append({name: p.grad for name, p in trainer.taught.named_parameters() if p.grad is not None})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-3, atol=1e-5, msg=name)


def test_workers_give_a_packed_batch_without_images_a_row_that_teaches_nothing(tmp_path: Path) -> None:
    trainer = parts(mixed_stage("tiny-qwen", recipe="vision"), tmp_path, packing=True).trainer
    data: Any = trainer.train_dataset
    words = [data.encoded(row) for row in (0, 3)]
    losses = []
    for companion in (None, companion_of(data)):
        batch = Collator(data.processor, None, companion, packs=True)(words)
        assert (COMPANION in batch) == (companion is not None)
        losses.append(trainer.compute_loss(trainer.taught, batch, num_items_in_batch=torch.tensor(3)))
    assert losses[1].item() == pytest.approx(losses[0].item(), rel=1e-5)
    losses[1].backward()
    gradients = [p.grad for p in trainer.taught.parameters() if p.grad is not None]
    assert gradients and not any(bool(gradient.any()) for gradient in gradients)


def encoded(model: str) -> list[dict[str, torch.Tensor]]:
    processor = get_model(model).load_processor()
    return [encode(processor, example, with_answer=True) for example in mixed()[:4]]


def test_a_packed_batch_has_every_token_once_and_teaches_no_first_one() -> None:
    rows, processor = encoded("tiny-qwen"), get_model("tiny-qwen").load_processor()
    rows[1]["labels"][0] = 5
    batch = packing.pack(processor, rows)
    assert batch["input_ids"].tolist() == [[token for row in rows for token in row["input_ids"].tolist()]]
    assert "attention_mask" not in batch and batch[packing.LENGTHS].tolist() == [len(row["input_ids"]) for row in rows]
    assert batch["labels"][0, len(rows[0]["input_ids"])] == IGNORED, "the row before must not be taught to predict it"
    assert len(batch["pixel_values"]) == sum(len(row["pixel_values"]) for row in rows if "pixel_values" in row)


def test_positions_in_three_dimensions_are_those_of_each_row_alone() -> None:
    model, rows = get_model("tiny-qwen").load_model(), encoded("tiny-qwen")
    batch = packing.pack(get_model("tiny-qwen").load_processor(), rows)
    positions, start = packing.packed_positions(model, batch), 0
    assert positions.shape == (4, 1, batch["input_ids"].shape[1])
    for row in rows:
        length = len(row["input_ids"])
        own = positions[:, 0, start : start + length]
        assert own[0].tolist() == list(range(length))
        if "image_grid_thw" in row:
            alone, _ = model.model.get_rope_index(
                row["input_ids"][None], row["mm_token_type_ids"][None], row["image_grid_thw"]
            )
            assert torch.equal(own[1:], alone[:, 0])
        start += length


def test_a_model_that_lets_a_row_see_the_one_before_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def one_text(model: Any, batch: Any) -> torch.Tensor:
        return torch.arange(batch["input_ids"].shape[1])[None]

    monkeypatch.setattr("lmmcl.training.stage.trainer.packed_positions", one_text)
    with pytest.raises(StageError, match=r"does not keep packed rows apart.*set training\.packing: false"):
        finetune(mixed_stage("tiny-onevision"), Ledger(str(tmp_path)), PACKED)


def test_a_model_that_gives_packed_rows_other_positions_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = packing.packed_positions
    # in the place of the text's and the picture's dimensions those of plain text
    monkeypatch.setattr(
        "lmmcl.training.stage.trainer.packed_positions", lambda model, batch: usual(model, batch)[:1].expand(4, -1, -1)
    )
    step = mixed_stage("tiny-qwen", skill=made_skill("packable_pictures", [row for row in mixed() if row.images]))
    with pytest.raises(StageError, match="gives packed rows other logits"):
        finetune(step, Ledger(str(tmp_path)), PACKED)


def test_a_model_that_takes_no_positions_is_refused_with_its_own_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(model: Any, batch: Any) -> torch.Tensor:
        raise TypeError("forward() got an unexpected keyword argument 'position_ids'")

    monkeypatch.setattr("lmmcl.training.stage.trainer.packed_positions", none)
    with pytest.raises(StageError, match=r"does not run on packed rows: TypeError.*position_ids"):
        finetune(mixed_stage("tiny-onevision"), Ledger(str(tmp_path)), PACKED)


@pytest.mark.parametrize("name", ["cross_attention_mask", "qformer_input_ids"])
def test_inputs_that_speak_of_a_rows_own_images_are_refused_by_name(name: str) -> None:
    rows = [{**row, name: torch.zeros(3, 2)} for row in encoded("tiny-onevision")]
    with pytest.raises(UserError, match=rf"rows with the input {name} cannot be packed; set packing: false"):
        packing.pack(get_model("tiny-onevision").load_processor(), rows)


@pytest.mark.parametrize(
    "mitigation", [{"lwf": {"weight": 1.0, "temperature": 2.0}}, {"ewc": {"weight": 1.0}}], ids=str
)
def test_a_mitigation_that_looks_at_batches_is_refused_by_a_plan_as_by_a_run(mitigation: Any, tmp_path: Path) -> None:
    step = mixed_stage("tiny-onevision", mitigation=get_mitigation(mitigation))
    with pytest.raises(UserError, match="looks at batches row by row"):
        check_stage(step, Cluster(training=PACKED))
    with pytest.raises(UserError, match="looks at batches row by row"):
        finetune(step, Ledger(str(tmp_path)), PACKED)


PACKABLE = ("llava", "llava_next", "llava_onevision", "qwen2_5_vl", "qwen3_vl", "internvl", "smolvlm", "gemma3")


@pytest.mark.slow
@pytest.mark.parametrize("family", PACKABLE)
def test_families_that_the_docs_name_keep_packed_rows_apart(family: str) -> None:
    config, processor = getattr(small_families, family)()
    torch.manual_seed(0)
    model: Any = AutoModelForImageTextToText.from_config(AutoConfig.for_model(**config)).eval()
    hold(processor, inspect.signature(model.forward).parameters)
    examples = [
        ask("one", "What is it?", "red", Image.new("RGB", (40, 40), (9, 9, 200))),
        ask("two", "What is in it now?", "a red square", Image.new("RGB", (56, 40), (200, 9, 9))),
    ]
    rows = [encode(processor, example, with_answer=True) for example in examples]

    def forward(batch: dict[str, torch.Tensor]) -> torch.Tensor:
        inputs = {name: value for name, value in batch.items() if name != packing.LENGTHS}
        if packing.LENGTHS in batch:
            inputs["position_ids"] = packing.packed_positions(model, batch)
        with torch.no_grad():
            return model(**inputs, use_cache=False).logits

    assert packing.check_packing(model, processor, rows, forward, half=False) is None
