"""Which checkpoint inside a stage it is resumed from after a fault."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lmmcl.config.cluster import TrainingPlacement
from lmmcl.training.distributed.workers import Workers
from lmmcl.training.recovery.checksums import find_corruption

log = logging.getLogger(__name__)


@contextmanager
def resume_point(
    workers: Workers, runs: Path, placement: TrainingPlacement, *, before: int | None = None
) -> Iterator[Path | None]:
    """The newest Trainer checkpoint that is whole, or None where the stage starts at its beginning.

    Of those before the update `before` alone: training always makes one update more, and must end at that one. One worker
    judges: all must resume from the same checkpoint, and each would have to read the parts of all.
    """
    for saved in workers.saved_checkpoints(runs, placement):
        if before is not None and saved.update >= before:
            continue
        with saved.opened() as folder:
            corruption = workers.broadcast(find_corruption(folder) if workers.rank == 0 else None)
            if corruption is None:
                yield folder
                return
            log.warning("%s is skipped: %s", saved.name, corruption)
    yield None
