"""Imported by each Python process of a disturbed sweep (it is on PYTHONPATH): writes down which steps begin and each update made.

A line is store, step key, try, update (0: the step begins). It is out of the process at once, and so outlives a SIGKILL.
"""

from __future__ import annotations

import importlib.abc
import importlib.util
import os
import sys
import uuid
from typing import Any

DIARY = "LMMCL_TEST_DIARY"


def tell(store: str, key: str, attempt: str, update: int) -> None:
    diary = os.open(os.environ[DIARY], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(diary, f"{store}\t{key}\t{attempt}\t{update}\n".encode())
    finally:
        os.close(diary)


def run_out(kind: str) -> None:
    """Ask for more memory than there is, where a test has wished that for the next computation of this kind."""
    try:
        os.unlink(f"{os.environ[DIARY]}.{kind}")  # noqa: PTH108 - one of several processes gets it
    except FileNotFoundError:
        return
    import torch

    torch.empty(1 << 60, dtype=torch.uint8)  # raises what torch raises


def follow_ledger(module: Any) -> None:
    """Tell of each step that begins to be computed, also in a log that a person is shown the end of."""
    writing = module.Ledger.writing

    def told(self: Any, step: Any, folder: Any = None) -> Any:
        if folder is None:  # else of files that are there already
            tell(self.store, step.key, f"{os.getpid()}-", 0)
            run_out(step.kind)
            print(f"begins {step.key}", file=sys.stderr, flush=True)
        return writing(self, step, folder)

    module.Ledger.writing = told


def follow_training(module: Any) -> None:
    """Tell of each update of a stage; of a worker group, one process does."""
    from lmmcl.training.recovery.preemption import SaveOnPreemption  # which every stage has

    train_stage, on_step_end = module.train_stage, SaveOnPreemption.on_step_end
    now: dict[str, str] = {}

    def train_and_tell(job: Any, *arguments: Any) -> Any:
        now.update(store=job.ledger.store, key=job.key, attempt=f"{os.getpid()}-{uuid.uuid4().hex}")
        return train_stage(job, *arguments)

    def tell_and_go_on(self: Any, args: Any, state: Any, control: Any, **more: Any) -> Any:
        if state.is_world_process_zero:
            tell(**now, update=state.global_step)
            run_out("update")
        return on_step_end(self, args, state, control, **more)

    module.train_stage, SaveOnPreemption.on_step_end = train_and_tell, tell_and_go_on  # type: ignore[method-assign]


FOLLOWED = {"lmmcl.ledger.ledger": follow_ledger, "lmmcl.training.stage.loop": follow_training}


class Follower(importlib.abc.MetaPathFinder):
    """Has a module of FOLLOWED followed once it is imported."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        if name not in FOLLOWED:
            return None
        sys.meta_path.remove(self)
        try:
            spec = importlib.util.find_spec(name)
        finally:
            sys.meta_path.insert(0, self)
        assert spec is not None and spec.loader is not None
        plain = spec.loader.exec_module

        def execute(module: Any) -> None:
            plain(module)
            FOLLOWED[name](module)

        spec.loader.exec_module = execute  # type: ignore[method-assign]
        return spec


if DIARY in os.environ:
    sys.meta_path.insert(0, Follower())
