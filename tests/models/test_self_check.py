"""Answers that are seen, images miscounted and padding that is read are found on the first rows, in every family."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from small_families import FAMILIES, save
from torch import Tensor

from lmmcl.errors import UserError
from lmmcl.evaluation.generate import answer
from lmmcl.models import get_model
from lmmcl.models.lmm import LMM
from lmmcl.models.processing.encode import encode
from lmmcl.models.self_check import SelfCheck, _counted_features
from lmmcl.tasks.examples import ask
from lmmcl.tasks.skills import Benchmark

NAMES = ["row 'a'", "row 'b'"]
QUESTIONS = [
    ask("a", "what colour is shown ?", "red", Image.new("RGB", (32, 32), (200, 30, 40))),
    ask("b", "which shape is in the picture ?", "small red circle", Image.new("RGB", (40, 64), (20, 30, 240))),
]


def checked(lmm: LMM, forward: Callable[[Any, dict[str, Tensor]], Any] | None = None, model: Any = None) -> SelfCheck:
    model = model or lmm.load_model()

    def logits(batch: Mapping[str, Tensor]) -> Tensor:
        given = {name: value for name, value in batch.items() if name != "labels"}
        with torch.no_grad():
            return (forward(model, given) if forward else model(**given)).logits

    return SelfCheck(model, lmm.load_processor(), logits, half=False)


def rows(check: SelfCheck, **settings: Any) -> list[dict[str, Tensor]]:
    return [encode(check.processor, each, with_answer=True, **settings) for each in QUESTIONS]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_passes_and_says_how_many_features_its_images_have(family: str, tmp_path: Path) -> None:
    check = checked(get_model(str(save(tmp_path / family, *FAMILIES[family]()))))
    encoded = rows(check)
    assert check.check_training(encoded, NAMES) is None
    with _counted_features(check.model) as features:
        check.forward(check._batch(encoded))
    assert features == [check._image_tokens(check._batch(encoded))] and features[0] > 0


TINY = get_model("tiny-onevision")


def see_all(model: Any, batch: dict[str, Tensor]) -> Any:
    """Every token sees every other one that is not padding, padded or not."""
    mask = batch["attention_mask"].bool()
    bias = torch.zeros(mask.shape).masked_fill(~mask, torch.finfo(torch.float32).min)
    length = mask.shape[1]
    return model(**{**batch, "attention_mask": bias[:, None, None, :].expand(-1, 1, length, length)})


def test_an_answer_that_is_seen_is_found() -> None:
    check = checked(TINY, see_all)
    found = check.check_training(rows(check), NAMES)
    assert found and found.startswith(
        "row 'a', alone: changing the last token of its answer moves the logits before it"
    )


def test_an_answer_that_is_seen_in_padded_batches_alone_is_found() -> None:
    check = checked(TINY, lambda model, batch: (see_all if len(batch["input_ids"]) > 1 else call)(model, batch))
    found = check.check_training(rows(check), NAMES)
    assert found and found.startswith("row 'a', in a padded batch: changing the last token")


def test_an_answer_that_is_seen_where_nothing_is_padded_alone_is_found() -> None:
    """What PaliGemma did: without padding there was no mask, and none was made."""
    model = TINY.load_model()
    for layer in model.model.language_model.layers:
        layer.self_attn.is_causal = False
    check = checked(TINY, model=model)
    found = check.check_training(rows(check), NAMES)
    assert found and "alone: changing the last token" in found


def call(model: Any, batch: dict[str, Tensor]) -> Any:
    return model(**batch)


def test_padding_that_is_read_is_found() -> None:
    check = checked(
        TINY, lambda model, batch: model(**{**batch, "attention_mask": torch.ones_like(batch["attention_mask"])})
    )
    found = check.check_training(rows(check), NAMES)
    assert found and "row 'a': its logits in a padded batch differ from those without padding" in found


def test_in_half_precision_rounding_passes_and_padding_that_is_read_does_not() -> None:
    def rounded(model: Any, batch: dict[str, Tensor], **more: Any) -> Any:
        floats = {name: value.bfloat16() for name, value in batch.items() if value.is_floating_point()}
        return model(**{**batch, **floats, **more})

    for read, found in ((False, None), (True, "its logits in a padded batch differ")):
        check = checked(
            TINY,
            lambda model, batch, read=read: rounded(
                model, batch, **({"attention_mask": torch.ones_like(batch["attention_mask"])} if read else {})
            ),
            TINY.load_model(precision="bf16"),
        )
        fault = dataclasses.replace(check, half=True).check_training(rows(check), NAMES)
        assert (fault is None) if found is None else (fault is not None and found in fault)


def test_rows_of_one_length_are_padded_to_be_looked_at() -> None:
    check = checked(
        TINY, lambda model, batch: model(**{**batch, "attention_mask": torch.ones_like(batch["attention_mask"])})
    )
    alike = [rows(check)[0]] * 2
    found = check.check_training(alike, NAMES)
    assert found and "in a padded batch" in found


def test_an_image_of_another_number_of_tokens_is_found_with_both_numbers() -> None:
    check = checked(TINY)
    check.processor.num_image_tokens -= 1
    assert "row 'a': 16 image tokens in the text stand for 17 image features" in str(
        check.check_training(rows(check), NAMES)
    )


def test_a_fault_that_is_none_of_these_is_not_renamed() -> None:
    def broken(model: Any, batch: dict[str, Tensor]) -> Any:
        raise RuntimeError("out of something")

    check = checked(TINY, broken)
    with pytest.raises(RuntimeError, match="out of something"):
        check.check_training(rows(check), NAMES)


def test_what_counts_features_is_gone_afterwards() -> None:
    model = TINY.load_model()
    with _counted_features(model):
        assert "get_image_features" in vars(model)
    assert "get_image_features" not in vars(model) and "get_image_features" not in vars(model.model)


def test_a_model_that_reads_its_padding_answers_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check before an evaluation, with the fault in what makes the batch."""
    from lmmcl.models.processing import padding

    def unmasked(processor: Any, encoded: Any) -> dict[str, Tensor]:
        batch = padding.pad(processor, encoded)
        return {**batch, "attention_mask": torch.ones_like(batch["attention_mask"])}

    monkeypatch.setattr("lmmcl.models.self_check.pad", unmasked)
    benchmark = Benchmark("colours", 1, "exact_match", load=lambda: QUESTIONS)
    with pytest.raises(UserError, match=r"benchmark colours: example a: its logits in a padded batch"):
        answer(TINY.load_model(), TINY.load_processor(), benchmark, limit=None, batch_size=2)


def test_a_benchmark_is_looked_at_once_and_a_loaded_model_once(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    original = SelfCheck.check_prompts

    def counted(self: SelfCheck, rows: Any, names: Any) -> str | None:
        seen.append(names[0])
        return original(self, rows, names)

    monkeypatch.setattr(SelfCheck, "check_prompts", counted)
    processor, model = TINY.load_processor(), TINY.load_model()
    first, second = (Benchmark(f"looked at {n}", 1, "exact_match", load=lambda: QUESTIONS) for n in range(2))
    for benchmark, expected in ((first, 1), (first, 1), (second, 2)):
        answer(model, processor, benchmark, limit=None, batch_size=2)
        assert len(seen) == expected
    answer(TINY.load_model(), processor, first, limit=None, batch_size=2)
    assert len(seen) == 3
