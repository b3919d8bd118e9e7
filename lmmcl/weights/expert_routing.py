"""Checkpoints that are several: an expert for each skill and a router among them. Their weights are their parents'."""

from __future__ import annotations

import time
from dataclasses import dataclass

from lmmcl.ledger import Ledger, Record
from lmmcl.ledger.provenance import provenance
from lmmcl.steps import Checkpoint, Merge
from lmmcl.tasks.routing import pool_of
from lmmcl.weights.checkpoint import base_digest
from lmmcl.weights.delta import save_delta

FIELD = "routed"
"""Of such a checkpoint's record: the keys of its experts and of its router, and how its prompt describes them."""


@dataclass(frozen=True)
class Routing:
    """The experts of a checkpoint: `experts[i]` is described by `pool[i]`; a single expert needs no router."""

    experts: tuple[Checkpoint, ...]
    router: Checkpoint | None
    pool: tuple[str, ...]


def record_routing(step: Merge, ledger: Ledger) -> Record:
    """Record a checkpoint with experts: who they are. Its own delta holds nothing."""
    started = time.time()
    precision = step.tuned.training.precision
    skills = [expert.skill for expert in step.experts]
    pool = pool_of(skills, dict(getattr(step.rule, "descriptions", ())))
    with ledger.writing(step) as draft:
        size = save_delta(
            draft.folder,
            {},
            parent_key=step.anchor.key,
            base_digest=base_digest(step.model, precision),
            routed=len(step.experts),
        )
        return draft.commit(
            {
                "precision": precision,
                "checkpoint_bytes": size,
                FIELD: {
                    "experts": [expert.key for expert in step.experts],
                    "router": step.router.key if step.router else None,
                    "pool": list(pool),
                },
                "seconds": time.time() - started,
                "provenance": provenance(started),
            }
        )


def routing_of(checkpoint: Checkpoint, ledger: Ledger) -> Routing | None:
    """The experts of a recorded checkpoint; None where it is a single model."""
    if len(checkpoint.parents) < 2:
        return None
    record = ledger.find(checkpoint)
    routed = record.fields.get(FIELD) if record else None
    if routed is None:
        return None
    parents = {parent.key: parent for parent in checkpoint.parents}
    router = parents[routed["router"]] if routed["router"] else None
    return Routing(tuple(parents[key] for key in routed["experts"]), router, tuple(routed["pool"]))
