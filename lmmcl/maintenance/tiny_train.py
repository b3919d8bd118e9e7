"""How the weights of tiny-onevision came about: two phases on drawn scenes, minutes on one CPU core.

1. *Align*: vision tower, projector and word embeddings learn which words describe each patch, so that what the tower
   sees lies near the words for it.
2. *Questions*: all parameters learn to answer the held-out benchmarks' kinds of question and to caption, also in the
   target skills' styles (captions only, so that the skills themselves stay unknown). Muon for the matrices of the
   blocks, AdamW for the rest; attention starts "mimetic" (q ≈ k, o ≈ vᵀ; Trockman and Kolter 2023).
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmmcl.maintenance.tiny_batches import Packer, batches
from lmmcl.maintenance.tiny_grounding import Grounding

if TYPE_CHECKING:
    from torch import Tensor

    from lmmcl.tasks.skills import Benchmark

BATCH = 32
TARGETS = ("birds", "counting", "microscopy", "digits", "clock")
ALIGN_LEARNING_RATE, ALIGN_MUON_LEARNING_RATE = 5e-3, 3e-2


def pretrain(
    directory: Path,
    *,
    seed: int = 1,
    align_updates: int = 1200,
    updates: int = 900,
    learning_rate: float = 4e-3,
    muon_learning_rate: float = 2e-2,
    style_share: float = 0.25,
    most_questions: int = 6,
    log: Any = print,
) -> dict[str, Any]:
    """Pre-trains tiny-onevision, writes what ships of it into `directory`, and returns what `training.json` says.

    The same arguments give the same pictures and the same first weights; floating point decides the rest, so weights
    agree between machines only nearly.
    """
    import torch

    from lmmcl.models.tiny.tiny import untrained
    from lmmcl.tasks.synthetic.draw_streams import pretraining

    began = time.process_time()
    torch.manual_seed(seed)
    model = untrained("onevision", seed=seed).train()
    mimetic(model)
    scenes = batches(pretraining(seed, style_share=style_share), BATCH)
    grounding = Grounding(model, [scene for batch in islice(scenes, 40) for scene in batch])
    align(grounding, scenes, align_updates, ALIGN_LEARNING_RATE, ALIGN_MUON_LEARNING_RATE, log)
    learn(grounding, scenes, updates, learning_rate, muon_learning_rate, Packer(seed, most_questions), log)
    seconds = time.process_time() - began
    log(f"pre-trained in {seconds:.0f} CPU seconds")
    report = {
        "seed": seed,
        "align_updates": align_updates,
        "updates": updates,
        "batch": BATCH,
        "learning_rate": learning_rate,
        "muon_learning_rate": muon_learning_rate,
        "style_share": style_share,
        "most_questions": most_questions,
        "cpu_seconds": round(seconds),
        "accuracy": accuracies(model.eval()),
    }
    save(model, directory, report)
    return report


def mimetic(model: Any, strength: float = 0.7) -> None:
    """Starts the attention of the language model as a copying device: keys equal queries, output undoes values."""
    import torch

    for layer in model.model.language_model.layers:
        attention = layer.self_attn
        width, size = attention.q_proj.in_features, attention.head_dim
        groups = attention.q_proj.out_features // attention.k_proj.out_features
        with torch.no_grad():
            key = torch.randn(attention.k_proj.out_features, width) / math.sqrt(size)
            noise = torch.randn(attention.q_proj.out_features, width) / math.sqrt(size)
            value = torch.randn(attention.v_proj.out_features, width) / math.sqrt(width)
            repeated = key.view(-1, size, width).repeat_interleave(groups, dim=0).reshape(-1, width)
            alike = math.sqrt(2 * size / width)
            attention.k_proj.weight.copy_(key * alike)
            attention.q_proj.weight.copy_((strength * repeated + (1 - strength) * noise) * alike)
            attention.v_proj.weight.copy_(value)
            spread = value.view(-1, size, width).repeat_interleave(groups, dim=0).reshape(-1, width)
            attention.o_proj.weight.copy_(spread.T * 0.3 * strength / groups)


def align(
    grounding: Grounding, scenes: Any, updates: int, learning_rate: float, muon_learning_rate: float, log: Any
) -> None:
    """Phase 1: grounding alone, without the blocks of the language model."""
    model = grounding.model
    named = [(name, parameter) for name, parameter in model.named_parameters() if ".language_model.layers." not in name]
    optimizers, schedules = _optimizers([*named, *grounding.named], updates, learning_rate, muon_learning_rate)
    for update in range(updates):
        loss = grounding.loss(next(scenes))
        loss.backward()
        _step(optimizers, schedules)
        if update % 100 == 0 or update == updates - 1:
            log(f"align {update}: loss {loss.item():.4f}")
    grounding.level(next(scenes))


def learn(
    grounding: Grounding,
    scenes: Any,
    updates: int,
    learning_rate: float,
    muon_learning_rate: float,
    packer: Packer,
    log: Any,
) -> None:
    """Phase 2: questions and captions, all parameters; grounding continues so that features keep their meaning."""
    import torch
    from torch.nn import functional

    model = grounding.model
    named = [*model.named_parameters(), *grounding.named]
    optimizers, schedules = _optimizers(named, updates, learning_rate, muon_learning_rate)
    for update in range(updates):
        shown = next(scenes)
        batch = packer(shown)
        labels = batch.pop("labels")[:, 1:]
        hidden = model.model(**batch, use_cache=False).last_hidden_state[:, :-1]
        taught = labels != -100
        loss = functional.cross_entropy(model.lm_head(hidden[taught]), labels[taught])
        (loss + 0.3 * grounding.loss(shown)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        _step(optimizers, schedules)
        if update % 100 == 0 or update == updates - 1:
            log(f"questions {update}: loss {loss.item():.4f}")


def _optimizers(
    named: Sequence[tuple[str, Tensor]], updates: int, learning_rate: float, muon_learning_rate: float
) -> tuple[list[Any], list[Any]]:
    """Muon for the matrices of blocks and projector, AdamW for embeddings, norms and biases; and their schedules."""
    import torch

    def is_matrix(name: str, parameter: Tensor) -> bool:
        return parameter.dim() == 2 and (".layers." in name or "projector" in name)

    matrices = [parameter for name, parameter in named if is_matrix(name, parameter)]
    others = [parameter for name, parameter in named if not is_matrix(name, parameter)]
    optimizers = [
        torch.optim.Muon(matrices, lr=muon_learning_rate, weight_decay=0.0),
        torch.optim.AdamW(others, lr=learning_rate, weight_decay=0.01),
    ]
    return optimizers, [torch.optim.lr_scheduler.LambdaLR(parameter, warm_cosine(updates)) for parameter in optimizers]


def _step(optimizers: Sequence[Any], schedules: Sequence[Any]) -> None:
    for optimizer, schedule in zip(optimizers, schedules, strict=True):
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()


def warm_cosine(updates: int, warm: float = 0.05) -> Any:
    """Learning-rate factor: linear warm-up over a share `warm` of the updates, then cosine to a twentieth."""

    def factor(update: int) -> float:
        start = max(1.0, warm * updates)
        if update < start:
            return (update + 1) / start
        return 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * (update - start) / max(1.0, updates - start)))

    return factor


def accuracies(model: Any) -> dict[str, dict[str, float]]:
    """Percent right per benchmark, `held_out` and `target`."""
    from lmmcl.registry import members
    from lmmcl.tasks.synthetic.held_out import BENCHMARKS

    held_out = {benchmark.name: accuracy(model, benchmark) for benchmark in BENCHMARKS}
    skills = members("lmmcl.tasks", "SKILLS")
    return {"held_out": held_out, "target": {name: accuracy(model, skills[name].benchmark) for name in TARGETS}}


def accuracy(model: Any, benchmark: Benchmark, batch_size: int = 100) -> float:
    """Percent right of greedy answers."""
    import torch

    from lmmcl.models.processing.encode import encode
    from lmmcl.models.processing.padding import pad
    from lmmcl.models.tiny.tiny_processor import build_processor
    from lmmcl.tasks.metrics.metric import get_metric

    processor: Any = build_processor("onevision")
    score, examples = get_metric(benchmark.metric).score, list(benchmark.load())
    total = 0.0
    for start in range(0, len(examples), batch_size):
        asked = examples[start : start + batch_size]
        batch = pad(processor, [encode(processor, example, with_answer=False) for example in asked])
        with torch.inference_mode():
            generated = model.generate(**batch, max_new_tokens=benchmark.max_new_tokens, do_sample=False)
        texts = processor.batch_decode(generated[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
        total += sum(score(text, example) for text, example in zip(texts, asked, strict=True))
    return round(100 * total / len(examples), 1)


def save(model: Any, directory: Path, report: dict[str, Any]) -> None:
    """Writes weights (fp32 safetensors), configurations, processor, the parameters per role, and the report."""
    from lmmcl.models import get_model
    from lmmcl.models.tiny.tiny_processor import build_processor

    directory.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(directory)
    (directory / "model.safetensors").chmod(0o644)  # written for the owner alone
    build_processor("onevision").save_pretrained(directory)
    counts = role_counts(get_model("tiny-onevision"), model)
    (directory / "roles.json").write_text(json.dumps(counts, indent=1) + "\n")
    (directory / "training.json").write_text(json.dumps(report, indent=1) + "\n")


def role_counts(lmm: Any, model: Any) -> dict[str, int]:
    """Parameters per role of a loaded model."""
    named: Sequence[tuple[str, Any]] = list(model.named_parameters())
    roles = lmm.roles_of(name for name, _ in named)
    counts: dict[str, int] = dict.fromkeys(sorted(set(roles.values())), 0)
    for name, parameter in named:
        counts[roles[name]] += parameter.numel()
    return counts
