"""Questions about which expert answers: the prompt, the letter, and what a router is taught."""

from __future__ import annotations

import pytest
from made import made_benchmark
from PIL import Image

from lmmcl.tasks.examples import IMAGE_PLACEHOLDER, Example, Message, ask
from lmmcl.tasks.routing import (
    choice,
    pool_of,
    router_skill,
    routing_example,
    routing_questions,
)
from lmmcl.tasks.skills import Benchmark, Skill

IMAGE = Image.new("RGB", (4, 4))


def skill(name: str, rows: int, description: str = "") -> Skill:
    examples = [ask(f"{name}-{n}", f"{name} {n} ?", str(n), IMAGE) for n in range(rows)]
    return Skill(name, 1, lambda: examples, made_benchmark(name), description, random_order=True)


def test_the_question_its_images_and_all_experts_are_in_the_prompt_and_the_answer_is_not() -> None:
    turns = (
        Message("system", "Be brief."),
        Message("user", f"{IMAGE_PLACEHOLDER}\nHow many?"),
        Message("assistant", "Three."),
        Message("user", f"And here {IMAGE_PLACEHOLDER}?"),
        Message("assistant", "secret"),
    )
    made = routing_example(Example("7", turns, images=(IMAGE, IMAGE)), ["birds: which bird", "counting"], "B")
    (prompt,) = made.prompt
    assert (made.id, made.target, made.images) == ("7", "B", (IMAGE, IMAGE))
    assert prompt.content.startswith(IMAGE_PLACEHOLDER * 2) and prompt.content.count(IMAGE_PLACEHOLDER) == 2
    for part in ("A. birds: which bird", "B. counting", "How many?", "Three.", "And here"):
        assert part in prompt.content
    assert "secret" not in prompt.content and "Be brief." not in prompt.content


@pytest.mark.parametrize(
    ("text", "expert"),
    [
        ("A", 0),
        ("B.", 1),
        (" (c) because", 2),
        ("b", 1),
        ('"C"', 2),
        ("**B**", 1),
        ("B: counting", 1),
        ("A - birds", 0),
        ("B\nIt asks how many there are.", 1),
        ("Answer: B", 1),
        ("The expert is B", 1),
        ("the best expert is (B).", 1),
        ("A bird expert: B", 1),
        ("I think it is C.", 2),
        ("I'd say: C", 2),
        ("Answer: B\nA question like this asks for a count.", 1),
    ],
)
def test_a_letter_of_the_pool_names_its_expert(text: str, expert: int) -> None:
    assert choice(text, 3, "any") == (expert, True)


@pytest.mark.parametrize(
    "text",
    [
        *("", "D", "birds", "42", "A bird expert", "a photo of birds", "I would ask the first", "Expert D", "A's"),
        "This is a",
    ],
)
def test_any_other_answer_names_none_and_the_question_decides_the_same_each_time(text: str) -> None:
    chosen = [choice(text, 3, f"question-{n}") for n in range(60)]
    assert chosen == [choice(text, 3, f"question-{n}") for n in range(60)]
    assert not any(named for _, named in chosen)
    assert {number for number, _ in chosen} == {0, 1, 2}


def test_a_router_learns_from_some_examples_of_every_skill_with_its_letter() -> None:
    skills = [skill("birds", 5, "which bird"), skill("counting", 2)]
    router = router_skill(skills, pool_of(skills, {"counting": "how many"}), 3)
    taught = router.load()
    assert [each.id for each in taught] == ["birds-0", "birds-1", "birds-2", "counting-0", "counting-1"]
    assert [each.target for each in taught] == ["A", "A", "A", "B", "B"]
    assert router.known_rows() is None
    assert router.pool == ("birds: which bird", "counting: how many")
    assert pool_of(skills, {}) == ("birds: which bird", "counting")
    assert "A. birds: which bird\nB. counting: how many" in taught[0].prompt[0].content


def test_what_a_router_is_taught_is_its_identity() -> None:
    birds, counting = skill("birds", 5), skill("counting", 5)
    made = [
        router_skill([birds, counting], ("birds", "counting"), 3),
        router_skill([counting, birds], ("counting", "birds"), 3),
        router_skill([birds, counting], ("birds", "counting"), 2),
        router_skill([birds, counting], ("birds", "counting: how many"), 3),
    ]
    assert len({str(each.identity()) for each in made}) == 4
    again = router_skill([birds, counting], ("birds", "counting"), 3)
    assert str(made[0].identity()) == str(again.identity())


def test_questions_about_the_experts_of_a_pool_have_an_identity_of_their_own() -> None:
    examples = [ask(str(n), f"question {n} ?", str(n)) for n in range(6)]
    whole = Benchmark("asked", 1, "exact_match", lambda: examples, max_new_tokens=3, random_order=True)
    about, other = (routing_questions(whole, ["birds", name]) for name in ("counting", "clock"))
    assert about.max_new_tokens == 16
    assert [each.id for each in about.take(4)] == ["0", "1", "2", "3"] and len(about.take(None)) == 6
    assert "birds" in about.take(None)[0].prompt[0].content
    assert len({str(each.identity()) for each in (whole, about, other)}) == 3
