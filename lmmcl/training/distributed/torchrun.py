"""A sweep under torchrun: the first process walks it, and all of them train each of its stages together.

What is evaluated, merged and written is the first process's; meanwhile the others wait. They talk over a group of their own, which
has no GPU in it and no time-out that an evaluation could exceed.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
from torch import distributed

from lmmcl.config.cluster import TrainingPlacement
from lmmcl.errors import explain
from lmmcl.ledger import Ledger
from lmmcl.steps import Finetune, Snapshot
from lmmcl.training.finetune import finetune

PATIENCE = timedelta(days=30)

log = logging.getLogger(__name__)

_control: list[Any] = []
"""The group over which the first process says what is trained next; none where torchrun started nobody."""


@contextmanager
def joined(placement: TrainingPlacement) -> Iterator[bool]:
    """Join the processes that torchrun started; gives whether this is the first one, which walks the sweep.

    The others train what it announces, and get here when it has left the `with`.
    """
    on_gpu = bool(placement.gpus_per_worker)
    if on_gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    distributed.init_process_group("nccl" if on_gpu else "gloo")
    _control.append(distributed.new_group(backend="gloo", timeout=PATIENCE))
    first = distributed.get_rank() == 0
    try:
        if not first:
            _follow()
        yield first
    except Exception:
        _release(first)
        raise
    else:
        _release(first)
    finally:  # where it was interrupted, torchrun ends the others, which may not be listening
        _control.clear()


def _release(first: bool) -> None:
    """Let the others end, and leave the group."""
    if first:
        _share(None)
    distributed.destroy_process_group()


@contextmanager
def announced(step: Finetune | Snapshot, ledger: Ledger, placement: TrainingPlacement) -> Iterator[None]:
    """Have the others train `step` with this process for the time of the `with`; nothing where there are no others.

    Raises RuntimeError where another process failed and this one did not.
    """
    if not _control:
        yield
        return
    _share((step, ledger, placement))
    with _agreed():
        yield


def _follow() -> None:
    """Train with the first process whatever it announces, until its run ends."""
    while (work := _share(None)) is not None:
        step, ledger, placement = work
        try:
            with _agreed():
                finetune(step, ledger, placement)
        except Exception as error:  # noqa: BLE001 - the first process reports it and continues with other trials
            log.warning("worker %d: %s: %s", distributed.get_rank(), step.label, explain(error))


@contextmanager
def _agreed() -> Iterator[None]:
    """Wait at the end until all processes have ended, well or not: what comes next finds them in step."""
    failure: Exception | None = None
    try:
        yield
    except Exception as error:  # noqa: BLE001 - raised below, once all know of it
        failure = error
    outcomes: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(outcomes, explain(failure) if failure else None, group=_control[0])
    if failure is not None:
        raise failure
    if failed := [f"worker {rank}: {outcome}" for rank, outcome in enumerate(outcomes) if outcome]:
        raise RuntimeError("; ".join(failed))


def _share(value: Any) -> Any:
    """What the first process has; the others wait for it."""
    box = [value]
    distributed.broadcast_object_list(box, src=0, group=_control[0])
    return box[0]
