"""The card of an exported checkpoint: what the hub reads of it, and what a person does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hub_server.writing import card_errors
from huggingface_hub import ModelCard
from made import SWEEP, write_sweep
from synthetic_ledger import fill

from lmmcl.config.sweep import load_sweep
from lmmcl.inspection.publishing.card_facts import CardFacts, card_facts
from lmmcl.inspection.publishing.licence import Licence, licence_of
from lmmcl.inspection.publishing.model_card import card_data, card_text, is_as_written, make_card
from lmmcl.ledger import Ledger
from lmmcl.models import get_model
from lmmcl.models.local_model import LocalModel
from lmmcl.runner.reporting.sweep_label import find_label
from lmmcl.steps.trial import Trial

MERGING = SWEEP.replace("recipe: [sa_proj, gate_up]", "recipe: [sa_proj], mitigation: [{wise_ft: {alpha: 0.5}}]")


def recorded(folder: Path, text: str = SWEEP) -> tuple[Trial, Ledger]:
    """A finished trial, and the store that has it."""
    sweep = load_sweep(write_sweep(folder, text))
    fill(sweep, folder / "store", questions=20)
    ledger = Ledger(str(folder / "store"))
    find_label(sweep, ledger).keep(sweep)
    return sweep.trials[0], ledger


@pytest.fixture
def facts(tmp_path: Path) -> CardFacts:
    trial, ledger = recorded(tmp_path)
    return card_facts(ledger.checkpoint(trial.stages[-1].checkpoint.key), ledger)


def test_the_hub_reads_scores_licence_and_tags_of_a_card(tmp_path: Path) -> None:
    trial, ledger = recorded(tmp_path)
    checkpoint = ledger.checkpoint(trial.stages[-1].checkpoint.key)
    text = make_card(checkpoint, ledger, name="mine", adapter=False)
    assert card_errors(text) == []
    data = ModelCard(text).data
    assert (data.license, data.library_name, data.pipeline_tag) == ("apache-2.0", "transformers", "image-text-to-text")
    assert "base_model" not in data.to_dict(), "the base is none of the hub"
    facts = card_facts(checkpoint, ledger)
    assert {each.dataset_type: each.metric_value for each in data.eval_results} == {
        name: round(score, 4) for name, score in facts.stages[-1].scores.items()
    }
    assert {each.dataset_name for each in data.eval_results} >= {"counting (target)", "colour (held out)"}
    assert data.model_name == "mine" and "lmmcl" in data.tags


def test_a_person_reads_what_was_taught_what_was_lost_and_how_to_compute_it_again(
    facts: CardFacts, tmp_path: Path
) -> None:
    text = card_text(facts, Licence("apache-2.0", "its card"), adapter=False, at="me/mine")
    change = facts.measure("held_out_forgetting")
    assert change is not None and change < 0
    assert (
        f"Held-out forgetting**: over 2 benchmarks that it was not trained for (colour and shape) it lost {-change:.1f}"
        in text
    )
    assert [stage.skill for stage in facts.stages] == ["counting", "clock"]
    assert "| 1 | counting | made by lmmcl (version" in text and "learning rate 0.001" in text
    for number, stage in enumerate(facts.stages, start=1):
        assert f"| {number} | {stage.skill} | {stage.scores['counting']:.1f}" in text
    assert "lmmcl run small.yaml" in text and str(tmp_path) not in text, "no place of this machine"
    assert "there" not in facts.versions.values() and "torch 2.13.0" in text
    assert 'from_pretrained("me/mine")' in text


def test_an_unknown_licence_is_said_to_be_unknown(facts: CardFacts) -> None:
    assert "license" not in card_data(facts, None, name="mine", adapter=False).to_dict()
    assert "is not known here" in card_text(facts, None, adapter=False, at="me/mine")


def test_an_adapter_names_its_base_and_a_licence_of_its_own_name_its_link(facts: CardFacts) -> None:
    hub = replace(facts, hub="owner/base", revision="0" * 40, adapter="lora")
    licence = Licence("other", "its card", "base-terms", "https://example.com/terms")
    data = card_data(hub, licence, name="mine", adapter=True)
    assert (data.library_name, data.base_model, data.base_model_relation) == ("peft", "owner/base", "adapter")
    assert "lora" in data.tags and data.license_name == "base-terms"
    text = card_text(hub, licence, adapter=True, at="me/mine")
    assert f'from_pretrained("owner/base", revision="{"0" * 40}")' in text
    assert 'PeftModel.from_pretrained(base, "me/mine")' in text and "**base-terms (other)**" in text
    assert card_errors(f"---\n{data.to_yaml()}\n---\n{text}") == []


def test_a_merge_belongs_to_its_stage_whose_scores_are_those_of_the_merge(tmp_path: Path) -> None:
    trial, ledger = recorded(tmp_path, MERGING)
    facts = card_facts(ledger.checkpoint(trial.stages[-1].checkpoint.key), ledger)
    assert [stage.skill for stage in facts.stages] == ["counting", "clock"]
    assert all("wise_ft (alpha 0.5" in str(stage.mitigation) for stage in facts.stages)
    assert all(stage.scores for stage in facts.stages), "fine-tunes before a merge are not asked"


def test_a_base_without_held_out_scores_makes_no_claim_of_what_was_kept(facts: CardFacts) -> None:
    text = card_text(replace(facts, base_scores={}), None, adapter=False, at="x")
    assert "What it lost elsewhere is **not known**" in text


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ("---\nlicense: mit\n---\n", Licence("mit", "its README.md")),
        (
            "---\nlicense: other\nlicense_name: terms\nlicense_link: LICENSE\n---\n",
            Licence("other", "its README.md", "terms", "LICENSE"),
        ),
        ("# no metadata\n", None),
        (None, None),
    ],
)
def test_the_licence_of_a_folder_is_what_its_card_says(
    tmp_path: Path, card: str | None, licence: Licence | None
) -> None:
    if card is not None:
        (tmp_path / "README.md").write_text(card)
    assert licence_of(LocalModel(tmp_path), online=False) == licence


def test_weights_that_come_with_lmmcl_have_its_licence() -> None:
    assert licence_of(get_model("tiny-onevision"), online=False) == Licence("apache-2.0", "it comes with lmmcl")


@pytest.mark.parametrize(
    "head", ["license: [", "license: My Own Terms", "base_model: a/b/c", "license: other", "tags: [1]"]
)
def test_the_local_hub_refuses_metadata_that_a_hub_would(head: str) -> None:
    assert card_errors(f"---\n{head}\n---\n# card\n")


def test_the_card_of_an_adapter_says_what_it_adapts_and_that_the_base_was_in_4_bits(tmp_path: Path) -> None:
    recipe = "recipe: [{qlora: {rank: 8, alpha: 16}}], optimizer: [adamw_8bit]"
    trial, ledger = recorded(tmp_path, SWEEP.replace("recipe: [sa_proj, gate_up]", recipe))
    facts = card_facts(ledger.checkpoint(trial.stages[-1].checkpoint.key), ledger)
    text = card_text(facts, None, adapter=True, at="me/mine")
    assert "`lora (targets llm.blocks.*.attention + llm.blocks.*.mlp, rank 8, alpha 16.0" in text
    assert "optimizer adamw_8bit" in text and "not recorded" not in text and "[" not in facts.stages[0].recipe
    assert (
        "The weights under llm.blocks were held in 4 bits (nf4)" in text and "compared with its base in 4 bits" in text
    )
    assert "bnb_4bit_use_double_quant=True" in text
    assert "Here they are dequantised" in card_text(facts, None, adapter=False, at="me/mine")


def test_the_card_of_a_union_names_the_adapter_and_what_trains_beside_it(tmp_path: Path) -> None:
    own = (
        "recipe: [{name: both, train: [projector], adapter: {kind: lora, rank: 8, targets: [llm.blocks.*.attention]}}]"
    )
    trial, ledger = recorded(tmp_path, SWEEP.replace("recipe: [sa_proj, gate_up]", own))
    facts = card_facts(ledger.checkpoint(trial.stages[-1].checkpoint.key), ledger)
    assert facts.stages[0].recipe.startswith("lora (") and facts.stages[0].recipe.endswith("), projector")


def test_a_card_knows_whether_somebody_edited_it(tmp_path: Path) -> None:
    """One that nobody did is written again for another repository; `lmmcl export --push` keeps the others."""
    trial, ledger = recorded(tmp_path)
    text = make_card(ledger.checkpoint(trial.stages[-1].checkpoint.key), ledger, name="mine", adapter=False)
    card = tmp_path / "README.md"
    card.write_text(text)
    assert is_as_written(card)
    for edited in (text.replace("THIS FOLDER", "me/mine"), text + "More.\n", text.rpartition("<!--")[0]):
        card.write_text(edited)
        assert not is_as_written(card)
