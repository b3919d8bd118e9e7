"""What learning without forgetting costs in memory, beside plain fine-tuning and beside a second model as the teacher.

    pytest -m bench -s tests/bench/memory.py        or        python tests/bench/memory.py

Largest resident memory of a process that trains one stage (self-attention) of a model with 107 million parameters, whose
weights a second copy would show; each way in a process of its own. Goal: LwF at most 1.1 times plain fine-tuning.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from lmmcl.config.cluster import TrainingPlacement
from lmmcl.config.settings import Training
from lmmcl.ledger import Ledger
from lmmcl.methods.losses.lwf import LwF
from lmmcl.methods.losses.start_model import answer_logits
from lmmcl.methods.mitigation import ROWS, TrainingMitigation
from lmmcl.methods.recipes.recipe import get_recipe
from lmmcl.models.families import llava_onevision
from lmmcl.models.tiny.tiny import TinyLMM
from lmmcl.models.tiny.tiny_config import configuration
from lmmcl.steps import Finetune, Pretrained
from lmmcl.tasks.examples import ask
from lmmcl.tasks.skills import Benchmark, Skill
from lmmcl.training.finetune import finetune

GOAL = 1.1
WIDTH = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12}


@dataclass(frozen=True)
class WideLMM(TinyLMM):
    """The tiny model's language model, wide and deep, untrained."""

    def identity(self) -> dict[str, Any]:
        return {"name": self.name, **WIDTH}

    def load_model(self, *, precision: str = "fp32", device: str = "cpu", attention: str = "sdpa") -> Any:
        from transformers import AutoConfig, AutoModelForImageTextToText

        values = configuration(self.style)
        values["text_config"] = {**values["text_config"], **WIDTH}
        torch.manual_seed(0)
        config = AutoConfig.for_model(**values)
        return AutoModelForImageTextToText.from_config(
            config, dtype=torch.float32, attn_implementation=attention
        ).eval()


class TwoModels(TrainingMitigation):
    """LwF with a whole teacher beside the student: what a straightforward implementation does."""

    name = "two_models"
    version = 1

    def start(self, context: Any) -> Any:
        return deepcopy(context.model)

    def token_penalty(self, memory: Any, model: Any, outputs: Any, batch: Any) -> torch.Tensor:
        inputs = {key: value for key, value in batch.items() if key not in ("labels", ROWS)}
        with torch.no_grad():
            teacher, _, _ = answer_logits(memory(**inputs).logits, batch["labels"])
        student, _, _ = answer_logits(outputs.logits, batch["labels"])
        p, q = (teacher / 2).log_softmax(-1), (student / 2).log_softmax(-1)
        return 4 * (p.exp() * (p - q)).sum()


WAYS: dict[str, TrainingMitigation | None] = {"plain": None, "lwf": LwF(), "two models": TwoModels()}


def train(way: str) -> dict[str, float]:
    """Train the stage in this process; the record's peak memory (bytes) and loss."""
    rows = [
        ask(
            str(n), "What colour is this?", ("red", "green", "blue")[n % 3], Image.new("RGB", (32, 32), (9 * n, 40, 90))
        )
        for n in range(24)
    ]
    skill = Skill("shades", 1, load=lambda: rows, benchmark=Benchmark("shades", 1, "exact_match", load=list))
    model = WideLMM("wide", family="llava_onevision", style="onevision", rules=llava_onevision.RULES)
    training = Training(learning_rate=1e-4, global_batch_size=8, max_steps=4, precision="fp32")
    step = Finetune(Pretrained(model), get_recipe("sa_proj"), WAYS[way], skill, training, seed=0)
    with tempfile.TemporaryDirectory() as store:
        record = finetune(step, Ledger(store), TrainingPlacement())
    return {"peak": record["peak_memory_bytes"], "loss": record["loss"]}


def measure() -> dict[str, float]:
    """Peak of each way in MiB, and the ratios to plain fine-tuning."""
    peaks: dict[str, float] = {}
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    for way in WAYS:
        command = [sys.executable, __file__, way]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        peaks[way] = json.loads(done.stdout.splitlines()[-1])["peak"] / 2**20
    return {
        **peaks,
        "lwf / plain": peaks["lwf"] / peaks["plain"],
        "two models / plain": peaks["two models"] / peaks["plain"],
    }


@pytest.mark.bench
def test_lwf_takes_at_most_a_tenth_more_memory_than_plain_fine_tuning() -> None:
    found = measure()
    print("\n" + "  ".join(f"{name}: {value:.3f}" for name, value in found.items()))
    assert found["lwf / plain"] <= GOAL
    assert found["two models / plain"] > found["lwf / plain"], "a second model does not show: the measure is blind"


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(train(sys.argv[1])))
    else:
        print("  ".join(f"{name}: {value:.3f}" for name, value in measure().items()))
