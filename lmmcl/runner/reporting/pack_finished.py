"""At the end of a run: pack what is recorded of the trials that are finished."""

from __future__ import annotations

import logging

from lmmcl.config.cluster import Cluster
from lmmcl.errors import UserError
from lmmcl.ledger.index.view import RecordView
from lmmcl.ledger.packs.packed_files import pack_of
from lmmcl.ledger.packs.packing import Busy, pack
from lmmcl.search.proposer import is_finished
from lmmcl.search.run_context import RunContext
from lmmcl.steps import CheckpointStep

log = logging.getLogger("lmmcl")
MANY = 50
"""Trials of a sweep from which on files are worth packing; records of a smaller one can be read with any editor."""


def packs(cluster: Cluster, context: RunContext) -> bool:
    """Whether a run packs at its end: as the cluster file says, or else where the sweep has many trials."""
    return len(context.sweep.trials) >= MANY if cluster.pack is None else cluster.pack


def pack_finished(context: RunContext, view: RecordView) -> bool:
    """Pack the checkpoints of finished trials, with their scores and probes; returns whether anything changed.

    What cannot be packed stays single files, which is logged: it costs nothing that was computed. While another run computes in the
    same store nothing is packed; that run, a later one or `lmmcl ledger pack` does.
    """
    checkpoints = _to_pack(context, view)
    if not checkpoints:
        return False
    try:
        done = pack(context.ledger, checkpoints)
    except Busy as error:
        log.info("records stay single files for now: %s", error)
        return False
    except (UserError, OSError) as error:
        log.warning("the records of finished trials were not packed and stay single files: %s", error)
    else:
        for path, why in done.left.items():
            log.warning("%s was not packed: %s", path, why)
        return done.packs > 0
    return True  # what was packed before the fault


def _to_pack(context: RunContext, view: RecordView) -> list[str]:
    """Paths of the checkpoints of finished trials that have a step (their own, of their scores or probes) in single files."""
    seen = context.reading(view.find)
    steps = seen.steps()
    view.prefetch(steps.values())
    single = {pack_of(step.path) for step in steps.values() if not view.is_packed(step)}
    if not single:
        return []
    finished = [trial for trial in context.sweep.trials if is_finished(trial, view, seen.progress)]
    wanted = {step.path: step for trial in finished for step in seen.of(trial).steps().values()}
    return [path for path, step in wanted.items() if isinstance(step, CheckpointStep) and pack_of(path) in single]
