"""A sweep says of its benchmarks how they lie to what it teaches, and mistakes are refused when the file is read."""

from __future__ import annotations

from pathlib import Path

import pytest
from made import SWEEP, write_sweep

from lmmcl.config.sweep import load_sweep
from lmmcl.errors import UserError
from lmmcl.reports.image_text_grid import cell_of
from lmmcl.tasks import get_benchmark
from lmmcl.tasks.synthetic import neighbours


def load(folder: Path, tags: str):
    return load_sweep(write_sweep(folder, SWEEP.replace("[colour, shape]", f"[colour, shape], tags: {tags}")))


def test_benchmarks_that_ship_say_how_they_lie_to_the_skills() -> None:
    assert cell_of(get_benchmark("colour"), ["birds", "clock"]) == ("ood", "ood")
    assert cell_of(get_benchmark("colour"), ["general"]) == ("id", "id")
    assert cell_of(get_benchmark("crowd_presence"), ["counting"]) == ("id", "ood")
    assert cell_of(get_benchmark("counting_by_day"), ["birds", "counting"]) == ("ood", "id")
    assert cell_of(get_benchmark("birds_by_day"), ["counting"]) == ("ood", "ood")
    assert cell_of(get_benchmark("image_wiki_qa"), ["imagenet_vqa"]) == ("id", "ood")
    assert cell_of(get_benchmark("flowers102"), ["imagenet_vqa"]) == ("ood", "id")
    assert cell_of(get_benchmark("image_wiki_qa"), ["cub200"]) is None


def test_a_sweep_tags_its_benchmarks_and_no_key_changes(tmp_path: Path) -> None:
    plain = load_sweep(write_sweep(tmp_path, SWEEP))
    sweep = load(tmp_path, "{colour: {image: id, text: ood}, shape: {counting: {image: ood, text: id}}}")
    colour, shape = sweep.trials[0].held_out
    assert cell_of(colour, ["counting"]) == ("id", "ood")
    assert cell_of(shape, ["counting"]) == ("ood", "id")
    assert cell_of(shape, ["clock"]) == ("ood", "ood"), "its own tags still hold for other skills"
    assert list(sweep.steps) == list(plain.steps)


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        (
            "{color: {image: id, text: ood}}",
            "benchmarks.tags.color: unknown held-out benchmark 'color'; did you mean 'colour'",
        ),
        (
            "{colour: {image: odd, text: id}}",
            "benchmarks.tags.colour.image: unknown likeness 'odd'; did you mean 'ood'",
        ),
        ("{colour: {imag: id, text: id}}", "benchmarks.tags.colour.imag: unknown side 'imag'; did you mean 'image'"),
        ("{colour: {image: id}}", "benchmarks.tags.colour: text is missing"),
        ("{colour: {}}", "benchmarks.tags.colour: tags are {image"),
        (
            "{colour: {cuonting: {image: id, text: id}}}",
            "benchmarks.tags.colour.cuonting: unknown skill 'cuonting'; did you mean 'counting'",
        ),
        ("{colour: {clock: {image: id, text: no}}}", "benchmarks.tags.colour.clock.text: unknown likeness"),
    ],
)
def test_wrong_tags_are_refused_with_their_place(tmp_path: Path, tags: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        load(tmp_path, tags)
    assert said in str(caught.value)


@pytest.mark.parametrize("each", neighbours.BENCHMARKS, ids=lambda each: each.name)
def test_neighbours_have_questions_that_no_constant_answers(each) -> None:
    answers = [example.target for example in each.load()]
    assert len(answers) == 200
    assert max(answers.count(answer) for answer in set(answers)) <= 120


def test_by_day_the_ground_is_light_and_what_stands_on_it_as_it_was() -> None:
    dark, light = (
        next(b for b in neighbours.BENCHMARKS if b.name == name).load()[0]
        for name in ("crowd_presence", "birds_by_day")
    )
    import numpy as np

    assert np.asarray(dark.images[0])[0, 15].max() < neighbours.GROUND
    bird = np.asarray(light.images[0])
    assert bird[0, 0].min() > 120, "a corner is ground"
    assert (bird.max(-1) < 2 * neighbours.EYE).sum() == 4, "the eye is still dark"


def test_presence_in_a_crowd_is_true_of_the_picture() -> None:
    (crowd,) = [each for each in neighbours.BENCHMARKS if each.name == "crowd_presence"]
    for example in crowd.load():
        *_, colour, shape = example.prompt[-1].content.rstrip("?").split()
        assert (f"{colour} {shape}" in example.metadata["things"]) == (example.target == "yes")
