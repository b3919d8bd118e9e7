"""A stage that is told that its machine goes: it saves where it is and ends, to be gone on with elsewhere.

In the step's own process the notice is SIGTERM. Workers of a group are told by Ray Train that one of their nodes is drained;
they report a checkpoint, and Ray Train starts the group again.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray.train
from transformers import Trainer, TrainerCallback
from transformers.trainer_callback import TrainerControl, TrainerState

from lmmcl.training.stage_errors import PreemptedError


class SaveAtNotice(TrainerCallback):
    """Saves after the update in which the notice came; in the step's own process, also ends."""

    def __init__(self, *, in_group: bool) -> None:
        self._in_group = in_group
        self._noticed = self._saved = False

    def notice(self) -> None:
        """Save and end as soon as the update under way is done."""
        self._noticed = True

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self._in_group:  # a collective call: every worker makes it after every update
            self._noticed = ray.train.get_preemption_info() is not None
        if self._noticed and not self._saved and state.global_step < state.max_steps:
            control.should_save = True

    def on_save(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if not self._noticed or control.should_training_stop or state.global_step >= state.max_steps:
            return  # or this update is the last, of a snapshot too: it comes to its end
        self._saved = True
        if not self._in_group:
            raise PreemptedError(f"told to end; saved after update {state.global_step}")


@contextmanager
def heeding_sigterm(trainer: Trainer) -> Iterator[None]:
    """Give SIGTERM to the trainer's `SaveAtNotice` while it trains; only a process's main thread can."""
    told = next(each for each in trainer.callback_handler.callbacks if isinstance(each, SaveAtNotice))
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda number, frame: told.notice())
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
