"""The study files compute what the papers' code computes; each fact names its source (repositories at the commits of docs/papers.md)."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from lmmcl.config.sweep import Sweep, load_sweep
from lmmcl.methods.data.data_hybrid import DataHybrid
from lmmcl.methods.merging.model_tailor import ModelTailor
from lmmcl.steps import Merge
from lmmcl.steps.trial import Trial

SWEEPS = Path(__file__).parents[2] / "sweeps"


@cache
def study(name: str) -> Sweep:
    return load_sweep(SWEEPS / f"{name}.yaml")


def trials(name: str, wanted: Callable[[Trial], bool] = lambda trial: True) -> list[Trial]:
    found = [trial for trial in study(name).trials if wanted(trial)]
    assert found
    return found


def verdicts() -> dict[str, str]:
    """What docs/papers.md says of each point."""
    lines = (SWEEPS.parent / "docs" / "papers.md").read_text(encoding="utf-8").splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines if line.startswith("| ")]
    return {row[0].strip("| "): row[2] for row in rows if len(row) == 3 and row[0] != "point"}


def test_the_page_of_the_studies_says_same_where_the_same_is_computed() -> None:
    said = verdicts()
    assert len(said) >= 50
    for point in (
        "tiles",
        "system turn of OneVision",
        "training prompts",
        "LwF",
        "number-token bias",
        "layer contribution",
        "ImageNet-VQA and its neighbours",
        "hybrid learning rate",
        "mixes",
        "pixel limit",
        "class-name option",
        "MLLM-CL epochs",
        "MLLM-CL trained",
        "MLLM-CL scoring",
        "fine-tune",
        "which entries stay",
    ):
        assert said[point].startswith("same"), point
    other = {point for point, verdict in said.items() if verdict.startswith("other")}
    assert other == {"batch", "loss", "letters", "compensation"}, "each with its reason in its row"


def hybrids() -> dict[tuple[str, float], set[float]]:
    """Learning rates of easier.yaml by (mixed-in data, ratio)."""
    found: dict[tuple[str, float], set[float]] = {}
    for trial in study("easier").trials:
        if isinstance(trial.mitigation, DataHybrid):
            (source,) = trial.mitigation.auxiliary
            found.setdefault((source.name, trial.mitigation.ratio), set()).add(trial.training.learning_rate)
    return found


def test_diverse_data_is_mixed_in_at_1e_6_for_every_ratio_and_source() -> None:
    """config_generation/mixing-datasets/mixing_{llava_665k,flowers_102,ocrvqa}.py: learning_rate 1.0e-6, interleave_over."""
    found = hybrids()
    assert {source for source, _ in found} == {"llava_665k", "flowers102", "ocr_vqa"}
    assert all(1e-6 in rates for rates in found.values())
    assert {source for (source, _), rates in found.items() if 1e-5 in rates} == {"llava_665k"}, (
        "the extra, marked in the file"
    )
    assert {ratio for source, ratio in found if source == "llava_665k"} == {0.03, 0.1, 0.3, 0.5, 0.7, 0.9}


def test_images_of_the_study_of_overfitting_have_at_most_262144_pixels() -> None:
    """config_generation/single-task/yaml_templates.py, multiple-task/mllm_cl_full.py: image_max_pixels 262144 in training and
    evaluation."""
    assert {trial.model.settings.max_pixels for trial in [*trials("easier"), *trials("mllm_cl")]} == {262_144}


def test_the_study_of_overfitting_runs_80000_updates_of_16_with_warm_up_of_a_tenth() -> None:
    """config_generation/single-task/imagenet_vqa.py and yaml_templates.py: max_steps, warmup_ratio, cosine, 4 GPUs × 4."""
    settings = {
        (each.max_steps, each.global_batch_size, each.warmup_ratio, each.lr_scheduler_type)
        for each in (trial.training for trial in trials("easier"))
    }
    assert settings == {(80_000, 16, 0.1, "cosine")}


def test_domains_are_taught_for_as_many_epochs_as_there_with_the_projector() -> None:
    """config_generation/multiple-task/mllm_cl_full.py: epochs of RS, Med, AD, Sci, Fin; freeze_multi_modal_projector false."""
    for trial in trials("mllm_cl"):
        assert [stage.training.epochs for stage in trial.settings.values()] == [1, 3, 1, 2, 1]
        targets = trial.recipe.adapter.targets if trial.recipe.adapter else trial.recipe.train
        assert "projector" in targets


def test_the_class_name_option_is_asked_on_all_of_imagewikiqa() -> None:
    """evaluators/mix_cls_result_matcher.py over data/imagewikiqa.jsonl (2,000 rows)."""
    (probe,) = trials("easier")[0].probes
    assert (probe.name, probe.examples) == ("class_name_option", 2000)
    asked = probe.benchmarks(trials("easier")[0].held_out, drawn=False)
    assert [benchmark.name for benchmark in asked] == ["image_wiki_class", "image_wiki_class_control"]


@pytest.mark.parametrize("name", ["paper", "paper_orders", "paper_probes"])
def test_the_models_of_lmm_cl_are_asked_as_its_scripts_ask_them(name: str) -> None:
    """LMM_CL llava/train/train.py line 629 (system turn); scripts/all_experiments/llama3 (anyres_max_9, (1x1),...,(6x6));
    `mm_language_model` trains whatever is neither tower nor projector."""
    settings = {trial.model.name: trial.model.settings.identity() for trial in trials(name)}
    assert settings["llava-onevision-7b"] == {"system": "You are a helpful assistant.", "image_newline": "llm"}
    if name == "paper":
        assert settings["llava-next-llama3-8b"] == {"tiles": "anyres_max_9", "image_newline": "llm"}
        assert settings["qwen2.5-vl-7b"] == {}


def test_orders_share_with_the_main_study_what_is_the_same() -> None:
    shared = set(study("paper_orders").steps) & set(study("paper").steps)
    main = {trial.stages[-1].checkpoint.key for trial in trials("paper_orders", lambda trial: trial.order == "main")}
    assert len(main) == 3 and main <= shared


def test_the_probes_of_lmm_cl_read_its_captions_after_its_updates_of_counting() -> None:
    """scripts/analysis/run_output_logit_iterations_inference.sh and run_layer_contribution_iterations.sh: ITS=(1 10 100 1000),
    blip_laion_cc_sbu_558k.json, num-samples 1000 and 100, trained on pixmocount from the base; max_new_tokens=256."""
    bias, layers = trials("paper_probes")[0].probes
    assert (bias.name, bias.examples, bias.questions, bias.updates) == (
        "number_bias",
        1000,
        ("blip_captions",),
        (1, 10, 100, 1000),
    )
    assert bias.max_new_tokens == 256  # type: ignore[attr-defined]
    assert (layers.name, layers.examples, layers.questions, layers.updates) == (
        "layer_contribution",
        100,
        ("blip_captions",),
        (1, 10, 100, 1000),
    )
    assert {tuple(skill.name for skill in trial.skills) for trial in trials("paper_probes")} == {("pixmo_count",)}
    variants = {(trial.recipe.name, trial.mitigation and trial.mitigation.name) for trial in trials("paper_probes")}
    assert variants == {
        *((recipe, None) for recipe in ("llm", "gate_up", "mlp", "sa_proj", "sa_proj+gate_up")),
        ("mlp", "lwf"),
    }
    assert [probe.name for probe in trials("paper")[0].probes] == ["number_bias", "layer_contribution"]


def llava(trial: Trial) -> bool:
    return trial.model.name == "llava-1.5-7b"


def test_model_tailors_fine_tunes_are_those_of_the_authors_scripts() -> None:
    """Model-Tailor scripts/v1_5/finetune_{flickr30k,okvqa}.sh: 1e-4, 4 or 6 GPUs × 16, fp16, 2,048 tokens, image_aspect_ratio pad,
    --version v1; llava/train/train.py 871-875: layers 0 to 19 are frozen."""
    for trial in trials("tailor", llava):
        for stage in trial.settings.values():
            training = stage.training
            assert (training.learning_rate, training.precision, training.max_length) == (1e-4, "fp16", 2048)
            assert training.warmup_ratio == 0.03
        batches = {
            trial.skills[number - 1].name: stage.training.global_batch_size for number, stage in trial.settings.items()
        }
        assert batches.items() <= {"flickr30k": 64, "okvqa": 96}.items()
        assert trial.model.settings.square
        assert trial.model.settings.system == (
            "A chat between a curious user and an artificial intelligence assistant. "
            "The assistant gives helpful, detailed, and polite answers to the user's questions."
        )
        assert set(trial.recipe.train) == {"llm.blocks.last-12", "llm.embeddings", "llm.norm", "llm.head", "projector"}


def test_model_tailors_patch_is_that_of_the_authors_script() -> None:
    """Model-Tailor main_model_tailor.py (128 samples, 0.9 sparsity, blocks 20 to 31, projector put back) and llava/train/sparsegpt.py
    (0.8 · salience, 128 columns)."""
    for trial in trials("tailor", lambda trial: llava(trial) and isinstance(trial.mitigation, ModelTailor)):
        rule = trial.mitigation
        assert isinstance(rule, ModelTailor)
        assert (rule.keep, rule.salience, rule.granularity, rule.samples) == (0.1, 0.8, "block128", 128)
        assert (rule.layers, rule.put_back, rule.other) == (("llm.blocks",), ("projector",), "keep")


def test_one_patch_for_two_tasks_is_made_of_the_two_fine_tunes() -> None:
    """The paper's multi-task patch; the README teaches both tasks apart."""
    for trial in trials("tailor", lambda trial: trial.order == "both"):
        merge = trial.stages[-1].checkpoint
        assert isinstance(merge, Merge) and len(merge.finetunes) == 2
        apart = [each for each in trials("tailor") if each.model == trial.model and each.mitigation is None]
        assert {each.key for each in merge.finetunes} == {each.stages[-1].checkpoint.key for each in apart}


def test_the_original_tasks_of_model_tailor_hold_those_of_its_evaluation() -> None:
    """Model-Tailor scripts/v1_5/eval/eval_all.sh."""
    asked = {benchmark.name for trial in trials("tailor") for benchmark in trial.benchmarks}
    assert {
        "okvqa",
        "flickr30k",
        "text_vqa",
        "gqa",
        "vqav2",
        "vizwiz",
        "scienceqa_img",
        "pope",
        "mmbench",
        "mmbench_cn",
    } <= asked
