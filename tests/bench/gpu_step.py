"""What one update costs on a GPU: tokens a second, peak memory and model-FLOPs utilisation, beside the plain Hugging Face Trainer.

    python tests/bench/gpu_step.py                    a random model of the size of Qwen2.5-VL-3B, on one GPU
    python tests/bench/gpu_step.py --tiny             the same code on a tiny model, on a CPU if need be

Both ways train the same tensors of the same model on the same rows in one process, one after the other: `lmmcl` through a
`Finetune` step, the plain way as its documentation shows it (`bf16=True`, weights loaded in bf16, no other setting).
Utilisation counts the arithmetic that the update needs, not what either way spends; recomputation is not counted.
`gpu_report.py` measures several sizes and recipes within minutes.
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
from sized_qwen import SizedQwen, meta, sized
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from lmmcl.config.cluster import TrainingPlacement
from lmmcl.config.settings import Training
from lmmcl.ledger import Ledger, Record
from lmmcl.methods.recipes.adapters import LoRA
from lmmcl.methods.recipes.recipe import Recipe, get_recipe
from lmmcl.models.processing.encode import encode
from lmmcl.models.processing.padding import pad
from lmmcl.models.roles import select
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


@dataclass(frozen=True)
class Setting:
    """What is measured: both ways alike."""

    size: str
    """Of the model: tiny, 3b or 7b."""
    updates: int
    batch: int
    micro: int
    side: int
    """Pixels of the largest images, which are square: (side / 8)² tokens each."""
    checkpointing: bool
    mixed: bool = False
    """Whether images and answers are of several sizes, and some rows have no image."""

    @property
    def on_gpu(self) -> bool:
        """Whether a GPU is used; the tiny size takes what is there."""
        return torch.cuda.is_available()

    @property
    def precision(self) -> str:
        """bf16 on GPUs; a CPU is only here to run the code."""
        return "bf16" if self.on_gpu else "fp32"

    @property
    def placement(self) -> TrainingPlacement:
        """Where the stage is trained."""
        return TrainingPlacement(
            gpus_per_worker=int(self.on_gpu), micro_batch_size=self.micro, gradient_checkpointing=self.checkpointing
        )

    def model(self) -> SizedQwen:
        return sized(self.size)

    def examples(self) -> list[Example]:
        """Rows as in instruction data: an image, a question, an answer of some length."""
        return [self._example(n) for n in range(self.batch)]

    def _example(self, n: int) -> Example:
        words = ["a small red circle is left of a large blue square"]
        side = (self.side, self.side * 3 // 4, self.side // 2, 0)[n % 4] if self.mixed else self.side
        picture = Image.new("RGB", (side, side), (n, 90, 9)) if side else None
        return ask(
            str(n), "What is shown in the picture?", " ".join(words * (1 + 5 * n % 11 if self.mixed else 6)), picture
        )


@dataclass(frozen=True)
class Measured:
    """One way of training with one recipe."""

    recipe: str
    way: str
    tokens_per_second: float
    peak_gb: float
    utilisation: float | None


def recipe_of(setting: Setting, name: str) -> Recipe:
    """The recipe of that name; LoRA's rank of 256 is more than a tiny layer can hold."""
    return get_recipe({"lora": {"rank": 16}} if (setting.size, name) == ("tiny", "lora") else name)


def step_of(setting: Setting, recipe: str) -> Finetune:
    """The stage that both ways train."""
    rows = setting.examples()
    skill = Skill("sized", 1, load=lambda: rows, benchmark=Benchmark("sized", 1, "exact_match", load=list))
    training = Training(
        learning_rate=1e-5, global_batch_size=setting.batch, max_steps=setting.updates, precision=setting.precision
    )
    return Finetune(Pretrained(setting.model()), recipe_of(setting, recipe), None, skill, training, seed=0)


def ours(setting: Setting, recipe: str) -> tuple[float, float]:
    """Seconds of an update, and bytes at the peak."""
    with tempfile.TemporaryDirectory() as store:
        seconds, record = trained(step_of(setting, recipe), Ledger(store), setting.placement)
    return seconds, record["peak_memory_bytes"]


def trained(step: Finetune, ledger: Ledger, placement: TrainingPlacement) -> tuple[float, Record]:
    """Seconds of an update of a stage, and its record."""
    record = finetune(step, ledger, placement)
    rates = [row["updates_per_second"] for row in ledger.read_lines(step.path, "curve.jsonl")]
    return statistics.median(1 / rate for rate in rates[WARM_UP:]), record


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
    model = _teachable(lmm.load_model(precision=setting.precision), lmm, step.recipe)
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


def _teachable(model: Any, lmm: SizedQwen, recipe: Recipe) -> Any:
    """The model in which what the recipe names learns; with LoRA, PEFT's around it."""
    roles = lmm.roles_of(name for name, _ in model.named_parameters())
    if isinstance(recipe.adapter, LoRA):
        from peft import LoraConfig, get_peft_model

        adapter = recipe.adapter
        targets = [name.removesuffix(".weight") for name in select(roles, adapter.targets, model=lmm.name)]
        config = LoraConfig(
            r=adapter.rank, lora_alpha=int(adapter.alpha), lora_dropout=adapter.dropout, target_modules=targets
        )
        return get_peft_model(model, config)
    chosen = select(roles, recipe.train, model=lmm.name)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in chosen)
    return model


