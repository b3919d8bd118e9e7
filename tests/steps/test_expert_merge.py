"""What a merge from the pre-trained model combines, and which experts a router chooses among, when a skill comes again."""

from __future__ import annotations

from typing import Any

import pytest
from made import made_trial

from lmmcl.steps import Finetune, Merge
from lmmcl.tasks import routing
from lmmcl.tasks.routing import RouterSkill


def merges(mitigation: str, *skills: str) -> list[Merge]:
    trial = made_trial("lora", mitigation, skills=skills)
    checkpoints = [stage.checkpoint for stage in trial.stages[1:]]
    assert all(isinstance(checkpoint, Merge) for checkpoint in checkpoints)
    return checkpoints  # type: ignore[return-value]


def skills_of(merge: Merge) -> list[str]:
    return [expert.skill.name for expert in merge.finetunes if isinstance(expert, Finetune)]


@pytest.mark.parametrize("mitigation", ["mr_lora", "task_arithmetic", "ties", "dare"])
def test_a_skill_that_comes_again_counts_once_as_its_latest_fine_tune(mitigation: str) -> None:
    first, second, third = merges(mitigation, "birds", "counting", "birds")
    assert [skills_of(merge) for merge in (first, second, third)] == [
        ["birds"],
        ["birds", "counting"],
        ["counting", "birds"],
    ]
    assert third.tuned.skill.name == "birds"


def test_the_router_gives_each_skill_one_letter_and_starts_from_a_mean_that_counts_each_once() -> None:
    router: Any = merges("mr_lora", "birds", "counting", "birds")[-1].router
    assert isinstance(router.skill, RouterSkill)
    assert [skill.name for skill in router.skill.skills] == ["counting", "birds"] and len(router.skill.pool) == 2
    assert router.parent.rule.scale == 1 / 2 and len(router.parent.finetunes) == 2


def test_one_skill_taught_twice_has_one_expert_and_no_router() -> None:
    first, again = merges("mr_lora", "birds", "birds")
    assert again.router is None and again.key == first.key


def test_how_a_routers_answer_is_asked_for_and_read_enters_the_key_of_its_checkpoint_and_not_of_the_router(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def keys() -> tuple[str, str]:
        merge = merges("mr_lora", "birds", "counting")[-1]
        assert merge.router is not None
        return merge.key, merge.router.key

    all_keys = [keys()]
    for name in ("ANSWER_TOKENS", "READING_VERSION"):
        monkeypatch.setattr(routing, name, 99)
        all_keys.append(keys())
    assert len({merge for merge, _ in all_keys}) == 3
    assert len({router for _, router in all_keys}) == 1, "it is trained as before"
