"""Data-hybrid training: shares of draws, the stop when all sources are exhausted, constant compute, and names at the door."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from made import write_sweep
from own_data import write_receipts
from stage_parts import made_skill, parts, shades, stage

from lmmcl.config.sweep import load_sweep
from lmmcl.errors import UserError
from lmmcl.methods import get_mitigation
from lmmcl.methods.data.data_hybrid import DataHybrid, interleave
from lmmcl.tasks import get_benchmark, get_skill
from lmmcl.tasks.examples import Example
from lmmcl.tasks.synthetic import draw
from lmmcl.tasks.synthetic.held_out import BENCHMARKS


def one_by_one(choices: Iterator[int], sizes: Sequence[int]) -> list[tuple[int, int]]:
    """The rule as a person would carry it out: draw a source, take its next row, stop when none is left unexhausted."""
    taken = [0] * len(sizes)
    drawn = []
    for source in choices:
        drawn.append((source, taken[source] % sizes[source]))
        taken[source] += 1
        if all(t >= size for t, size in zip(taken, sizes, strict=True)):
            return drawn
    raise AssertionError("too few choices")


@pytest.mark.parametrize(
    ("sizes", "shares"), [((30, 7), (0.5, 0.5)), ((5, 900), (0.9, 0.1)), ((40, 9, 3), (0.4, 0.3, 0.3))]
)
def test_the_order_is_that_of_drawing_one_by_one_until_all_are_exhausted(
    sizes: tuple[int, ...], shares: tuple[float, ...]
) -> None:
    which, rows = interleave(sizes, shares, seed=5)
    longer, _ = interleave([10 * size for size in sizes], shares, seed=5)
    assert list(zip(which.tolist(), rows.tolist(), strict=True)) == one_by_one(iter(longer.tolist()), sizes)


def test_the_order_stops_with_the_last_row_of_the_source_that_lasted_longest() -> None:
    which, rows = interleave((100, 100), (0.97, 0.03), seed=0)
    assert (which[-1], rows[-1]) == (1, 99)
    assert (which == 1).sum() == 100 and set(rows[which == 0]) == set(range(100))
    assert np.bincount(rows[which == 0]).max() - np.bincount(rows[which == 0]).min() == 1


@pytest.mark.parametrize("ratio", [0.03, 0.1, 0.3, 0.5, 0.7, 0.9])
def test_shares_of_draws_are_the_ratio_within_chance(ratio: float) -> None:
    """Over ten seeds the share stays within four standard deviations, and the deviations are of the size of chance."""
    scores = []
    for seed in range(10):
        which, _ = interleave((4000, 4000), (1 - ratio, ratio), seed)
        n = 4000  # of a fixed number of draws: the end of the order depends on the draws
        scores.append((which[:n].sum() - n * ratio) / np.sqrt(n * ratio * (1 - ratio)))
    assert np.abs(scores).max() < 4
    assert 0.3 < np.std(scores) < 2


def test_the_order_follows_the_seed_alone() -> None:
    one, same, other = (interleave((50, 50), (0.5, 0.5), seed)[0] for seed in (1, 1, 2))
    assert np.array_equal(one, same)
    assert not np.array_equal(one[:50], other[:50])


def test_several_sources_share_the_ratio_evenly() -> None:
    mitigation = get_mitigation({"data_hybrid": {"ratio": 0.6, "auxiliary": ["counting", "clock"]}})
    mixed = mitigation.data(shades(1000), [], 0)
    kinds = [example.id.split("-")[0] for example in itertools.islice(mixed, 1500)]
    assert {kind for kind in kinds if not kind.isdigit()} == {"counting", "clock"}
    for name in ("counting", "clock"):
        assert abs(kinds.count(name) / 1500 - 0.3) < 0.05


def test_a_stage_with_the_mix_has_as_many_updates_and_examples_as_one_without(tmp_path: Path) -> None:
    mitigation = get_mitigation({"data_hybrid": {"ratio": 0.5}})
    taught = made_skill(examples=shades(160))
    settings = {"max_steps": None, "epochs": 1, "global_batch_size": 8, "skill": taught}
    plain, mixed = (parts(stage(m, **settings), tmp_path) for m in (None, mitigation))
    assert mixed.trainer.args.max_steps == plain.trainer.args.max_steps == 20
    assert len(mixed.context.rows) == len(plain.context.rows) == 160
    drawn = [mixed.context.examples[row].id for row in mixed.context.rows]
    assert 50 < sum(each.startswith("general-train-") for each in drawn) < 110
    assert len(mixed.context.examples) > 6000, "a mix shorter than its largest source did not exhaust it"


def test_a_row_that_comes_again_is_encoded_once_in_this_stage_and_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lmmcl.training.stage import collate

    monkeypatch.setattr(collate, "CACHE", collate.EncodingCache())
    encoded: list[str] = []
    encode = collate.encode

    def note(processor: object, example: Example, **how: object) -> object:
        encoded.append(example.id)
        return encode(processor, example, **how)

    monkeypatch.setattr(collate, "encode", note)
    small = [made_skill(name, shades(5, green)) for name, green in (("taught", 40), ("aside", 90))]
    for ratio in (0.5, 0.4):
        mitigation = get_mitigation(
            {"data_hybrid": {"auxiliary": "aside", "ratio": ratio}}, skills={skill.name: skill for skill in small}
        )
        made = parts(stage(mitigation, skill=small[0], max_steps=20), tmp_path)
        data = made.trainer.train_dataset
        seen = {int(data[at]["pixel_values"][0, 1, 0, 0] * 1000) for at in range(len(data))}
        assert len(seen) == 2, "pictures of both sources"
    assert sorted(encoded) == sorted(2 * [example.id for example in shades(5)])


def test_the_auxiliary_skill_shows_no_picture_that_is_held_out() -> None:
    shown = {example.images[0].tobytes() for example in get_skill("general").load()[:1500]}
    for name in (benchmark.name for benchmark in BENCHMARKS):
        asked = {example.images[0].tobytes() for example in get_benchmark(name).load()}
        assert not shown & asked
    taught, asked = get_skill("general").load(), get_skill("general").benchmark.load()
    assert {draw.side_of(example.images[0]) for example in taught[:300]} == {"train"}
    assert {draw.side_of(example.images[0]) for example in asked} == {"test"}


def test_the_auxiliary_skill_asks_questions_of_every_held_out_kind() -> None:
    kinds = {example.metadata["kind"] for example in get_skill("general").load()[:600]}
    assert kinds >= {benchmark.name for benchmark in BENCHMARKS}


def test_who_is_mixed_in_enters_the_key_by_identity_and_the_name_of_the_trial_by_name() -> None:
    plain, other = DataHybrid(), get_mitigation({"data_hybrid": {"ratio": 0.1, "auxiliary": "counting"}})
    assert plain.identity()["auxiliary"] == [get_skill("general").identity()]
    assert other.identity() == {
        "name": "data_hybrid", "version": 1, "ratio": 0.1, "auxiliary": [get_skill("counting").identity()],
    }  # fmt: skip
    assert (plain.label, other.label) == ("data_hybrid(ratio=0.5)", "data_hybrid(auxiliary=counting,ratio=0.1)")
    assert stage(plain).key != stage(other).key


def test_a_file_enters_the_key_by_its_content_wherever_it_lies(tmp_path: Path) -> None:
    found = []
    for place, rows in (("here", 12), ("there", 12), ("longer", 13)):
        write_receipts(tmp_path / place, rows)
        given = {"auxiliary": {"train": "train.json"}}
        found.append(get_mitigation({"data_hybrid": given}, folder=tmp_path / place))
    assert found[0].identity() == found[1].identity() != found[2].identity()
    assert json.dumps(found[0].identity())
    assert len({example.target for example in found[0].data(shades(3), [], 0)}) > 3
    with (tmp_path / "here" / "train.json").open("a") as file:
        file.write(" ")
    with pytest.raises(UserError, match="changed since"):
        found[0].data(shades(3), [], 0)


SWEEP = """
name: mixed
orders: {main: [counting]}
skills: {receipts: {train: own/train.json, test: own/test.json, metric: exact_match}}
grids:
  - {model: [tiny-onevision], recipe: [sa_proj], mitigation: [{data_hybrid: {auxiliary: [SOURCES]}}]}
"""


def test_a_sweep_may_name_its_own_skill_or_a_file_beside_it(tmp_path: Path) -> None:
    write_receipts(tmp_path / "own")
    write_receipts(tmp_path / "own", name="test.json")
    text = SWEEP.replace("SOURCES", "receipts, {train: own/test.json}")
    (trial,) = load_sweep(write_sweep(tmp_path, text)).trials
    assert [source.name for source in trial.mitigation.auxiliary] == ["receipts", "test"]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"auxiliary": "countin"}, "auxiliary: unknown skill 'countin'; did you mean 'counting'"),
        ({"auxiliary": ["general", "general"]}, "listed twice"),
        ({"auxiliary": []}, "auxiliary"),
        ({"auxiliary": {"train": "no.json"}}, "no.json"),
        ({"auxiliary": {"train": "no.json", "image": "x"}}, "unknown key 'image'; did you mean 'images'"),
        ({"auxiliary": 3}, "auxiliary"),
        ({"ratio": 0}, "ratio"),
        ({"ratio": 1}, "ratio"),
        ({"ration": 0.5}, "did you mean 'ratio'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, object], told: str) -> None:
    with pytest.raises(UserError) as refused:
        get_mitigation({"data_hybrid": settings})
    assert told in str(refused.value)
