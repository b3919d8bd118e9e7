"""What one update costs on a GPU: tokens a second, peak memory and model-FLOPs utilisation, beside the plain Hugging Face Trainer.

    python tests/bench/gpu_step.py                    a random model of the size of Qwen2.5-VL-3B, on one GPU
    python tests/bench/gpu_step.py --tiny             the same code on a tiny model, on a CPU if need be

Both ways train the same tensors of the same model on the same rows in one process, one after the other: `lmmcl` through a
`Finetune` step, the plain way as its documentation shows it (`bf16=True`, weights loaded in bf16, no other setting).
Utilisation counts the arithmetic that the update needs, not what either way spends; recomputation is not counted.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from lmmcl.config.cluster import TrainingPlacement
from lmmcl.config.settings import Training
from lmmcl.ledger import Ledger
from lmmcl.methods.recipes.recipe import get_recipe
from lmmcl.models.families import qwen2_5_vl
from lmmcl.models.processing.encode import encode
from lmmcl.models.processing.padding import pad
from lmmcl.models.roles import select
from lmmcl.models.tiny.tiny import TinyLMM
from lmmcl.models.tiny.tiny_config import configuration
from lmmcl.steps import Finetune, Pretrained
from lmmcl.tasks.examples import Example, ask
from lmmcl.tasks.skills import Benchmark, Skill
from lmmcl.training.finetune import finetune
from lmmcl.training.stage.collate import row_order

RECIPES = ("sa_proj", "gate_up", "llm")
PEAKS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12, "4090": 165e12}
"""Dense bf16 FLOP/s of GPUs by a part of their names (the makers' data sheets)."""
WARM_UP = 3
"""Updates that are not timed: kernels are chosen, memory is taken."""

TEXT_3B = {
    "vocab_size": 151936,
    "hidden_size": 2048,
    "intermediate_size": 11008,
    "num_hidden_layers": 36,
    "num_attention_heads": 16,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32768,
}
VISION_3B = {
    "depth": 32,
    "hidden_size": 1280,
    "intermediate_size": 3420,
    "num_heads": 16,
    "window_size": 112,
    "fullatt_block_indexes": [7, 15, 23, 31],
    "out_hidden_size": 2048,
}
MROPE_3B = [16, 24, 24]


@dataclass(frozen=True)
class SizedQwen(TinyLMM):
    """Qwen2.5-VL with random weights, tiny or of the 3 B model's size (3.75 B with its vision), behind the tiny processor."""

    big: bool = True

    def identity(self) -> dict[str, Any]:
        return {"name": self.name, "big": self.big}

    def values(self) -> dict[str, Any]:
        """The configuration; patches stay those of the tiny processor, which changes one small convolution."""
        values = configuration("qwen")
        if self.big:
            rope = {**values["text_config"]["rope_parameters"], "mrope_section": MROPE_3B, "rope_theta": 1e6}
            values["text_config"] = {**values["text_config"], **TEXT_3B, "rope_parameters": rope}
            values["vision_config"] = {**values["vision_config"], **VISION_3B}
        return values

    def load_model(self, *, precision: str = "fp32", device: str = "cpu", attention: str = "sdpa") -> Any:
        from transformers import AutoConfig, AutoModelForImageTextToText

        dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
        config = AutoConfig.for_model(**self.values())
        on = "cuda" if self.big and torch.cuda.is_available() else "cpu"  # a CPU takes minutes to draw the weights
        torch.manual_seed(0)
        with torch.device(on):
            model: Any = AutoModelForImageTextToText.from_config(config, dtype=dtype, attn_implementation=attention)
        return model.to(device).eval()

    def load_processor(self) -> Any:
        """The tiny one, which leaves pictures of up to 1024 × 1024 pixels as large as they are."""
        processor: Any = super().load_processor()
        processor.image_processor.size["longest_edge"] = 1024 * 1024
        return processor


@dataclass(frozen=True)
class Setting:
    """What is measured: both ways alike."""

    big: bool
    updates: int
    batch: int
    micro: int
    side: int
    """Pixels of the square images: (side / 8)² tokens each."""
    checkpointing: bool

    @property
    def on_gpu(self) -> bool:
        """Whether a GPU is used; the tiny size takes what is there."""
        return torch.cuda.is_available()

    @property
    def precision(self) -> str:
        """bf16 on GPUs; a CPU is only here to run the code."""
        return "bf16" if self.on_gpu else "fp32"

    def model(self) -> SizedQwen:
        return SizedQwen("sized-qwen", family="qwen2_5_vl", style="qwen", rules=qwen2_5_vl.RULES, big=self.big)

    def examples(self) -> list[Example]:
        """Rows as in instruction data: an image, a question, an answer of some length."""
        answer = " ".join(["a small red circle is left of a large blue square"] * 6)
        return [
            ask(str(n), "What is shown in the picture?", answer, Image.new("RGB", (self.side, self.side), (n, 90, 9)))
            for n in range(self.batch)
        ]


@dataclass(frozen=True)
class Measured:
    """One way of training with one recipe."""

    recipe: str
    way: str
    tokens_per_second: float
    peak_gb: float
    utilisation: float | None


def step_of(setting: Setting, recipe: str) -> Finetune:
    """The stage that both ways train."""
    rows = setting.examples()
    skill = Skill("sized", 1, load=lambda: rows, benchmark=Benchmark("sized", 1, "exact_match", load=list))
    training = Training(
        learning_rate=1e-5, global_batch_size=setting.batch, max_steps=setting.updates, precision=setting.precision
    )
    return Finetune(Pretrained(setting.model()), get_recipe(recipe), None, skill, training, seed=0)


def ours(setting: Setting, recipe: str) -> tuple[float, float]:
    """Seconds of an update, and bytes at the peak."""
    placement = TrainingPlacement(
        gpus_per_worker=int(setting.on_gpu),
        micro_batch_size=setting.micro,
        gradient_checkpointing=setting.checkpointing,
    )
    step = step_of(setting, recipe)
    with tempfile.TemporaryDirectory() as store:
        ledger = Ledger(store)
        record = finetune(step, ledger, placement)
        rates = [row["updates_per_second"] for row in ledger.read_lines(step.path, "curve.jsonl")]
    return statistics.median(1 / rate for rate in rates[WARM_UP:]), record["peak_memory_bytes"]


class Clock(TrainerCallback):
    """When each update ended."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.times.append(time.perf_counter())


def plain(setting: Setting, recipe: str) -> tuple[float, float]:
    """The same with the Trainer alone: seconds of an update, and bytes at the peak."""
    step, lmm = step_of(setting, recipe), setting.model()
    if setting.on_gpu:
        torch.cuda.reset_peak_memory_stats()
    model = lmm.load_model(precision=setting.precision)
    chosen = select(lmm.roles_of(name for name, _ in model.named_parameters()), step.recipe.train, model=lmm.name)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in chosen)
    processor, examples = lmm.load_processor(), step.skill.load()
    rows = row_order(len(examples), setting.updates * setting.batch, seed=0)
    encoded = [encode(processor, example, with_answer=True) for example in examples]
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            max_steps=setting.updates,
            per_device_train_batch_size=setting.micro,
            gradient_accumulation_steps=setting.batch // setting.micro,
            learning_rate=1e-5,
            bf16=setting.on_gpu,
            use_cpu=not setting.on_gpu,
            gradient_checkpointing=setting.checkpointing,
            save_strategy="no",
            report_to="none",
            remove_unused_columns=False,
            disable_tqdm=True,
            logging_steps=1,
        )
        trainer = Trainer(
            model=model,
            args=arguments,
            train_dataset=[encoded[row] for row in rows],  # type: ignore[arg-type]
            data_collator=lambda some: pad(processor, some),
            callbacks=[clock],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    times = clock.times[WARM_UP:]
    seconds = statistics.median(after - before for before, after in pairwise(times))
    return seconds, torch.cuda.max_memory_allocated() if setting.on_gpu else 0


def tokens_of(setting: Setting) -> tuple[int, int, int]:
    """Of one update: tokens in all, those of answers, and patches of images."""
    processor = setting.model().load_processor()
    encoded = [encode(processor, example, with_answer=True) for example in setting.examples()]
    tokens = sum(one["input_ids"].numel() for one in encoded)
    answers = sum(int((one["labels"] != -100).sum()) for one in encoded)
    return tokens, answers, sum(one["pixel_values"].shape[0] for one in encoded)


def update_flops(setting: Setting, recipe: str) -> float:
    """Floating-point operations that an update of the language model needs.

    A matrix of n parameters costs 2 n operations a token forward, 2 n for the gradient of its input and, if it trains, 2 n
    for its own (Kaplan et al. 2020, section 2.1); attention 4 s h a token and layer forward and twice that back, s tokens
    a sequence. The vision tower is frozen: forward alone. The head is needed at answers only.
    """
    lmm = setting.model()
    text = lmm.values()["text_config"]
    with torch.device("meta"):
        from transformers import AutoConfig, AutoModelForImageTextToText

        model = AutoModelForImageTextToText.from_config(AutoConfig.for_model(**lmm.values()))
    roles = lmm.roles_of(name for name, _ in model.named_parameters())
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    trained = select(roles, get_recipe(recipe).train, model=lmm.name)
    blocks = sum(size for name, size in sizes.items() if roles[name].startswith("llm.blocks"))
    vision = sum(size for name, size in sizes.items() if roles[name].startswith(("vision.blocks", "projector")))
    learning = sum(sizes[name] for name in trained if roles[name].startswith("llm.blocks"))
    head = text["vocab_size"] * text["hidden_size"]
    tokens, answers, patches = tokens_of(setting)
    length = tokens / setting.batch
    attention = 3 * 4 * length * text["hidden_size"] * text["num_hidden_layers"] * tokens
    head_trains = any(roles[name] in ("llm.head", "llm.embeddings") for name in trained)
    return (
        (4 * blocks + 2 * learning) * tokens
        + attention
        + 2 * vision * patches
        + (6 if head_trains else 4) * head * answers
    )


def peak_flops() -> float | None:
    """Of this machine's GPU; None when there is none or its name is not in the table."""
    if not torch.cuda.is_available():
        return None
    name = torch.cuda.get_device_name()
    return next((flops for part, flops in PEAKS.items() if part in name), None)


def measure(setting: Setting, recipes: Sequence[str] = RECIPES) -> list[Measured]:
    """Both ways for each recipe."""
    tokens, _, _ = tokens_of(setting)
    peak = peak_flops()
    found = []
    for recipe in recipes:
        flops = update_flops(setting, recipe)
        for way, train in (("lmmcl", ours), ("plain Trainer", plain)):
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            seconds, peak_bytes = train(setting, recipe)
            used = flops / seconds / peak if peak else None
            found.append(Measured(recipe, way, tokens / seconds, peak_bytes / 1e9, used))
    return found


def table(found: Sequence[Measured]) -> str:
    """For the terminal."""
    lines = [f"{'recipe':10}{'way':16}{'tokens/s':>12}{'peak GB':>10}{'MFU':>8}"]
    for row in found:
        used = f"{100 * row.utilisation:.1f} %" if row.utilisation is not None else "–"
        peak = f"{row.peak_gb:.2f}" if torch.cuda.is_available() else "–"
        lines.append(f"{row.recipe:10}{row.way:16}{row.tokens_per_second:12,.0f}{peak:>10}{used:>8}")
    return "\n".join(lines)


def settings(arguments: argparse.Namespace) -> Setting:
    """Those of the command line."""
    if arguments.tiny:
        return Setting(False, updates=WARM_UP + 3, batch=4, micro=2, side=32, checkpointing=False)
    return Setting(
        True,
        updates=arguments.updates,
        batch=arguments.batch,
        micro=arguments.micro,
        side=arguments.side,
        checkpointing=not arguments.no_checkpointing,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="a tiny model: runs anywhere, measures nothing of interest")
    parser.add_argument("--updates", type=int, default=12)
    parser.add_argument("--batch", type=int, default=16, help="global batch")
    parser.add_argument("--micro", type=int, default=2, help="examples a forward pass, of both ways")
    parser.add_argument("--side", type=int, default=224, help="pixels of the images: (side / 8)² tokens each")
    parser.add_argument("--no-checkpointing", action="store_true", help="keep activations")
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES))
    parser.add_argument("--json", type=Path, help="write the figures here too")
    arguments = parser.parse_args()
    if not arguments.tiny and not torch.cuda.is_available():
        parser.exit(2, "needs a CUDA device: torch sees none (--tiny runs on a CPU)\n")
    found = measure(settings(arguments), arguments.recipes)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    print(f"{device}, torch {torch.__version__}\n{table(found)}")
    if arguments.json:
        arguments.json.write_text(json.dumps([vars(row) for row in found], indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
