"""What counts as proof that a stage trained what its recipe names."""

from __future__ import annotations

import pytest

from lmmcl.config.settings import Training
from lmmcl.methods.recipes.recipe import Recipe
from lmmcl.models import get_model
from lmmcl.steps import Finetune, Pretrained
from lmmcl.tasks.skills import Benchmark, Skill
from lmmcl.training.stage.proof import verify_updates
from lmmcl.training.stage_errors import StageError

ROLES = {"gate": "llm.blocks.0.mlp.gate", "up": "llm.blocks.0.mlp.up", "head": "llm.head"}
BEFORE = {"gate": "1", "up": "1", "head": "1", "positions": "1"}
TRAINED = {"gate", "up"}


def stage(*selectors: str) -> Finetune:
    skill = Skill("birds", 1, load=list, benchmark=Benchmark("birds", 1, "exact", load=list))
    recipe = Recipe(name="some", train=selectors)
    return Finetune(Pretrained(get_model("tiny-onevision")), recipe, None, skill, Training(), seed=0)


def test_what_moved_what_stood_still_and_what_was_frozen_is_told_apart() -> None:
    proof = verify_updates(stage("llm.blocks.*.mlp"), ROLES, TRAINED, BEFORE, {**BEFORE, "gate": "2"})
    assert proof.fields() == {"frozen": 2, "moved": 1, "unmoved": ["up"]}


@pytest.mark.parametrize("name", ["head", "positions"])
def test_a_frozen_parameter_or_buffer_that_changed_fails_the_stage(name: str) -> None:
    with pytest.raises(StageError, match=f"1 frozen tensors changed: {name}"):
        verify_updates(stage("llm.blocks.*.mlp"), ROLES, TRAINED, BEFORE, {**BEFORE, "gate": "2", name: "2"})


def test_each_selector_must_have_moved_something() -> None:
    with pytest.raises(StageError, match=r"no parameter that 'llm\.blocks\.\*\.mlp\.up' selects changed"):
        verify_updates(
            stage("llm.blocks.*.mlp.gate", "llm.blocks.*.mlp.up"), ROLES, TRAINED, BEFORE, {**BEFORE, "gate": "2"}
        )


def test_a_tensor_that_vanished_fails_the_stage() -> None:
    after = {name: digest for name, digest in BEFORE.items() if name != "positions"}
    with pytest.raises(StageError, match="appeared or disappeared: positions"):
        verify_updates(stage("llm.blocks.*.mlp"), ROLES, TRAINED, BEFORE, after)


def test_an_error_of_a_stage_survives_the_way_through_another_process() -> None:
    import pickle

    error = pickle.loads(pickle.dumps(StageError.of(stage("llm"), "loss is nan at update 3 of 9")))
    assert isinstance(error, StageError) and "loss is nan at update 3 of 9" in str(error)
