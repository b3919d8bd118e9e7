"""A plan says how many rows' pictures are encoded, where features are kept, and how many would be without."""

from __future__ import annotations

from typing import Any

from made import made_examples
from stage_parts import made_skill, stage

from lmmcl.config.cluster import Cluster
from lmmcl.config.settings import Evaluation
from lmmcl.models import get_model
from lmmcl.planning.feature_notes import feature_notes
from lmmcl.steps import Evaluate, Pretrained
from lmmcl.tasks.skills import Benchmark, Skill

KEPT = {"features": "/data/features"}


class Counted(Benchmark):
    """Its size is known without reading it."""

    def known_rows(self) -> int:
        return 500


class CountedSkill(Skill):
    """Likewise."""

    def known_rows(self) -> int:
        return 1000


def counted(name: str) -> CountedSkill:
    return CountedSkill(name, 1, load=made_examples, benchmark=Benchmark(name, 1, "exact_match", load=made_examples))


def notes(steps: list[Any], **kept: Any) -> tuple[str, ...]:
    return feature_notes(steps, Cluster.model_validate(kept or {"training": KEPT, "evaluation": KEPT}))


def test_stages_count_the_rows_of_each_skill_once_and_those_that_train_the_tower_apart() -> None:
    settings: dict[str, Any] = {"max_steps": None, "epochs": 3}
    steps = [
        stage(recipe=recipe, skill=counted(name), seed=seed, **settings)
        for name in ("a", "b")
        for recipe in ("sa_proj", "gate_up", "projector")
        for seed in (0, 1)
    ]
    (note,) = notes(steps)
    assert note == (
        "image features: 8 of 12 stages show the pictures of 2 data sets to a frozen tower; each picture is encoded once on a "
        "node: those of 2,000 rows instead of 24,000; 4 encode theirs each time: their tower or projector is trained"
    )
    after = stage(parent=steps[4], skill=counted("b"))
    assert "0 of 1 stages show" in notes([after])[0], "a stage after one that trained the projector"
    short = stage(skill=counted("a"), max_steps=5)
    assert "those of 20 rows instead of 20" in notes([short])[0]
    assert "those of 50 rows instead of 150" in notes([stage(skill=counted("a"), examples=50, **settings)])[0]


def test_evaluations_count_the_questions_of_each_benchmark_and_precision_once() -> None:
    checkpoints = [stage(seed=seed) for seed in range(4)]
    benchmark = Counted("asked", 1, "exact_match", load=made_examples)
    steps = [Evaluate(at, benchmark, Evaluation(precision="fp32", limit=200)) for at in checkpoints]
    assert "those of 200 rows instead of 800" in notes(steps)[0]
    other = [Evaluate(at, benchmark, Evaluation(precision="bf16", limit=200)) for at in checkpoints[:1]]
    assert (
        "4 of 4" not in notes([*steps, *other])[0]
        and "those of 400 rows instead of 1,000" in notes([*steps, *other])[0]
    )
    limited = Evaluate(checkpoints[0], made_skill().benchmark, Evaluation(precision="fp32", limit=10))
    assert "those of at most 10 rows instead of 10" in notes([limited])[0]
    unknown = Evaluate(checkpoints[0], made_skill().benchmark, Evaluation(precision="fp32"))
    assert notes([*steps, unknown])[0].endswith("instead of 800, besides 1 data set of unknown size")
    assert notes([unknown])[0].endswith("each picture is encoded once on a node")


def test_families_whose_features_enter_otherwise_are_named_and_nothing_is_said_without_a_folder() -> None:
    small = get_model("qwen3-vl-2b")
    steps = [Evaluate(Pretrained(small), made_skill().benchmark, Evaluation())]
    (note,) = notes(steps)
    assert "or their family (qwen3_vl) is not one of llava, llava_next, llava_onevision, qwen2_vl, qwen2_5_vl" in note
    assert notes(steps, evaluation={}) == () and notes(steps, training=KEPT) == ()
