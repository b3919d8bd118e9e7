"""What a plan says of memory is what the trainer holds, and what the literature's counts give for models of real size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from made import write_sweep
from stage_parts import parts
from stage_parts import stage as tiny_stage
from transformers import TrainerCallback

from lmmcl.config.cluster import EvaluationPlacement, TrainingPlacement
from lmmcl.config.sweep import Sweep, load_sweep
from lmmcl.models import get_model
from lmmcl.planning.activations import ANSWER_TOKENS, example_tokens
from lmmcl.planning.memory_estimate import RESERVE, asked_memory, stage_memory
from lmmcl.steps import Evaluate, Finetune, ProbeStep

BIG = """
name: big
orders: {main: [counting]}
benchmarks: {held_out: [colour]}
probes: [number_bias, kl_from_base]
grids:
  - {model: [MODEL], recipe: [RECIPE], mitigation: [MITIGATION]}
"""


def sweep(folder: Path, recipe: str = "full", mitigation: str = "null", model: str = "llava-onevision-7b") -> Sweep:
    text = BIG.replace("MODEL", model).replace("RECIPE", recipe).replace("MITIGATION", mitigation)
    return load_sweep(write_sweep(folder, text, "big.yaml"))


def stage(folder: Path, *words: str, **more: str) -> Finetune:
    return next(step for step in sweep(folder, *words, **more).steps.values() if isinstance(step, Finetune))


def one_gpu(**more: object) -> TrainingPlacement:
    return TrainingPlacement.model_validate({"workers": 0, "gpus_per_worker": 1, "micro_batch_size": 1, **more})


def zero(number: int, workers: int = 8, **more: object) -> TrainingPlacement:
    return one_gpu(workers=workers, strategy="deepspeed", zero_stage=number, **more)


def parameters(step: Finetune, *begins: str) -> int:
    """How many parameters the roles that begin so have."""
    return sum(count for role, count in step.model.role_counts().items() if role.startswith(begins or ("",)))


class Held(TrainerCallback):
    """Counts the bytes of a stage before an update."""

    def __init__(self, model: Any) -> None:
        self.model, self.found = model, {}

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        states = kwargs["optimizer"].state.values()
        self.found = {
            "frozen": sum(p.nbytes for p in self.model.parameters() if not p.requires_grad),
            "trained": sum(p.nbytes for p in self.model.parameters() if p.requires_grad),
            "gradients": sum(p.grad.nbytes for p in self.model.parameters() if p.grad is not None),
            "optimizer": sum(
                each[name].nbytes for each in states for name in ("exp_avg", "exp_avg_sq") if name in each
            ),
        }


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_what_is_counted_is_what_the_trainer_holds(precision: str, tmp_path: Path) -> None:
    step = tiny_stage(precision=precision, max_steps=2)
    made = parts(step, tmp_path)
    held = Held(made.model)
    made.trainer.add_callback(held)
    made.trainer.train()
    need = stage_memory(step, TrainingPlacement())
    copy = held.found["trained"] // 2 if precision == "bf16" else 0
    assert need.weights == held.found["frozen"] + held.found["trained"] + copy, "and the copy that autocast makes"
    assert (need.gradients, need.optimizer) == (held.found["gradients"], held.found["optimizer"])


def test_all_of_a_7b_with_adamw_takes_18_bytes_a_parameter_and_ddp_four_more(tmp_path: Path) -> None:
    step = stage(tmp_path)
    p = parameters(step)
    assert 8.0e9 < p < 8.1e9
    alone, ddp = stage_memory(step, one_gpu()), stage_memory(step, one_gpu(workers=1))
    assert (alone.weights, alone.gradients, alone.optimizer, alone.exchange) == (6 * p, 4 * p, 8 * p, 0)
    assert ddp.exchange == 4 * p
    parts_of_it = (alone.weights, alone.gradients, alone.optimizer, alone.activations)
    assert alone.total == sum(parts_of_it) + RESERVE


def test_with_liger_no_logits_are_kept_unless_a_mitigation_is_shown_them(tmp_path: Path) -> None:
    step, lwf = (stage(tmp_path, "sa_proj", mitigation=protection) for protection in ("null", "{lwf: {weight: 1.0}}"))
    plain, fused = (stage_memory(step, one_gpu(liger=liger)).activations for liger in (False, True))
    vocabulary = parameters(step, "llm.embeddings") // 3584
    assert plain - fused == ANSWER_TOKENS * vocabulary * (2 + 8)
    assert stage_memory(lwf, one_gpu(liger=True)) == stage_memory(lwf, one_gpu())


def test_what_is_frozen_takes_its_weights_alone(tmp_path: Path) -> None:
    attention = 28 * (2 * 3584 * 3584 + 2 * 3584 * 512 + 3584 + 2 * 512)  # of Qwen2-7B, with its biases
    step = stage(tmp_path, "sa_proj")
    need = stage_memory(step, one_gpu())
    assert need.weights == 2 * parameters(step) + 4 * attention
    assert (need.gradients, need.optimizer) == (4 * attention, 8 * attention)


def test_lora_adds_its_matrices_and_osf_also_the_directions_that_stay(tmp_path: Path) -> None:
    rank, step = 64, stage(tmp_path, "{lora: {rank: 64, targets: [llm.blocks.*.attention.q]}}")
    added = 28 * 2 * rank * 3584
    need = stage_memory(step, one_gpu())
    assert need.weights == 2 * parameters(step) + (2 + 4) * added
    assert need.optimizer == 8 * added
    osf = stage_memory(stage(tmp_path, "{osf: {preserved: 0.5, targets: [llm.blocks.*.attention.q]}}"), one_gpu())
    half = 28 * 1792 * (2 * 3584 + 1)
    assert osf.optimizer == 8 * half
    assert osf.weights == 2 * (parameters(step) + 2 * half) + 4 * half


@pytest.mark.parametrize("number", [1, 2, 3])
def test_zero_divides_what_its_stage_says(number: int, tmp_path: Path) -> None:
    step = stage(tmp_path)
    p = parameters(step)
    need = stage_memory(step, zero(number))
    expected = {1: (2 + 2 + 16 / 8), 2: (2 + (2 + 16) / 8), 3: (2 + 2 + 16) / 8}[number] * p
    assert need.weights + need.gradients + need.optimizer == pytest.approx(expected, rel=1e-6)


def test_zero_3_agrees_with_deepspeed_s_own_count(tmp_path: Path) -> None:
    """`estimate_zero3_model_states_mem_needs`: 4 bytes of the largest layer, and 18 of each parameter over the GPUs."""
    step = stage(tmp_path)
    need = stage_memory(step, zero(3))
    theirs = 4 * 152128 * 3584 + 18 * parameters(step) / 8
    assert need.weights + need.gradients + need.optimizer + need.exchange == pytest.approx(theirs, rel=0.2)


def test_offload_leaves_what_is_computed_with(tmp_path: Path) -> None:
    step = stage(tmp_path)
    p = parameters(step)
    two, three = (stage_memory(step, zero(n, offload=what)) for n, what in ((2, "optimizer"), (3, "parameters")))
    assert (two.weights, two.gradients, two.optimizer) == (2 * p, 0, 0)
    assert (three.weights, three.gradients, three.optimizer) == (0, 0, 0)
    assert three.exchange == 2 * 5 * 10**8 + 2 * 10**9, "a bucket, and the parameters that are whole at a time"


def test_fsdp_holds_all_in_fp32_and_divides_it(tmp_path: Path) -> None:
    step = stage(tmp_path, "sa_proj")
    need = stage_memory(step, one_gpu(workers=8, strategy="fsdp"))
    trained = parameters(step, *(f"llm.blocks.{n}.attention" for n in range(28)))
    assert need.weights == 4 * parameters(step) // 8, "FSDP divides tensors of one type alone"
    assert need.optimizer == 8 * trained // 8
    assert 2e9 < need.exchange < 6e9


def test_activations_of_the_blocks_are_those_of_the_literature(tmp_path: Path) -> None:
    """34·s·h bytes a layer of a GPT (arXiv 2205.05198, equation 1, without the attention's 5·a·s/h), here with three matrices
    of Qwen2's MLP in place of two: 2 bytes for each of 9·h + 2·kv + 3·f."""
    step = stage(tmp_path, "llm")
    tokens, logits = 4671 + 128, ANSWER_TOKENS * 152128 * 10
    need = stage_memory(step, one_gpu()).activations
    assert need == tokens * 28 * 2 * (9 * 3584 + 2 * 512 + 3 * 18944) + logits
    gpt = 34 * tokens * 3584 * 28
    assert 0.6 < (need - logits) / gpt < 1.5
    checkpointed = stage_memory(step, one_gpu(gradient_checkpointing=True)).activations
    assert checkpointed - logits == tokens * 2 * (28 * 3584 + 9 * 3584 + 2 * 512 + 3 * 18944)
    assert stage_memory(step, one_gpu(micro_batch_size=4)).activations == 4 * need


def test_what_lies_below_all_that_trains_keeps_nothing_and_a_tower_that_trains_does(tmp_path: Path) -> None:
    logits = ANSWER_TOKENS * 152128 * 10
    whole = stage_memory(stage(tmp_path, "llm"), one_gpu()).activations - logits
    late = stage(tmp_path, "{name: late, train: [llm.blocks.last-7.mlp]}")
    assert stage_memory(late, one_gpu()).activations - logits == whole // 4
    seen = stage_memory(stage(tmp_path, "full"), one_gpu()).activations - logits
    assert seen - whole == 7 * 729 * 26 * 2 * (4 * 2 * 1152 + 2 * (1152 + 4304))


def test_a_teacher_costs_no_second_model(tmp_path: Path) -> None:
    """Its likeliest tokens cost logits, its hidden states a copy of the head at most: where the head itself trains."""
    table = 152128 * 3584 * 4
    for recipe, copies in (("llm", 2 * table), ("mlp", 0)):
        ways = ("null", "lwf", "{lwf: {top_k: 64}}")
        plain, exact, some = (stage_memory(stage(tmp_path, recipe, each), one_gpu()) for each in ways)
        assert (exact.activations, exact.mitigation) == (plain.activations, copies)
        assert some.activations - plain.activations == ANSWER_TOKENS * 152128 * 16
        assert exact.weights == some.weights == plain.weights
        assert some.mitigation == 0
    ewc = stage_memory(stage(tmp_path, "sa_proj", "ewc"), one_gpu())
    assert ewc.mitigation == 2 * ewc.gradients


def test_a_head_that_shares_the_embeddings_has_logits_too(tmp_path: Path) -> None:
    step = stage(tmp_path, "llm", model="llava-onevision-0.5b")
    need = stage_memory(step, one_gpu(gradient_checkpointing=True))
    assert "llm.head" not in step.model.role_counts()
    assert need.activations > ANSWER_TOKENS * 152000 * 10
    assert 10e9 < need.total < 16e9, "the smallest of the studies trains on a laptop's GPU of 16 GB"


def asked(folder: Path, kind: type, **more: str) -> Any:
    [trial] = sweep(folder, **more).trials
    return next(step for step in trial.stages[-1].asked if isinstance(step, kind) and step.label != "number_bias")


def test_a_batch_of_questions_takes_its_keys_and_values(tmp_path: Path) -> None:
    step = asked(tmp_path, Evaluate)
    need = asked_memory(step, EvaluationPlacement(gpus=1, batch_size=16))
    tokens = example_tokens(get_model("llava-onevision-7b")) + step.benchmark.max_new_tokens
    assert need.cache == 16 * tokens * 28 * 2 * 4 * 128 * 2, "28 layers, keys and values, 4 heads of 128, bf16"
    assert need.weights == 2 * parameters(stage(tmp_path))
    assert need.activations == 16 * 2 * (4671 + 128) * (9 * 3584 + 2 * 512 + 3 * 18944)


def test_a_probe_that_compares_with_the_base_holds_two_models(tmp_path: Path) -> None:
    place = EvaluationPlacement(gpus=1)
    probe, question = asked(tmp_path, ProbeStep), asked(tmp_path, Evaluate)
    assert probe.label == "kl_from_base"
    assert asked_memory(probe, place).weights == 2 * asked_memory(question, place).weights


def test_another_engine_keeps_its_cache_in_what_is_left(tmp_path: Path) -> None:
    need = asked_memory(asked(tmp_path, Evaluate), EvaluationPlacement(gpus=1, engine="vllm"))
    assert need.total == need.weights + RESERVE
