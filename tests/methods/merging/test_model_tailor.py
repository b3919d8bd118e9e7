"""Model Tailor on a real fine-tune of the tiny model."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch

from lmmcl.config.cluster import TrainingPlacement
from lmmcl.config.settings import Training
from lmmcl.config.sweep import build_sweep
from lmmcl.errors import UserError
from lmmcl.ledger import Ledger, Record
from lmmcl.methods import get_mitigation, get_recipe
from lmmcl.methods.merging.calibration import Inputs, calibration_batches, calibration_examples
from lmmcl.methods.merging.model_tailor import ModelTailor
from lmmcl.models import get_model
from lmmcl.steps import Checkpoint, Finetune, Merge, Pretrained
from lmmcl.tasks import get_skill
from lmmcl.tasks.examples import ask
from lmmcl.tasks.skills import Benchmark, Skill
from lmmcl.training.finetune import finetune
from lmmcl.weights.checkpoint import ensure_pretrained, load_checkpoint, named_tensors
from lmmcl.weights.merging import differing_bits, merge

MODEL = get_model("tiny-onevision")
BASE = Pretrained(MODEL)
SAMPLES = 12
BLOCK = "model.language_model.layers.0"


def fine_tune(name: str, recipe: str = "llm") -> Finetune:
    training = Training(learning_rate=1e-3, max_steps=2, examples=24, global_batch_size=8, precision="fp32")
    return Finetune(BASE, get_recipe(recipe), None, get_skill(name), training, seed=0)


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Ledger:
    ledger = Ledger(str(tmp_path_factory.mktemp("store")))
    ensure_pretrained(BASE, ledger)
    for name in ("counting", "clock"):
        finetune(fine_tune(name), ledger, TrainingPlacement())
    return ledger


def tailored(ledger: Ledger, *skills: str, **settings: object) -> tuple[Merge, Record]:
    step = Merge(BASE, tuple(fine_tune(name) for name in skills), ModelTailor(samples=SAMPLES, **settings))  # type: ignore[arg-type]
    return step, ledger.find(step) or merge(step, ledger)


def weights(step: Checkpoint, ledger: Ledger) -> dict[str, torch.Tensor]:
    return {name: t.detach() for name, t in named_tensors(load_checkpoint(step, ledger, precision="fp32")).items()}


@cache
def linear_weights() -> frozenset[str]:
    model = MODEL.load_model()
    own = dict(model.named_parameters())
    names = {f"{name}.weight" for name, layer in model.named_modules() if isinstance(layer, torch.nn.Linear)}
    return frozenset(names & set(own))


@pytest.mark.parametrize("skills", [("counting",), ("counting", "clock")])
def test_no_more_than_the_share_of_each_layer_changes_and_all_else_has_its_old_bits(
    ledger: Ledger, skills: tuple
) -> None:
    step, record = tailored(ledger, *skills, keep=0.1)
    base, after = weights(BASE, ledger), weights(step, ledger)
    changed = {name: differing_bits(base[name], after[name]) for name in base}
    moved = {name for name, count in changed.items() if count}
    assert moved and moved <= linear_weights()
    assert all(changed[name] <= len(skills) * 0.1 * base[name].numel() for name in moved)
    assert record["changed_entries"] == sum(changed.values()) <= len(skills) * 0.1 * record["merged_entries"]


@pytest.mark.parametrize("granularity", ["row", "block128", "layer"])
def test_compensation_brings_layer_outputs_nearer_to_the_fine_tunes(ledger: Ledger, granularity: str) -> None:
    error = {}
    for compensation in ("none", "obs", "exact"):
        record = tailored(ledger, "counting", compensation=compensation, granularity=granularity, sequential=False)[1]
        error[compensation] = record["output_error"]
        assert record["output_error"] <= record["output_error_mask_only"]
    assert 0 < error["exact"] < error["obs"] < error["none"]


def test_of_several_skills_an_entry_is_the_mean_of_the_patches_that_hold_it(ledger: Ledger) -> None:
    base = weights(BASE, ledger)
    both = weights(tailored(ledger, "counting", "clock")[0], ledger)
    apart = [weights(tailored(ledger, name)[0], ledger) for name in ("counting", "clock")]
    met = 0
    for name in linear_weights():
        changes = torch.stack([each[name] - base[name] for each in apart])
        holders = (changes != 0).sum(0)
        met += int((holders == 2).sum())
        torch.testing.assert_close(both[name], base[name] + changes.sum(0) / holders.clamp(min=1), rtol=1e-6, atol=1e-7)
    assert met, "some entry is held by both"


def test_tensors_that_are_no_linear_weight_are_reset_or_kept_as_asked(ledger: Ledger) -> None:
    base, tuned = weights(BASE, ledger), weights(fine_tune("counting"), ledger)
    others = [name for name in base if name not in linear_weights() and differing_bits(base[name], tuned[name])]
    assert any("norm" in name for name in others) and any("embed" in name for name in others)
    for policy, expected in (("reset", base), ("keep", tuned)):
        after = weights(tailored(ledger, "counting", other=policy)[0], ledger)
        assert not any(differing_bits(after[name], expected[name]) for name in others)


def test_the_patch_of_two_tasks_is_that_of_the_paper(ledger: Ledger) -> None:
    """Zhu et al. 2024, section 3.4: W0 + Σ M_t·(D_t + C_t) / max(1, Σ M_t), D + C being a task's own tailored change."""
    settings = {"granularity": "block128", "salience": 0.8}
    base = weights(BASE, ledger)
    both = weights(tailored(ledger, "counting", "clock", **settings)[0], ledger)
    alone = [weights(tailored(ledger, name, **settings)[0], ledger) for name in ("counting", "clock")]
    for name in linear_weights():
        changes = [each[name].double() - base[name].double() for each in alone]
        masks = [(change != 0).double() for change in changes]
        weight = sum(masks).clamp(min=1)
        expected = (
            base[name].double() + sum(mask * change for mask, change in zip(masks, changes, strict=True)) / weight
        )
        torch.testing.assert_close(both[name].double(), expected, rtol=1e-6, atol=1e-7)


