"""Delta checkpoints: what is stored, how a model is put together again, what is refused, merging and export."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from lmmcl.config.settings import Training
from lmmcl.errors import UserError
from lmmcl.ledger import Ledger
from lmmcl.ledger.record import DamagedError
from lmmcl.methods.merging.wise_ft import WiseFT
from lmmcl.methods.recipes.recipe import get_recipe
from lmmcl.models import get_model
from lmmcl.models.processing.encode import encode
from lmmcl.models.processing.padding import pad
from lmmcl.models.roles import select
from lmmcl.steps import Checkpoint, Finetune, Merge, Pretrained
from lmmcl.tasks.examples import ask
from lmmcl.tasks.skills import Benchmark, Skill
from lmmcl.weights.chain import tensors_of
from lmmcl.weights.checkpoint import base_digest, ensure_pretrained, export, load_checkpoint, named_tensors
from lmmcl.weights.delta import DELTA, CheckpointError, save_delta
from lmmcl.weights.merging import merge

MODEL = get_model("tiny-onevision")
BASE = Pretrained(MODEL)
Q0 = "model.language_model.layers.0.self_attn.q_proj.weight"
V1 = "model.language_model.layers.1.self_attn.v_proj.weight"


def skill(name: str) -> Skill:
    return Skill(name, 1, load=list, benchmark=Benchmark(name, 1, "exact", load=list))


def stage(parent: Checkpoint, name: str) -> Finetune:
    return Finetune(parent, get_recipe("sa_proj"), None, skill(name), Training(precision="fp32"), seed=0)


def pretrained() -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in named_tensors(MODEL.load_model()).items()}


def record(step: Finetune, ledger: Ledger, tensors: dict[str, torch.Tensor], **header: Any) -> None:
    """Write the record that training `step` would have left."""
    header = {"parent_key": step.parent.key, "base_digest": base_digest(MODEL, "fp32"), **header}
    with ledger.writing(step) as draft:
        save_delta(draft.folder, tensors, **header)
        draft.commit({"precision": "fp32", "provenance": {}})


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(str(tmp_path))


def test_a_delta_is_hardly_larger_than_the_tensors_in_it(tmp_path: Path) -> None:
    tensors = pretrained()
    roles = MODEL.roles_of(name for name, _ in MODEL.load_model().named_parameters())
    trained = {name: tensors[name] for name in select(roles, get_recipe("sa_proj").train, model=MODEL.name)}
    size = save_delta(tmp_path, trained, parent_key="0" * 16, base_digest=base_digest(MODEL, "fp32"))
    assert size == (tmp_path / DELTA).stat().st_size
    assert size <= 1.02 * sum(tensor.nbytes for tensor in trained.values())


def test_the_newest_value_of_each_tensor_wins_and_the_others_are_the_pretrained_ones(ledger: Ledger) -> None:
    base = pretrained()
    first, second = stage(BASE, "one"), stage(stage(BASE, "one"), "two")
    record(first, ledger, {Q0: base[Q0] + 1, V1: base[V1] + 1})
    record(second, ledger, {V1: base[V1] + 2})
    with tensors_of(second, ledger) as chain:
        assert list(chain) == [Q0, V1]
        assert torch.equal(chain[Q0], base[Q0] + 1) and torch.equal(chain[V1], base[V1] + 2)
    loaded = named_tensors(load_checkpoint(second, ledger, precision="fp32"))
    expected = {**base, Q0: base[Q0] + 1, V1: base[V1] + 2}
    assert all(torch.equal(loaded[name], expected[name]) for name in expected)


def test_changing_a_loaded_model_leaves_the_next_load_untouched(ledger: Ledger) -> None:
    before = pretrained()[Q0]
    named_tensors(load_checkpoint(BASE, ledger, precision="fp32"))[Q0].data.zero_()
    assert torch.equal(named_tensors(load_checkpoint(BASE, ledger, precision="fp32"))[Q0], before)


def test_a_checkpoint_loads_in_another_precision_too(ledger: Ledger) -> None:
    first = stage(BASE, "one")
    record(first, ledger, {Q0: pretrained()[Q0] + 1})
    model = load_checkpoint(first, ledger, precision="bf16")
    assert torch.equal(named_tensors(model)[Q0], (pretrained()[Q0] + 1).bfloat16())


def test_a_truncated_file_is_named(ledger: Ledger) -> None:
    first = stage(BASE, "one")
    record(first, ledger, {Q0: pretrained()[Q0]})
    file = Path(ledger.store, first.path, DELTA)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(DamagedError, match=f"{file}.*bytes"):
        load_checkpoint(first, ledger, precision="fp32")


def test_a_missing_file_is_named(ledger: Ledger) -> None:
    first = stage(BASE, "one")
    record(first, ledger, {Q0: pretrained()[Q0]})
    file = Path(ledger.store, first.path, DELTA)
    file.unlink()
    with pytest.raises(DamagedError, match=f"{file}.*is missing"):
        load_checkpoint(first, ledger, precision="fp32")


@pytest.mark.parametrize(
    ("header", "told"),
    [({"parent_key": "f" * 16}, "is a child of ffff"), ({"base_digest": "fp32:feed"}, "belongs to the base fp32:feed")],
)
def test_a_delta_of_another_parent_or_base_is_refused(ledger: Ledger, header: dict[str, str], told: str) -> None:
    first = stage(BASE, "one")
    record(first, ledger, {Q0: pretrained()[Q0]}, **header)
    with pytest.raises(CheckpointError, match=told):
        load_checkpoint(first, ledger, precision="fp32")


@pytest.mark.parametrize("tensors", [{"no.such.weight": torch.ones(3)}, {Q0: torch.ones(3)}])
def test_a_tensor_that_does_not_fit_the_model_is_refused(ledger: Ledger, tensors: dict[str, torch.Tensor]) -> None:
    first = stage(BASE, "one")
    record(first, ledger, tensors)
    with pytest.raises(CheckpointError, match=f"{DELTA}.*{next(iter(tensors))}"):
        load_checkpoint(first, ledger, precision="fp32")


def test_merging_combines_each_tensor_that_differs(ledger: Ledger) -> None:
    base = pretrained()
    ensure_pretrained(BASE, ledger)
    first = stage(BASE, "one")
    record(first, ledger, {Q0: base[Q0] + 1, V1: base[V1] + 2})
    half = Merge(BASE, (first,), WiseFT(alpha=0.5))
    fields = merge(half, ledger)
    assert fields["merged_tensors"] == fields["changed_tensors"] == 2
    merged = named_tensors(load_checkpoint(half, ledger, precision="fp32"))
    torch.testing.assert_close(merged[Q0], base[Q0] + 0.5)
    torch.testing.assert_close(merged[V1], base[V1] + 1.0)


def test_merging_at_the_ends_of_wise_ft_is_exact(ledger: Ledger) -> None:
    base = pretrained()
    first = stage(BASE, "one")
    record(first, ledger, {Q0: base[Q0] + 1})
    for alpha, expected in ((0.0, base[Q0]), (1.0, base[Q0] + 1)):
        step = Merge(BASE, (first,), WiseFT(alpha=alpha))
        merge(step, ledger)
        assert torch.equal(named_tensors(load_checkpoint(step, ledger, precision="fp32"))[Q0], expected)


def test_a_stage_after_a_merge_touches_only_what_it_changed(ledger: Ledger) -> None:
    base = pretrained()
    first = stage(BASE, "one")
    record(first, ledger, {Q0: base[Q0] + 1})
    merged = Merge(BASE, (first,), WiseFT(alpha=0.5))
    merge(merged, ledger)
    second = stage(merged, "two")
    record(second, ledger, {V1: base[V1] + 4})
    step = Merge(merged, (second,), WiseFT(alpha=0.5))
    assert merge(step, ledger)["merged_tensors"] == 1
    loaded = named_tensors(load_checkpoint(step, ledger, precision="fp32"))
    torch.testing.assert_close(loaded[Q0], base[Q0] + 0.5)
    torch.testing.assert_close(loaded[V1], base[V1] + 2.0)


def test_the_pretrained_record_holds_digest_and_size(ledger: Ledger) -> None:
    fields = ensure_pretrained(BASE, ledger).fields
    assert fields["base_digest"] == base_digest(MODEL, "fp32")
    assert fields["total_parameters"] == sum(MODEL.role_counts().values())
    assert fields["bytes"] == 4 * fields["total_parameters"]


def answers(model: Any, processor: Any) -> list[list[int]]:
    from PIL import Image

    asked = [ask(str(n), "what colour is this?", "red", Image.new("RGB", (32, 32), (80 * n, 30, 90))) for n in range(3)]
    batch = pad(processor, [encode(processor, one, with_answer=False) for one in asked])
    return model.generate(**batch, max_new_tokens=6, do_sample=False).tolist()


def test_an_export_loads_as_a_plain_directory_and_answers_the_same(ledger: Ledger, tmp_path: Path) -> None:
    from transformers import AutoModelForImageTextToText

    first = stage(BASE, "one")
    record(first, ledger, {Q0: pretrained()[Q0] * 3})
    folder = export(first, ledger, tmp_path / "exported")
    plain, ours = AutoModelForImageTextToText.from_pretrained(folder), load_checkpoint(first, ledger, precision="fp32")
    processor = MODEL.load_processor()
    assert answers(plain.eval(), processor) == answers(ours, processor)
    assert json.loads((folder / "lmmcl.json").read_text())["key"] == first.key
    assert {"config.json", "generation_config.json", "tokenizer_config.json", "chat_template.jinja"} <= {
        file.name for file in folder.iterdir()
    }


def test_a_checkpoint_found_by_its_key_loads_without_the_sweep_that_made_it(ledger: Ledger, tmp_path: Path) -> None:
    ensure_pretrained(BASE, ledger)
    first = stage(BASE, "one")
    record(first, ledger, {Q0: pretrained()[Q0] + 1})
    found = ledger.checkpoint(first.key)
    assert torch.equal(named_tensors(load_checkpoint(found, ledger, precision="fp32"))[Q0], pretrained()[Q0] + 1)
    assert json.loads((export(found, ledger, tmp_path / "exported") / "lmmcl.json").read_text())["label"] == first.label


def test_an_export_overwrites_nothing(ledger: Ledger, tmp_path: Path) -> None:
    ensure_pretrained(BASE, ledger)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match="not empty"):
        export(BASE, ledger, tmp_path / "taken")


def test_what_has_not_been_computed_is_not_exported(ledger: Ledger, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has not been computed"):
        export(stage(BASE, "one"), ledger, tmp_path / "exported")
