"""How often a frozen vision tower runs when its features are kept: two seeds of two epochs and their evaluations, counted and timed.

    python tests/bench/picture_features.py                       64 pictures, the tiny Qwen2.5-VL
    python tests/bench/picture_features.py --rows 16 --model tiny-onevision

Each way runs in this process, one after the other, over the same steps: without a folder, with an empty one, and with the one that
was filled then, as a later sweep finds it. CPU seconds of the tower are those inside the model's own method; those of the folder are
what else passes until the features are there (digests of pixels, reading, writing).
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lmmcl.config.cluster import Cluster
from lmmcl.config.settings import Evaluation, Training
from lmmcl.ledger import Ledger
from lmmcl.methods.recipes.recipe import get_recipe
from lmmcl.models import get_model
from lmmcl.runner.execute import compute
from lmmcl.steps import Evaluate, Finetune, Pretrained
from lmmcl.tasks.examples import Example, ask
from lmmcl.tasks.skills import Benchmark, Skill
from lmmcl.weights.checkpoint import load_checkpoint
from lmmcl.weights.image_features import feature_store
from lmmcl.weights.image_features.kept_features import KeptFeatures
from lmmcl.weights.image_features.pictures import METHOD

EPOCHS, SEEDS = 2, 2


@dataclass
class Count:
    """Of one way: calls of the tower with how many pictures, CPU seconds in it, around it, and of all steps."""

    name: str
    pictures: int = 0
    tower: float = 0.0
    answered: float = 0.0
    steps: float = 0.0

    @property
    def folder(self) -> float:
        """CPU seconds of the store: what answering calls took beside the tower."""
        return max(0.0, self.answered - self.tower)


@contextmanager
def counted(owner: type, count: Count) -> Iterator[None]:
    """Count what the tower of a class of models does inside the `with`."""
    work, call = getattr(owner, METHOD), KeptFeatures.__call__

    def timed(*args: Any, **more: Any) -> Any:
        start = time.process_time()
        result = work(*args, **more)
        count.tower += time.process_time() - start
        count.pictures += len(result.pooler_output)
        return result

    def answered(*args: Any, **more: Any) -> Any:
        start = time.process_time()
        result = call(*args, **more)
        count.answered += time.process_time() - start
        return result

    timed.__wrapped__ = work  # type: ignore[attr-defined]  # its signature
    setattr(owner, METHOD, timed)
    KeptFeatures.__call__ = answered  # type: ignore[method-assign]
    try:
        yield
    finally:
        setattr(owner, METHOD, work)
        KeptFeatures.__call__ = call  # type: ignore[method-assign]


def pictures(count: int) -> list[Example]:
    """Rows with pictures of noise in several sizes."""
    draw = np.random.default_rng(0)
    sides = draw.integers(32, 97, (count, 2))
    return [
        ask(str(n), "what is shown ?", "red circle", Image.fromarray(draw.integers(0, 256, (*side, 3), dtype=np.uint8)))
        for n, side in enumerate(sides)
    ]


def steps(model: str, rows: Sequence[Example]) -> list[Any]:
    """A stage a seed, and an evaluation of each on half of the rows."""
    benchmark = Benchmark("noise", 1, "exact_match", load=lambda: rows[: len(rows) // 2], max_new_tokens=2)
    skill = Skill("noise", 1, load=lambda: rows, benchmark=benchmark)
    training = Training(learning_rate=1e-3, global_batch_size=8, epochs=EPOCHS, warmup_ratio=0, precision="fp32")
    chain: list[Any] = []
    for seed in range(SEEDS):
        stage = Finetune(Pretrained(get_model(model)), get_recipe("sa_proj"), None, skill, training, seed=seed)
        chain += [stage, Evaluate(stage, benchmark, Evaluation(precision="fp32"))]
    return chain


def measure(model: str, rows: int) -> list[Count]:
    """The three ways."""
    chain, counts = steps(model, pictures(rows)), []
    owner = type(load_checkpoint(Pretrained(get_model(model)), Ledger("/nowhere"), precision="fp32").model)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for way, kept in (("without", False), ("an empty folder", True), ("a filled folder", True)):
            feature_store._STORES.clear()  # as another process
            placement = {"features": str(folder / "features")} if kept else {}
            cluster = Cluster.model_validate({"training": placement, "evaluation": placement})
            count, ledger, start = Count(way), Ledger(str(folder / way)), time.process_time()
            with counted(owner, count):
                for step in chain:
                    compute([step], ledger, cluster, lambda *_: None)
            count.steps = time.process_time() - start
            counts.append(count)
    return counts


def table(counts: Sequence[Count]) -> str:
    """The counts as Markdown, with the ratio to the way without a folder."""
    lines = [
        "| way | pictures encoded | ratio | CPU s in the tower | beside it | of all steps |",
        "|---|---|---|---|---|---|",
    ]
    for count in counts:
        ratio = f"{count.pictures / counts[0].pictures:.2f}"
        lines.append(
            f"| {count.name} | {count.pictures} | {ratio} | {count.tower:.2f} | {count.folder:.2f} | {count.steps:.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--model", default="tiny-qwen")
    settings = parser.parse_args()
    print(table(measure(settings.model, settings.rows)))


if __name__ == "__main__":
    main()
