"""KappaTune: adapters on the best conditioned of the targeted layers, as PEFT would choose them; told as an upper bound before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from made import SWEEP, write_sweep
from peft.helpers import KappaTuneSelector
from stage_parts import BASE, difference, made_skill, shades, stage, weights

from lmmcl.config.cluster import TrainingPlacement
from lmmcl.config.sweep import load_sweep
from lmmcl.errors import UserError
from lmmcl.ledger import Ledger
from lmmcl.methods.recipes.recipe import get_recipe
from lmmcl.planning.plan import make_plan
from lmmcl.steps.count_trained import count_trained
from lmmcl.training.attaching.attach import attach
from lmmcl.training.finetune import finetune
from lmmcl.training.stage.condition import condition_number
from lmmcl.weights.adapter_export import export_adapter
from lmmcl.weights.chain import tensors_of

KAPPA: dict[str, Any] = {"kappatune": {"rank": 4, "share": 0.3}}
PLACE = TrainingPlacement()


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(str(tmp_path / "store"))


@pytest.mark.parametrize("share", [0.01, 0.3, 1.0])
def test_the_layers_are_those_that_peft_selects_among_the_targets(share: float) -> None:
    model = BASE.model.load_model()
    ranked = KappaTuneSelector(model, show_progress=False).get_best_targets()
    step = stage(recipe={"kappatune": {"rank": 4, "share": share}})
    every = attach(stage(recipe={"lora_all": {"rank": 4}}), BASE.model.load_model()).targets  # type: ignore[attr-defined]
    among = [name for name in ranked if f"{name}.weight" in every]
    chosen = attach(step, model).targets  # type: ignore[attr-defined]
    assert len(every) == 3 * 7
    assert set(chosen) == {f"{name}.weight" for name in among[: max(1, int(share * len(every)))]}


def test_kappa_is_the_ratio_of_singular_values() -> None:
    basis, _ = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(0)))
    assert condition_number(basis @ torch.diag(torch.tensor([8.0, 5, 4, 3, 2, 0.5]))) == pytest.approx(16, rel=1e-4)
    assert condition_number(torch.ones(3, 4)) > 1e6


def test_a_stage_trains_the_chosen_layers_and_no_other_within_what_was_planned(ledger: Ledger) -> None:
    step = stage(recipe=KAPPA)
    record = finetune(step, ledger, PLACE)
    planned = count_trained(get_recipe(KAPPA), step.model)
    chosen = record["adapter"]["chosen"]
    assert len(chosen) == int(0.3 * 21) == record["adapter"]["layers"]
    with tensors_of(step, ledger) as chain:
        assert sorted(chain.tensors) == chosen
    assert record["checkpoint_bytes"] <= planned.stage_bytes("fp32") + 600 * len(chosen), (
        "with the headers of its files"
    )
    assert 0 < record["trained_parameters"] <= planned.trained
    before, after = weights(BASE, ledger), weights(step, ledger)
    assert all(torch.equal(before[name], after[name]) == (name not in chosen) for name in before)


def test_the_plan_is_exact_where_all_targets_have_one_shape(ledger: Ledger) -> None:
    recipe = {"kappatune": {"rank": 4, "share": 0.7, "targets": ["llm.blocks.*.mlp.gate"]}}
    record = finetune(stage(recipe=recipe), ledger, PLACE)
    assert record["trained_parameters"] == count_trained(get_recipe(recipe), BASE.model).trained == 2 * 4 * (96 + 384)


def test_each_stage_chooses_by_the_weights_that_it_starts_from_and_they_are_one_adapter_only_if_alike(
    ledger: Ledger, tmp_path: Path
) -> None:
    first = stage(recipe=KAPPA)
    second = stage(recipe=KAPPA, parent=first, skill=made_skill("other", shades(12, 90)))
    chosen = [finetune(step, ledger, PLACE)["adapter"]["chosen"] for step in (first, second)]
    start = attach(second, load(first, ledger)).targets  # type: ignore[attr-defined]
    assert sorted(start) == chosen[1]
    assert difference(weights(first, ledger), weights(second, ledger)) > 0
    export_adapter(first, ledger, tmp_path / "one")
    assert (tmp_path / "one" / "adapter_model.safetensors").is_file()
    if chosen[0] != chosen[1]:
        with pytest.raises(UserError, match="adapted different layers"):
            export_adapter(second, ledger, tmp_path / "two")


def load(step: Any, ledger: Ledger) -> Any:
    from lmmcl.weights.checkpoint import load_checkpoint

    return load_checkpoint(step, ledger, precision="fp32")


def test_a_plan_says_that_its_numbers_are_an_upper_bound(tmp_path: Path) -> None:
    text = SWEEP.replace("recipe: [sa_proj, gate_up]", "recipe: [{kappatune: {rank: 4}}]")
    plan = make_plan(load_sweep(write_sweep(tmp_path, text)), Ledger(str(tmp_path / "store")))
    assert plan.notes == (
        "kappatune(rank=4) chooses its layers when a stage begins: its parameters and bytes are upper bounds",
    )


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        ({"kappatune": {"share": 0}}, "kappatune.share: must be above 0 and at most 1, not 0"),
        ({"kappatune": {"learning_rates": {"llm": 1e-4}}}, "learning_rates cannot be combined with kappatune"),
        ("kappatun", "did you mean 'kappatune'"),
        ("corda", "'corda' is not a recipe: CorDA"),
        ("projector+corda", "alternatives: osf"),
    ],
    ids=str,
)  # fmt: skip
def test_what_cannot_be_is_told_with_the_reason(recipe: Any, said: str) -> None:
    with pytest.raises(UserError) as refused:
        get_recipe(recipe)
    assert said in str(refused.value)


def test_orthogonal_adapters_need_the_same_layers_at_every_stage(tmp_path: Path) -> None:
    text = SWEEP.replace("recipe: [sa_proj, gate_up]", "mitigation: [o_lora], recipe: [{kappatune: {rank: 4}}]")
    with pytest.raises(UserError, match="o_lora needs a recipe with a LoRA adapter"):
        load_sweep(write_sweep(tmp_path, text))
