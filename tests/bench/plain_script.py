"""What people do now, for comparison: a script that trains one stage with the Hugging Face Trainer and saves the whole model,
and asks every benchmark in a fresh process, one question at a time.

Data, chat template, metrics and the order of the examples are lmmcl's, so that scores can be compared.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForImageTextToText, Trainer, TrainingArguments

from lmmcl.config.sweep import load_sweep
from lmmcl.evaluation.generate import decode
from lmmcl.methods.recipes.recipe import get_recipe
from lmmcl.models import get_model
from lmmcl.models.generation.decoding import answering, greedy, new_tokens
from lmmcl.models.processing.encode import encode
from lmmcl.models.processing.padding import pad
from lmmcl.models.roles import select
from lmmcl.steps.trial import Trial
from lmmcl.tasks.metrics.metric import get_metric
from lmmcl.training.stage.collate import row_order


def load(folder: str, name: str) -> Any:
    if folder == "base":
        return get_model(name).load_model()
    return AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32, local_files_only=True)


def unfreeze(trial: Trial, model: Any) -> None:
    """Let what the trial's recipe names be trained, and nothing else."""
    roles = trial.model.roles_of(name for name, _ in model.named_parameters())
    chosen = select(roles, get_recipe(trial.recipe.name).train, model=trial.model.name)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in chosen)


def train(trial: Trial, stage: int, parent: str, out: Path) -> None:
    settings, lmm = trial.training, trial.model
    model = load(parent, lmm.name).train()
    unfreeze(trial, model)
    processor, examples = lmm.load_processor(), trial.skills[stage - 1].load()
    count = min(settings.examples or len(examples), len(examples))
    updates = settings.updates(count)
    rows = row_order(count, updates * settings.global_batch_size, trial.seed)
    Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=str(out / "trainer"),
            max_steps=updates,
            per_device_train_batch_size=settings.global_batch_size,
            learning_rate=settings.learning_rate,
            lr_scheduler_type=settings.lr_scheduler_type,
            warmup_steps=-int(-settings.warmup_ratio * updates // 1),
            weight_decay=settings.weight_decay,
            max_grad_norm=settings.max_grad_norm,
            train_sampling_strategy="sequential",
            remove_unused_columns=False,
            use_cpu=True,
            save_strategy="epoch",
            save_total_limit=1,
            report_to="none",
            disable_tqdm=True,
            dataloader_pin_memory=False,
        ),
        train_dataset=[_Row(processor, examples[row]) for row in rows],
        data_collator=lambda batch: pad(processor, [row.encoded() for row in batch]),
    ).train()
    model.save_pretrained(out / "model")


class _Row:
    """An example that is encoded when its batch is made."""

    def __init__(self, processor: Any, example: Any) -> None:
        self._processor, self._example = processor, example

    def encoded(self) -> dict[str, torch.Tensor]:
        return encode(self._processor, self._example, with_answer=True)


def evaluate(trial: Trial, folder: str, out: Path) -> None:
    """Write `scores.json`: for each benchmark, every question's score in [0, 1]."""
    model, processor = load(folder, trial.model.name).eval(), trial.model.load_processor()
    scores = {}
    with answering(model, processor):
        for benchmark in trial.benchmarks:
            metric, questions = get_metric(benchmark.metric), benchmark.take(trial.evaluation.limit)
            found = []
            for row in range(len(questions)):
                batch = pad(processor, [encode(processor, questions[row], with_answer=False)])
                text = decode(processor, new_tokens(greedy(model, batch, benchmark.max_new_tokens), batch))[0]
                found.append(metric.score(text, questions[row]))
            scores[benchmark.name] = found
    out.mkdir(parents=True, exist_ok=True)
    (out / "scores.json").write_text(json.dumps(scores))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", choices=["train", "evaluate"])
    parser.add_argument("sweep", type=Path)
    parser.add_argument("trial", type=int)
    parser.add_argument("stage", type=int)
    parser.add_argument("model", help="a folder, or 'base'")
    parser.add_argument("out", type=Path)
    given = parser.parse_args()
    trial = load_sweep(given.sweep).trials[given.trial]
    if given.work == "train":
        train(trial, given.stage, given.model, given.out)
    else:
        evaluate(trial, given.model, given.out)


if __name__ == "__main__":
    main()
