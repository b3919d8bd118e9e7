"""What a user of TRL writes, for comparison: one stage trained with `SFTTrainer`, saved, and asked by batched `generate` in the same process.

Data and metrics are lmmcl's, so that scores can be compared; the prompts are rendered by the processor's chat template, the batches
made by TRL's own collator for vision-language models, the order of the examples is the Trainer's.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from datasets import Image as ImageFeature
from datasets import List as ListFeature
from plain_script import load, unfreeze
from transformers import ProcessorMixin
from trl import SFTConfig, SFTTrainer

from lmmcl.config.sweep import load_sweep
from lmmcl.steps.trial import Trial
from lmmcl.tasks.examples import IMAGE_PLACEHOLDER, Example, Message
from lmmcl.tasks.metrics.metric import get_metric

BATCH = 64
"""Questions answered at a time."""


def content(message: Message) -> list[dict[str, str]]:
    """A message in the form of chat templates: its images, then its text, as our questions have them."""
    text = message.content.replace(IMAGE_PLACEHOLDER, "").strip()
    images = [{"type": "image"}] * message.content.count(IMAGE_PLACEHOLDER)
    return [*images, {"type": "text", "text": text}]


def row(example: Example) -> dict[str, Any]:
    turns = [{"role": each.role, "content": content(each)} for each in example.messages]
    return {
        "images": [image.convert("RGB") for image in example.images],
        "prompt": turns[:-1],
        "completion": turns[-1:],
    }


def train(trial: Trial, stage: int, model: Any, processor: ProcessorMixin, out: Path) -> None:
    settings = trial.training
    unfreeze(trial, model)
    examples = trial.skills[stage - 1].take(settings.examples)
    updates = settings.updates(len(examples))
    data = Dataset.from_list([row(examples[at]) for at in range(len(examples))])
    SFTTrainer(
        model=model,
        processing_class=processor,
        train_dataset=data.cast_column("images", ListFeature(ImageFeature())),
        args=SFTConfig(
            output_dir=str(out / "trainer"),
            max_steps=updates,
            per_device_train_batch_size=settings.global_batch_size,
            learning_rate=settings.learning_rate,
            lr_scheduler_type=settings.lr_scheduler_type,
            warmup_steps=-int(-settings.warmup_ratio * updates // 1),
            weight_decay=settings.weight_decay,
            max_grad_norm=settings.max_grad_norm,
            max_length=None,
            completion_only_loss=True,
            gradient_checkpointing=False,
            bf16=False,
            use_cpu=True,
            seed=trial.seed,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            dataloader_pin_memory=False,
        ),
    ).train()
    model.save_pretrained(out / "model")


@torch.inference_mode()
def evaluate(trial: Trial, model: Any, processor: Any, out: Path) -> None:
    """Write `scores.json`: for each benchmark, every question's score in [0, 1]."""
    model.eval()
    scores = {}
    for benchmark in trial.benchmarks:
        metric, questions = get_metric(benchmark.metric), benchmark.take(trial.evaluation.limit)
        scores[benchmark.name] = []
        for start in range(0, len(questions), BATCH):
            asked = [questions[at] for at in range(start, min(start + BATCH, len(questions)))]
            texts = [
                processor.apply_chat_template(
                    [{"role": each.role, "content": content(each)} for each in example.prompt],
                    add_generation_prompt=True,
                )
                for example in asked
            ]
            images = [[image.convert("RGB") for image in example.images] for example in asked]
            batch = processor(text=texts, images=images, padding=True, return_tensors="pt")
            tokens = model.generate(**batch, max_new_tokens=benchmark.max_new_tokens, do_sample=False)
            answers = processor.batch_decode(tokens[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
            scores[benchmark.name] += [
                metric.score(answer.strip(), example) for answer, example in zip(answers, asked, strict=True)
            ]
    out.mkdir(parents=True, exist_ok=True)
    (out / "scores.json").write_text(json.dumps(scores))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sweep", type=Path)
    parser.add_argument("trial", type=int)
    parser.add_argument("stage", type=int, help="0: the pre-trained model is asked alone")
    parser.add_argument("model", help="a folder, or 'base'")
    parser.add_argument("out", type=Path)
    given = parser.parse_args()
    trial = load_sweep(given.sweep).trials[given.trial]
    model, processor = load(given.model, trial.model.name), trial.model.load_processor()
    if given.stage:
        train(trial, given.stage, model, processor, given.out)
    evaluate(trial, model, processor, given.out)


if __name__ == "__main__":
    main()