def test_only_the_layers_that_are_named_are_patched_and_what_is_named_is_put_back(ledger: Ledger) -> None:
    """The authors' script: the projector returns, blocks 20 to 31 are patched, embeddings, norm and head stay tuned."""
    base, tuned = weights(BASE, ledger), weights(fine_tune("counting"), ledger)
    settings = {"other": "keep", "layers": ["llm.blocks.1-2"], "put_back": ["llm.blocks.0.mlp"]}
    after = weights(tailored(ledger, "counting", **settings)[0], ledger)
    own = dict(MODEL.load_model().named_parameters())
    roles = MODEL.roles_of(name for name in base if name in own)
    for name, role in roles.items():
        if role.startswith("llm.blocks.0.mlp"):
            assert torch.equal(after[name], base[name])
        elif name in linear_weights() and role.startswith(("llm.blocks.1", "llm.blocks.2")):
            assert 0 < differing_bits(after[name], base[name]) <= 0.1 * base[name].numel()
        else:
            assert torch.equal(after[name], tuned[name])


def test_settings_that_are_not_set_and_rows_leave_the_key_as_it_was() -> None:
    plain = ModelTailor().identity()
    assert not {"layers", "put_back", "block128"} & set(plain)
    assert ModelTailor(granularity="block128").identity()["block128"] == 2
    with pytest.raises(UserError, match=r"grids\[0\]\.mitigation.*model_tailor.*'llm\.block'"):
        build_sweep(
            {
                "name": "tailored",
                "orders": {"main": ["counting"]},
                "grids": [
                    {
                        "model": ["tiny-onevision"],
                        "recipe": ["mlp"],
                        "mitigation": [{"model_tailor": {"layers": ["llm.block"]}}],
                    }
                ],
            }
        )


def test_keeping_all_of_everything_is_the_fine_tune(ledger: Ledger) -> None:
    after = weights(tailored(ledger, "counting", keep=1.0, other="keep")[0], ledger)
    tuned = weights(fine_tune("counting"), ledger)
    assert not any(differing_bits(after[name], tuned[name]) for name in after)


