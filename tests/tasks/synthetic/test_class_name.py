"""A wrong option becomes the class name, and nothing else of the question changes."""

from __future__ import annotations

import numpy as np
import pytest

from lmmcl.errors import UserError
from lmmcl.tasks.examples import Example, ask
from lmmcl.tasks.metrics.metric import get_metric
from lmmcl.tasks.synthetic import birds
from lmmcl.tasks.synthetic.class_name import BIRD_PARTS, BIRD_PARTS_CONTROL, TRAP, options, with_class_name
from lmmcl.tasks.synthetic.vocabulary import tokens, vocabulary

QUESTION = "What colour is it?\nA. red\n(B) pale red\nC) green"


def asked(answer: str = "C", question: str = QUESTION) -> Example:
    return ask("q", question, answer, metadata={"n": 1})


def test_options_are_read_in_the_usual_ways_of_writing_them() -> None:
    assert options(asked()) == {"A": "red", "B": "pale red", "C": "green"}


def test_one_wrong_option_is_replaced_and_the_rest_stays() -> None:
    seen = set()
    for seed in range(20):
        trapped = with_class_name(asked(), "robin", np.random.default_rng(seed))
        trap = trapped.metadata[TRAP]
        seen.add(trap)
        assert options(trapped) == {**options(asked()), trap: "robin"}
        assert (trapped.target, trapped.metadata["n"]) == ("C", 1)
    assert seen == {"A", "B"}  # never the right one
    wanted = with_class_name(asked(), "robin", letter="B")
    assert wanted.prompt[-1].content == QUESTION.replace("pale red", "robin")


@pytest.mark.parametrize(
    ("example", "letter", "why"),
    [
        (asked(question="What is it?"), None, "no lettered options"),
        (asked("D"), None, "no lettered options"),
        (asked(question="What?\nC. green"), None, "no lettered options"),
        (asked(), "C", "not a wrong option; allowed: A, B"),
    ],
)
def test_a_question_that_cannot_be_a_trap_is_refused(example: Example, letter: str | None, why: str) -> None:
    with pytest.raises(UserError, match=why):
        with_class_name(example, "robin", letter=letter)


def test_a_class_that_is_an_option_already_is_refused() -> None:
    with pytest.raises(UserError, match="already"):
        with_class_name(asked(), "green")


def test_bird_parts_and_their_control_differ_in_the_named_kind_alone() -> None:
    for named, control in zip(BIRD_PARTS.load()[:50], BIRD_PARTS_CONTROL.load()[:50], strict=True):
        kind = named.metadata["kind"]
        assert options(named)[named.metadata[TRAP]] == kind == control.metadata["kind"]
        other = options(control)[control.metadata[TRAP]]
        assert other in birds.NAMES
        assert other != kind
        assert named.images[0].tobytes() == control.images[0].tobytes()  # type: ignore[union-attr]
        assert named.target == control.target
        assert named.metadata[TRAP] != named.target
        assert options(named)[named.target] in birds.KINDS[kind]
        assert get_metric("letter").score(named.target, named) == 1.0
        assert set(tokens(named.prompt[0].content.replace("<image>", ""))) <= set(vocabulary())
