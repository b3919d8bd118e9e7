"""Private parts of the Hugging Face Trainer: how it writes and reads the model of a checkpoint, and moves a batch to its device.

And of its processors: how many tokens they make of an image of some size.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from transformers import Trainer, TrainingArguments

NEWEST = (5, 24)
"""The newest minor version of transformers whose private parts were looked at."""


class TrainerWithPrivateParts(Trainer):
    """A Trainer whose checkpoints hold what a subclass writes in the place of the whole model."""

    def write_model(self, folder: Path) -> None:
        """Write what a checkpoint keeps of the model; called where the Trainer would write all of it."""
        raise NotImplementedError

    def read_model(self, folder: Path) -> None:
        """Read what `write_model` wrote; called when training is resumed."""
        raise NotImplementedError

    def prepare_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
        """A batch on the device of this worker, in the dtypes of its strategy: what the Trainer does before each step."""
        return self._prepare_inputs(batch)

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        if self.args.should_save:
            self.write_model(Path(output_dir or str(self.args.output_dir)))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        self.read_model(Path(resume_from_checkpoint))


def remember_missing_packages() -> None:
    """Let accelerate look for the package lomo_optim once in a process: its optimizer does so twice an update, on disk."""
    from accelerate import optimizer

    if not hasattr(optimizer.is_lomo_available, "cache_info"):
        optimizer.is_lomo_available = cache(optimizer.is_lomo_available)


def leave_deepspeed_unloaded() -> None:
    """Let accelerate not import DeepSpeed, which takes a second, to ask whether a model is one of its engines.

    None is while nobody has imported it, as the Trainer does where the cluster file asks for DeepSpeed.
    """
    from accelerate.utils import other

    if not isinstance(other.is_deepspeed_available, _WhereLoaded):
        other.is_deepspeed_available = _WhereLoaded(other.is_deepspeed_available)


class _WhereLoaded:
    def __init__(self, available: Callable[[], bool]) -> None:
        self._available = available

    def __call__(self) -> bool:
        return "deepspeed" in sys.modules and self._available()


def use_one_gpu(arguments: TrainingArguments) -> None:
    """Of several visible GPUs one worker means one, not torch's DataParallel over all of them."""
    if arguments.n_gpu > 1:
        arguments._n_gpu = 1


def count_image_tokens(processor: Any, width: int, height: int) -> int | None:
    """Tokens that a processor makes of an image of a size, without one; None where it cannot tell.

    For estimates: half of the processors count, each by settings that another may lack.
    """
    if not hasattr(processor, "_get_num_multimodal_tokens"):
        return None
    try:
        return int(processor._get_num_multimodal_tokens(image_sizes=[(height, width)])["num_image_tokens"][0])
    except (AttributeError, IndexError, KeyError, NotImplementedError, TypeError, ValueError):
        return None
