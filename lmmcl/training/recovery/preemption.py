"""A stage whose machine is about to go saves where it is and ends, to be resumed elsewhere.

In a process of its own the notice is SIGTERM; under torchrun one process's notice is every process's. Workers of a group of Ray
Train learn from it that their node is drained; they report a checkpoint, and Ray Train starts the group again.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from transformers import Trainer, TrainerCallback
from transformers.trainer_callback import TrainerControl, TrainerState

from lmmcl.training.distributed.workers import Workers
from lmmcl.training.stage_errors import PreemptedError


class SaveOnPreemption(TrainerCallback):
    """Saves after the update in which the notice came, and ends the stage unless the group is ended from outside."""

    def __init__(self, workers: Workers) -> None:
        self._workers = workers
        self._noticed = self._saved = False

    def notice(self) -> None:
        """Save and end as soon as the update under way is done."""
        self._noticed = True

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._noticed = self._workers.is_preempted(self._noticed)
        if self._noticed and not self._saved and state.global_step < state.max_steps:
            control.should_save = True

    def on_save(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if not self._noticed or control.should_training_stop or state.global_step >= state.max_steps:
            return  # or this update is the last, of a snapshot too: it comes to its end
        self._saved = True
        if self._workers.ends_when_preempted:
            raise PreemptedError(f"stopped by a termination request; saved after update {state.global_step}")


@contextmanager
def handle_sigterm(trainer: Trainer) -> Iterator[None]:
    """Pass SIGTERM to the trainer's `SaveOnPreemption` while it trains; only a process's main thread can."""
    callback = next(
        candidate for candidate in trainer.callback_handler.callbacks if isinstance(candidate, SaveOnPreemption)
    )
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda number, frame: callback.notice())
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
