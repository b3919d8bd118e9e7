"""A stage that sees its answers ends at its first batch; rows without an image end none, whatever the size of its batches."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from stage_parts import made_skill, parts, shades, stage

from lmmcl.methods import get_mitigation
from lmmcl.methods.losses.ewc import fisher
from lmmcl.methods.mitigation import ROWS
from lmmcl.tasks.examples import Example, ask
from lmmcl.training.stage.collate import COMPANION, Collator, companion_of, has_images
from lmmcl.training.stage.first_batch import CheckGradient
from lmmcl.training.stage_errors import StageError

WORDS_ALONE = [ask(f"words-{n}", "what is one and one ?", "two") for n in range(2)]


def with_words(count: int = 8) -> Any:
    return made_skill("mixed", [*shades(count - 1), WORDS_ALONE[0]])


def test_a_stage_whose_model_sees_its_answers_ends_at_its_first_batch(tmp_path: Path) -> None:
    trainer = parts(stage(), tmp_path).trainer
    for layer in trainer.taught.model.language_model.layers:
        layer.self_attn.is_causal = False
    with pytest.raises(StageError, match=r"1-shades-sa_proj.*row '\d+', alone: changing the last token of its answer"):
        trainer.train()


def gradients(micro: int, tmp_path: Path, recipe: Any) -> dict[str, torch.Tensor]:
    """Those of the one update of eight rows, one of them without an image, cut into batches of `micro`."""
    step = stage(skill=with_words(), recipe=recipe, global_batch_size=8, max_steps=1)
    made = parts(step, tmp_path / str(micro), micro_batch_size=micro)
    trainer, data = made.trainer, made.trainer.train_dataset
    trainer.current_gradient_accumulation_steps = 8 // micro
    batches = [trainer.data_collator([data[i] for i in range(at, at + micro)]) for at in range(0, 8, micro)]
    tokens = sum((batch["labels"] != -100).sum() for batch in batches)
    trainer.taught.train()
    for batch in batches:
        trainer.compute_loss(trainer.taught, batch, num_items_in_batch=tokens).backward()
    assert trainer.has_gradient
    return {name: p.grad.clone() for name, p in made.trained().items() if p.grad is not None}


@pytest.mark.parametrize("recipe", ["vision", "projector"])
def test_a_row_without_an_image_alone_in_its_batch_adds_nothing(recipe: str, tmp_path: Path) -> None:
    whole, cut = (gradients(micro, tmp_path, recipe) for micro in (8, 1))
    assert whole.keys() <= cut.keys()
    for name, gradient in cut.items():
        torch.testing.assert_close(gradient, whole.get(name, torch.zeros_like(gradient)), atol=2e-6, rtol=1e-4)


def test_an_update_without_any_gradient_ends_the_stage_and_names_its_rows(tmp_path: Path) -> None:
    step = stage(skill=made_skill("words", WORDS_ALONE), recipe="vision", global_batch_size=2)
    trainer = parts(step, tmp_path).trainer
    with pytest.raises(StageError, match=r"update 1 of 4 has no gradient.*\['vision'\].*'words-\d'.*none has an image"):
        trainer.train()


def test_one_row_that_reaches_what_trains_is_enough(tmp_path: Path) -> None:
    made = parts(stage(skill=with_words(), recipe="vision", global_batch_size=8), tmp_path)
    trainer, check = made.trainer, CheckGradient(made.trainer)
    trainer.has_gradient = True
    check.on_pre_optimizer_step(trainer.args, trainer.state, trainer.control)
    assert not trainer.has_gradient  # of the next update
    next(iter(made.trained().values())).grad = None
    with pytest.raises(StageError):
        check.on_pre_optimizer_step(trainer.args, trainer.state, trainer.control)
    next(iter(made.trained().values())).grad = torch.ones_like(next(iter(made.trained().values())))
    check.on_pre_optimizer_step(trainer.args, trainer.state, trainer.control)  # of another worker's rows


def collated(skill: Any, rows: Sequence[int], tmp_path: Path, mitigation: Any = None) -> tuple[Any, dict[str, Any]]:
    made = parts(stage(mitigation, skill=skill, recipe="vision", global_batch_size=8), tmp_path)
    data = made.trainer.train_dataset
    collator = Collator(data.processor, None, companion_of(data))
    return made, collator([{**data.encoded(row), ROWS: torch.tensor([row])} for row in rows])


def test_workers_give_a_batch_without_images_a_row_that_teaches_nothing(tmp_path: Path) -> None:
    made, batch = collated(with_words(), [7], tmp_path)
    assert COMPANION in batch and has_images(batch) and len(batch["input_ids"]) == 2
    assert batch[ROWS].tolist() == [7]
    assert bool((batch["labels"][1] == -100).all())
    made.trainer.taught.train()
    loss = made.trainer.compute_loss(made.trainer.taught, batch, num_items_in_batch=torch.tensor(3))
    loss.backward()
    gradients = [p.grad for p in made.trained().values() if p.grad is not None]
    assert gradients and not any(bool(gradient.any()) for gradient in gradients)


def test_a_batch_with_an_image_needs_no_companion(tmp_path: Path) -> None:
    _, batch = collated(with_words(), [0, 7], tmp_path)
    assert COMPANION not in batch and len(batch["input_ids"]) == 2


def test_a_mitigation_is_shown_the_rows_that_are_taught_alone(tmp_path: Path) -> None:
    lwf: Any = get_mitigation("lwf")
    made, batch = collated(with_words(), [7], tmp_path, lwf)
    made.trainer.mitigation_state = lwf.start(made.context)
    made.trainer.taught.train()
    assert made.trainer.compute_loss(made.trainer.taught, batch, num_items_in_batch=torch.tensor(3)).isfinite()


def test_ewc_counts_a_row_that_reaches_nothing_as_one_without_importance(tmp_path: Path) -> None:
    context = parts(stage(skill=with_words(), recipe="vision", global_batch_size=8), tmp_path).context
    pictures: list[Example] = shades(2)
    alone, mixed = fisher(context, pictures), fisher(context, [*pictures, *WORDS_ALONE])
    assert all(torch.allclose(mixed[name], alone[name] / 2) for name in alone)
