"""A limit takes a fixed sample of rows, the same for all trials: data sorted by answer must not teach or ask one answer alone."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
from own_data import write_receipts

from lmmcl.config.settings import Evaluation, Training
from lmmcl.evaluation.encodings import EncodingCache, windows
from lmmcl.methods.merging.calibration import calibration_examples
from lmmcl.methods.recipes.recipe import get_recipe
from lmmcl.models import get_model
from lmmcl.steps import Evaluate, Finetune, Pretrained, ProbeStep
from lmmcl.tasks import benchmark_names, get_benchmark, get_skill, skill_names
from lmmcl.tasks.examples import Example, ask
from lmmcl.tasks.files.local_files import local_skill
from lmmcl.tasks.files.prepared import PreparedExamples, PreparedWriter
from lmmcl.tasks.probes import get_probe
from lmmcl.tasks.sampling import SAMPLING, sample_rows, spread_rows
from lmmcl.tasks.skills import Benchmark, Skill
from lmmcl.tasks.synthetic.draw import Examples
from lmmcl.training.stage.collate import StageData, limited


def test_a_sample_depends_on_the_number_of_rows_and_its_size_alone() -> None:
    assert sample_rows(10, 4) == [2, 5, 8, 9]
    assert sample_rows(1000, 3) == [165, 447, 997]
    assert sample_rows(3, 9) == [0, 1, 2]
    assert sample_rows(0, 5) == []


def test_a_larger_sample_holds_the_smaller_ones() -> None:
    samples = [set(sample_rows(500, count)) for count in range(0, 501, 20)]
    assert all(small < large for small, large in pairwise(samples))
    assert samples[-1] == set(range(500))


def test_every_part_of_the_data_is_as_likely_as_any() -> None:
    thirds = Counter(row * 3 // 90_000 for row in sample_rows(90_000, 9_000))
    assert all(abs(count - 3_000) < 200 for count in thirds.values()), thirds


def test_rows_are_spread_evenly_over_a_field_and_small_groups_give_all_they_have() -> None:
    groups = ["a"] * 90 + ["b"] * 8 + ["c"] * 2
    chosen = spread_rows(groups, 12)
    assert Counter(groups[row] for row in chosen) == {"a": 5, "b": 5, "c": 2}
    assert chosen == sorted(chosen) and len(set(chosen)) == 12
    assert set(spread_rows(groups, 6)) < set(chosen)
    assert spread_rows(groups, 200) == list(range(100))


def sorted_examples(count: int = 40) -> list[Example]:
    """Sorted by answer, and by a field that most of them share."""
    answers = ("red", "green", "blue", "white")
    return [
        ask(str(row), "colour?", answers[row * 4 // count], metadata={"kind": "rare" if row >= count - 4 else "usual"})
        for row in range(count)
    ]


def sorted_benchmark(**more: object) -> Benchmark:
    return Benchmark("sorted", 1, "exact_match", sorted_examples, **more)  # type: ignore[arg-type]


def test_sorted_data_is_asked_and_taught_in_all_of_its_answers() -> None:
    benchmark = sorted_benchmark()
    skill = Skill("sorted", 1, sorted_examples, benchmark)
    assert len({example.target for example in benchmark.take(12)}) == 4
    assert len({example.target for example in skill.take(12)}) == 4
    assert list(skill.take(12)) == list(benchmark.take(12))
    assert len(benchmark.take(99)) == len(benchmark.take(None)) == 40
    assert {example.target for example in calibration_examples([skill], [12], 12)} == {"red", "green", "blue", "white"}


def test_a_balanced_benchmark_is_asked_evenly_over_its_field(tmp_path: Path) -> None:
    for load in (sorted_examples, partial(prepared, tmp_path)):
        asked = replace(sorted_benchmark(balance="kind"), load=load).take(8)
        assert Counter(example.metadata["kind"] for example in asked) == {"usual": 4, "rare": 4}


def prepared(folder: Path) -> Sequence[Example]:
    writer = PreparedWriter(folder / "rows.parquet", {"kind": str})
    for example in sorted_examples():
        writer.add(example)
    writer.finish({})
    writer.close()
    return PreparedExamples(folder / "rows.parquet")


def test_drawn_examples_come_in_no_order_so_the_first_ones_are_taken() -> None:
    benchmarks = [get_benchmark(name) for name in benchmark_names()]
    skills = [get_skill(name) for name in skill_names()]
    drawn = [each for each in (*benchmarks, *skills) if each.missing() is None and isinstance(each.load(), Examples)]
    assert len(drawn) >= 17
    assert all(each.random_order for each in drawn)
    assert not [each.name for each in (*benchmarks, *skills) if each not in drawn and each.random_order]
    counting = get_skill("counting").benchmark
    assert [example.id for example in counting.take(3)] == [f"counting-test-{row}" for row in range(3)]
    assert counting.sampling(3) == {}


def keys(skill: Skill, count: int | None) -> tuple[str, str, str]:
    """Those of a fine-tune, an evaluation and a probe that take `count` examples."""
    model = Pretrained(get_model("tiny-onevision"))
    tuned = Finetune(model, get_recipe("llm"), None, skill, Training(examples=count), 0)
    probe = ProbeStep(model, get_probe({"number_bias": {"examples": count or 64}}), (skill.benchmark,), Evaluation())
    return tuned.key, Evaluate(model, skill.benchmark, Evaluation(limit=count)).key, probe.key


def test_only_where_a_sample_is_taken_do_keys_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    files = {part: write_receipts(tmp_path, rows=8, name=f"{part}.json") for part in ("train", "test")}
    own = local_skill("own", **files, metric="anls")
    assert own.sampling(8) == own.sampling(None) == own.benchmark.sampling(99) == {}
    assert own.sampling(7) == own.benchmark.sampling(7) == {"sample": SAMPLING}

    monkeypatch.setattr("lmmcl.tasks.skills.SAMPLING", SAMPLING + 1)
    changed = keys(own, 7), keys(own, 8), keys(own, None), keys(get_skill("counting"), 7)
    monkeypatch.undo()
    now = keys(own, 7), keys(own, 8), keys(own, None), keys(get_skill("counting"), 7)
    assert not set(changed[0]) & set(now[0])
    assert changed[1:] == now[1:]


def test_data_of_the_hub_may_have_any_number_of_rows_so_a_limit_is_a_sample() -> None:
    assert get_benchmark("mmstar").sampling(500) == {"sample": SAMPLING}
    assert get_benchmark("mmstar").sampling(None) == {}


def test_an_encoding_is_found_again_by_the_row_in_the_data_whatever_part_is_taken() -> None:
    processor = get_model("tiny-onevision").load_processor()
    skill = Skill("colours", 1, sorted_examples, sorted_benchmark())
    whole, part = skill.load(), limited(skill, 8).load()

    def encoded(examples: Sequence[Example]) -> StageData:
        return StageData("colours", examples, range(len(examples)), processor, "one model and skill")

    texts = [processor.tokenizer.decode(encoded(part)[at]["input_ids"]) for at in range(8)]
    for at, row in enumerate(sample_rows(40, 8)):
        assert whole[row].target in texts[at]
        assert encoded(whole)[row]["input_ids"] is encoded(part)[at]["input_ids"]


def test_a_row_that_cannot_be_read_is_told_by_its_number_in_the_data() -> None:
    class Broken(list):
        def __getitem__(self, at: object) -> object:
            raise ValueError("torn")

    benchmark = Benchmark("broken", 1, "exact_match", lambda: Broken(range(40)))
    with pytest.raises(Exception, match=f"example at row {sample_rows(40, 3)[0]}: cannot be read: torn"):
        next(windows(get_model("tiny-onevision").load_processor(), benchmark, 3, 3, EncodingCache(0)))


def test_a_sorted_file_of_ones_own_is_taught_and_asked_in_all_of_its_answers(tmp_path: Path) -> None:
    files: dict[str, Path] = {}
    by_answer: Callable[[dict], str] = lambda row: row["conversations"][1]["value"]  # noqa: E731
    for part in ("train", "test"):
        files[part] = write_receipts(tmp_path, rows=24, name=f"{part}.json")
        files[part].write_text(json.dumps(sorted(json.loads(files[part].read_text()), key=by_answer)))
    own = local_skill("own", **files, metric="anls")
    for data in (own, own.benchmark):
        assert len({example.target for example in data.take(10)}) == 4
