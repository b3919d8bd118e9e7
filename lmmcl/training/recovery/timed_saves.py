"""A stage in a process of its own saves by time too, so that a machine that is taken back every few seconds still gets on.

How often follows from what a save costs: all of them together take about a fiftieth of the stage's time, whatever its size.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback
from transformers.trainer_callback import TrainerControl, TrainerState

SHARE = 0.02
"""Of a stage's time that saves may take."""
LEAST_SECONDS = 2.0
"""Between two saves, however cheap they are."""
BYTES_PER_SECOND = 2e8
"""What is assumed before the first save has been timed: hashed and written to an ordinary disk."""
BYTES_PER_PARAMETER = 12
"""A trained parameter and AdamW's two moments, in fp32."""


class SaveByTime(TrainerCallback):
    """Asks for a save when enough time has passed since the last one; the last of the callbacks, to time what the others do."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._interval = LEAST_SECONDS
        self._last = self._asked = 0.0

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        trained = sum(parameter.numel() for parameter in kwargs["model"].parameters() if parameter.requires_grad)
        self._interval = interval_for(trained * BYTES_PER_PARAMETER / BYTES_PER_SECOND)
        self._last = self._clock()

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._asked = self._clock()
        if state.global_step < state.max_steps and self._asked - self._last >= self._interval:
            control.should_save = True

    def on_save(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._last = self._clock()
        self._interval = interval_for(self._last - self._asked)


def interval_for(cost: float) -> float:
    """Seconds between two saves that take `cost` seconds each."""
    return max(LEAST_SECONDS, cost / SHARE)
