"""A stage that is killed again and again still gets on, at a cost that stays a small share of its time."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from stage_parts import difference, stage, weights
from transformers.trainer_callback import TrainerControl, TrainerState

from lmmcl.config.cluster import TrainingPlacement
from lmmcl.ledger import Ledger
from lmmcl.methods.losses.lwf import LwF
from lmmcl.training import finetune as module
from lmmcl.training.finetune import finetune
from lmmcl.training.recovery import start_state, timed_saves
from lmmcl.training.recovery.timed_saves import LEAST_SECONDS, SHARE, SaveByTime


def simulated(update_seconds: float, save_seconds: float, updates: int, parameters: int = 1) -> tuple[float, list[int]]:
    """(share of the time that went into saves, updates after which it was saved) of a stage on a clock of its own."""
    now, saved = 0.0, []
    callback = SaveByTime(clock=lambda: now)
    state, control, args = TrainerState(max_steps=updates), TrainerControl(), SimpleNamespace()
    model = SimpleNamespace(parameters=lambda: [torch.nn.Parameter(torch.empty(parameters, device="meta"))])
    callback.on_train_begin(args, state, control, model=model)
    for update in range(1, updates + 1):
        now += update_seconds
        state.global_step, control.should_save = update, False
        callback.on_step_end(args, state, control)
        if control.should_save:
            now += save_seconds
            saved.append(update)
            callback.on_save(args, state, control)
    return len(saved) * save_seconds / now, saved


@pytest.mark.parametrize(
    ("update_seconds", "save_seconds", "parameters"),
    [(0.1, 0.01, 10**5), (0.1, 0.2, 10**5), (1.0, 2.0, 10**7), (5.0, 400.0, 7 * 10**9), (0.01, 0.001, 10**4)],
)
def test_saves_take_a_small_share_of_a_stage(update_seconds: float, save_seconds: float, parameters: int) -> None:
    share, saved = simulated(update_seconds, save_seconds, 20_000, parameters)
    assert saved and share <= SHARE * 1.05


def test_cheap_saves_come_every_few_seconds_and_none_after_the_last_update() -> None:
    assert LEAST_SECONDS == 2.0
    share, saved = simulated(0.125, 2**-10, 65)
    assert saved == [16, 32, 48, 64] and share < 0.001
    assert simulated(0.125, 2**-10, 64)[1] == [16, 32, 48]
    assert simulated(0.125, 2**-10, 15)[1] == []


class Killed(Exception):
    """In place of SIGKILL: nothing is tidied up."""


@pytest.fixture
def kills(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Train a stage in short lives: each ends a number of updates after it began."""
    remove = module.remove_run
    monkeypatch.setattr(timed_saves, "LEAST_SECONDS", 0.0)
    monkeypatch.setattr(timed_saves, "SHARE", 1e6)
    monkeypatch.setattr(start_state, "LEAST_SECONDS", 0.0)
    monkeypatch.setattr(start_state, "SHARE", 1e6)
    starts: list[int] = []
    start = LwF.start
    monkeypatch.setattr(LwF, "start", lambda self, context: (starts.append(1), start(self, context))[1])

    def train(step: Any, ledger: Ledger, life: int) -> list[list[int]]:
        lives: list[list[int]] = []
        for _ in range(20):
            seen: list[int] = []

            def die(shown: dict[str, Any], seen: list[int] = seen) -> None:
                seen.append(shown["update"])
                if len(seen) == life:
                    raise Killed

            lives.append(seen)
            with monkeypatch.context() as patch:
                patch.setattr(module, "remove_run", lambda ledger, step: None)
                try:
                    finetune(step, ledger, TrainingPlacement(), progress=die)
                except Killed:
                    continue
            remove(ledger, step)
            return lives
        raise AssertionError("no progress")

    train.starts = starts  # type: ignore[attr-defined]
    return train


def test_a_stage_of_short_lives_comes_to_the_same_end_and_starts_once(tmp_path: Path, kills: Any) -> None:
    whole, killed = Ledger(str(tmp_path / "whole")), Ledger(str(tmp_path / "killed"))
    step = stage(LwF(), max_steps=7)
    finetune(step, whole, TrainingPlacement())
    kills.starts.clear()
    lives = kills(step, killed, 3)
    assert lives[0] == [1, 2, 3] and lives[-1][-1] == 7 and len(lives) <= 4
    assert all(life[0] > before[0] for before, life in pairwise(lives)), "each life gets on"
    assert len(kills.starts) == 1, "what the teacher said is kept"
    assert difference(weights(step, whole), weights(step, killed)) == 0


def test_a_damaged_start_state_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start_state, "LEAST_SECONDS", 0.0)
    monkeypatch.setattr(start_state, "SHARE", 1e6)
    made: list[int] = []

    class Costly(LwF):
        def start(self, context: Any) -> Any:
            made.append(1)
            return {3: torch.arange(5), 4: (torch.zeros(2), [torch.ones(1)])}

    def started() -> Any:
        return start_state.start_state(Costly(), SimpleNamespace(), tmp_path, alone=True)  # type: ignore[arg-type]

    first, again = started(), started()
    assert len(made) == 1 and torch.equal(first[3], again[3]) and torch.equal(first[4][1][0], again[4][1][0])
    file = tmp_path / start_state.FOLDER / start_state.FILE
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content))
    assert torch.equal(started()[3], first[3]) and len(made) == 2
    assert start_state.start_state(Costly(), SimpleNamespace(), tmp_path, alone=False) and len(made) == 3  # type: ignore[arg-type]