def test_later_layers_see_what_earlier_ones_were_tailored_to(ledger: Ledger) -> None:
    seen, blind = (
        weights(tailored(ledger, "counting", sequential=each, other="keep")[0], ledger) for each in (True, False)
    )
    first, last = f"{BLOCK}.self_attn.q_proj.weight", BLOCK.replace("0", "1") + ".mlp.down_proj.weight"
    assert not differing_bits(seen[first], blind[first])
    assert differing_bits(seen[last], blind[last])


def test_a_merge_made_again_is_the_same(ledger: Ledger, tmp_path: Path) -> None:
    step, _ = tailored(ledger, "counting")
    before = weights(step, ledger)
    again = ledger.__class__(str(tmp_path))
    for needed in (BASE, fine_tune("counting")):
        (tmp_path / needed.path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / needed.path).symlink_to(Path(ledger.store, needed.path))
    merge(step, again)
    after = weights(step, again)
    assert not any(differing_bits(before[name], after[name]) for name in before)


def test_inputs_are_captured_once_for_the_layers_that_share_them_and_without_padding() -> None:
    model = MODEL.load_model()
    names = [
        f"{BLOCK}.{n}.weight"
        for n in ("self_attn.o_proj", "mlp.up_proj", "self_attn.q_proj", "mlp.gate_proj", "self_attn.v_proj")
    ]
    layers = {name: model.get_submodule(name.removesuffix(".weight")) for name in names}
    examples = calibration_examples([get_skill("counting"), get_skill("clock")], [24, 24], 8)
    inputs = Inputs(model, calibration_batches(MODEL, examples), "cpu")
    groups = [[name.split(".")[-2] for name in group] for group in inputs.groups(layers)]  # type: ignore[arg-type]
    assert groups == [["q_proj", "v_proj"], ["o_proj"], ["gate_proj", "up_proj"]]
    together = inputs.hessian(names[1], layers[names[1]], padded=True)  # type: ignore[arg-type]
    alone, positions = torch.zeros_like(together), 0
    for example in examples:
        single = Inputs(model, calibration_batches(MODEL, [example]), "cpu")
        length = calibration_batches(MODEL, [example])[0]["input_ids"].shape[1]
        alone += single.hessian(names[1], layers[names[1]], padded=False) * length  # type: ignore[arg-type]
        positions += length
    torch.testing.assert_close(together, alone / positions, rtol=1e-3, atol=1e-5)


def test_calibration_is_spread_over_skills_and_over_what_was_seen() -> None:
    rows = {name: [ask(f"{name}{i}", "?", "!") for i in range(10)] for name in "ab"}
    skills = [
        Skill(name, 1, load=lambda name=name: rows[name], benchmark=Benchmark(name, 1, "x", load=list)) for name in rows
    ]  # type: ignore[misc]
    assert [e.id for e in calibration_examples(skills[:1], [None], 5)] == ["a0", "a2", "a4", "a6", "a8"]
    assert [e.id for e in calibration_examples(skills, [4, 4], 4)] == ["a2", "a8", "b2", "b8"]
    assert len(calibration_examples(skills, [None, None], 128)) == 20


def test_a_skill_without_examples_cannot_be_tailored(ledger: Ledger) -> None:
    empty = replace(get_skill("counting"), load=list)
    tuned = fine_tune("counting")
    step = Merge(BASE, (Finetune(BASE, tuned.recipe, None, empty, tuned.training, 0),), ModelTailor(samples=3))
    with pytest.raises(UserError, match="needs training examples"):
        merge(step, ledger)


@pytest.mark.parametrize(
    "settings",
    [{"keep": 0}, {"keep": 1.1}, {"salience": -0.1}, {"salience": 2}, {"samples": 0}, {"damping": 0}, {"compensation": "sweep"}, {"granularity": "column"}, {"other": "drop"}],
)  # fmt: skip
def test_settings_that_cannot_be_are_refused(settings: dict) -> None:
    with pytest.raises(UserError, match=rf"model_tailor\.{next(iter(settings))}"):
        get_mitigation({"model_tailor": settings})