@dataclass(frozen=True)
class Tokens:
    """Of one update: tokens of each row, those of answers, and patches of images."""

    lengths: tuple[int, ...]
    answers: int
    patches: int

    @property
    def total(self) -> int:
        """Tokens in all, padding not counted."""
        return sum(self.lengths)


def tokens_of(setting: Setting) -> Tokens:
    """What an update reads."""
    processor = setting.model().load_processor()
    encoded = [encode(processor, example, with_answer=True) for example in setting.examples()]
    return Tokens(
        tuple(one["input_ids"].numel() for one in encoded),
        sum(int((one["labels"] != -100).sum()) for one in encoded),
        sum(one["pixel_values"].shape[0] for one in encoded if "pixel_values" in one),
    )


def update_flops(setting: Setting, recipe: str) -> float:
    """Floating-point operations that an update of the language model needs.

    A matrix of n parameters costs 2 n operations a token forward, 2 n for the gradient of its input and, if it trains, 2 n
    for its own (Kaplan et al. 2020, section 2.1); attention 4 s h a token and layer forward and twice that back, s tokens
    a sequence. The vision tower is frozen: forward alone. The head is needed at answers only.
    """
    lmm, own = setting.model(), recipe_of(setting, recipe)
    text = lmm.values()["text_config"]
    shapes = {name: tuple(parameter.shape) for name, parameter in meta(lmm).named_parameters()}
    roles = lmm.roles_of(shapes)
    sizes = {name: torch.Size(shape).numel() for name, shape in shapes.items()}
    trained_names = select(roles, own.train, model=lmm.name)
    blocks = sum(size for name, size in sizes.items() if roles[name].startswith("llm.blocks"))
    vision = sum(size for name, size in sizes.items() if roles[name].startswith(("vision.blocks", "projector")))
    learning = sum(sizes[name] for name in trained_names if roles[name].startswith("llm.blocks"))
    beside = 0
    if isinstance(own.adapter, LoRA):  # its matrices are passed forward too, and all of them learn
        targets = select(roles, own.adapter.targets, model=lmm.name)
        beside = own.adapter.rank * sum(sum(shapes[name]) for name in targets if len(shapes[name]) == 2)
    head = text["vocab_size"] * text["hidden_size"]
    tokens = tokens_of(setting)
    attention = 3 * 4 * text["hidden_size"] * text["num_hidden_layers"] * sum(n * n for n in tokens.lengths)
    head_trains = any(roles[name] in ("llm.head", "llm.embeddings") for name in trained_names)
    return (
        (4 * blocks + 2 * learning + 6 * beside) * tokens.total
        + attention
        + 2 * vision * tokens.patches
        + (6 if head_trains else 4) * head * tokens.answers
    )


def peak_flops() -> float | None:
    """Of this machine's GPU; None when there is none or its name is not in the table."""
    if not torch.cuda.is_available():
        return None
    name = torch.cuda.get_device_name()
    return next((flops for part, flops in PEAKS.items() if part in name), None)


def free_memory() -> None:
    """Give back what the part before held."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def measure(setting: Setting, recipes: Sequence[str] = RECIPES) -> list[Measured]:
    """Both ways for each recipe."""
    tokens = tokens_of(setting).total
    peak = peak_flops()
    results = []
    for recipe in recipes:
        flops = update_flops(setting, recipe)
        for way, train in (("lmmcl", ours), ("plain Trainer", plain)):
            free_memory()
            seconds, peak_bytes = train(setting, recipe)
            used = flops / seconds / peak if peak else None
            results.append(Measured(recipe, way, tokens / seconds, peak_bytes / 1e9, used))
    return results


def table(results: Sequence[Measured]) -> str:
    """For the terminal."""
    lines = [f"{'recipe':10}{'way':16}{'tokens/s':>12}{'peak GB':>10}{'MFU':>8}"]
    for row in results:
        used = f"{100 * row.utilisation:.1f} %" if row.utilisation is not None else "–"
        peak = f"{row.peak_gb:.2f}" if torch.cuda.is_available() else "–"
        lines.append(f"{row.recipe:10}{row.way:16}{row.tokens_per_second:12,.0f}{peak:>10}{used:>8}")
    return "\n".join(lines)


def settings(arguments: argparse.Namespace) -> Setting:
    """Those of the command line."""
    if arguments.tiny:
        return Setting("tiny", updates=WARM_UP + 3, batch=4, micro=2, side=32, checkpointing=False)
    return Setting(
        "3b",
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
    results = measure(settings(arguments), arguments.recipes)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    print(f"{device}, torch {torch.__version__}\n{table(results)}")
    if arguments.json:
        arguments.json.write_text(json.dumps([vars(row) for row in results], indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
