"""The class-name option on ImageWikiQA: what real models are asked by the probe `class_name_option`."""

from __future__ import annotations

from pathlib import Path

import pytest
from hub_fixtures import FixtureHub

from lmmcl.config.sweep import build_sweep
from lmmcl.errors import UserError
from lmmcl.planning.inputs import check_inputs, tasks_of
from lmmcl.tasks.examples import Example, ask
from lmmcl.tasks.hub.prepare import prepare
from lmmcl.tasks.papers.easier.class_name_trap import WIKI_CLASS, WIKI_CLASS_CONTROL, TrapRows
from lmmcl.tasks.probes import get_probe
from lmmcl.tasks.synthetic.class_name import BIRD_PARTS, TRAP, options


def wiki(*lines: str, right: str = "A", name: str = "stretcher") -> Example:
    text = "\n".join(["Where is this object carried?", *lines, "Choose A, B, C, or D."])
    return ask(f"{name}_{right}_question1_image1", text, right, metadata={"class_name": name})


OPTIONS = ("A. By hand", "B. On a shelf", "C. In a lake", "D. Nowhere")
QUESTIONS = [
    wiki(*OPTIONS),
    wiki(*OPTIONS, right="C", name="Giant Schnauzer"),
    wiki(*OPTIONS, right="D", name="jacamar"),
]


def test_one_wrong_option_is_what_the_image_shows_and_three_stay() -> None:
    """Source: evaluators/mix_cls_result_matcher.py finds the question by the three options that are as they were."""
    for asked, trapped in zip(QUESTIONS, TrapRows(QUESTIONS, named=True), strict=True):
        before, after = options(asked), options(trapped)
        changed = [letter for letter in after if after[letter] != before[letter]]
        assert changed == [trapped.metadata[TRAP]] and changed[0] != asked.target
        assert after[changed[0]] == asked.metadata["class_name"]
        assert trapped.target == asked.target
        assert trapped.prompt[-1].content.endswith("Choose A, B, C, or D.")


def test_the_control_names_another_class_at_the_same_letter() -> None:
    for trapped, control in zip(TrapRows(QUESTIONS, named=True), TrapRows(QUESTIONS, named=False), strict=True):
        letter = control.metadata[TRAP]
        assert letter == trapped.metadata[TRAP]
        assert options(control)[letter] in {"stretcher", "Giant Schnauzer", "jacamar"} - {
            control.metadata["class_name"]
        }


@pytest.mark.parametrize(("right", "letter"), [("A", "B"), ("B", "")])
def test_an_option_that_is_the_class_already_is_the_trap_unless_it_is_right(right: str, letter: str) -> None:
    named = wiki("A. By hand", "B. Stretcher", "C. In a lake", "D. Nowhere", right=right)
    (trapped,) = TrapRows([named], named=True)
    assert trapped.metadata[TRAP] == letter
    assert options(trapped) == options(named)


def test_real_models_are_asked_imagewikiqa_and_drawn_ones_about_birds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    probe = get_probe("class_name_option")
    assert probe.benchmarks((), drawn=False) == (WIKI_CLASS, WIKI_CLASS_CONTROL)
    assert probe.benchmarks(())[0] == BIRD_PARTS
    monkeypatch.setenv("LMMCL_DATA", str(tmp_path))
    sweep = build_sweep(
        {
            "name": "traps",
            "orders": {"main": ["birds"]},
            "probes": ["class_name_option"],
            "grids": [{"model": ["tiny-onevision", "llava-1.5-7b"], "recipe": ["projector"]}],
        }
    )
    asked = [{task.name for task in tasks_of(trial)} for trial in sweep.trials]
    assert "bird_parts" in asked[0] and "image_wiki_class" in asked[1]
    steps = [step for step in sweep.steps.values() if step.kind == "examine"]
    assert len({step.key for step in steps}) == 4
    with pytest.raises(UserError, match="image_wiki"):
        check_inputs(sweep.trials[1:])


def test_the_questions_are_those_that_were_prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LMMCL_DATA", str(tmp_path))
    assert "image_wiki_qa" in (WIKI_CLASS.missing() or "")
    prepare(["image_wiki_qa"], FixtureHub(tmp_path), tmp_path, say=lambda _: None)
    assert WIKI_CLASS.missing() is None
    trapped = WIKI_CLASS.take(2)
    assert [options(each)[each.metadata[TRAP]] for each in trapped] == [each.metadata["class_name"] for each in trapped]
    assert len(WIKI_CLASS_CONTROL.load()) == 3
