"""How a global batch is cut into what a worker takes at a time: plain arithmetic, which a plan asks for too."""

from __future__ import annotations

from dataclasses import dataclass

from lmmcl.config.cluster import TrainingPlacement
from lmmcl.config.settings import Training
from lmmcl.errors import UserError


@dataclass(frozen=True)
class Batches:
    """How a global batch is cut: `workers` × `accumulation` × `micro` examples."""

    workers: int
    accumulation: int
    micro: int


def cut_batches(training: Training, placement: TrainingPlacement) -> Batches:
    """Cut the global batch for a placement; raises UserError when it cannot be cut evenly."""
    workers = max(placement.workers, 1)
    share, left = divmod(training.global_batch_size, workers)
    if left or not share:
        raise UserError(
            f"global_batch_size {training.global_batch_size} cannot be shared by {workers} workers; "
            f"allowed numbers of workers: {_divisors(training.global_batch_size)}",
            place="training.workers",
        )
    wanted = placement.micro_batch_size
    micro = min(wanted, share) if isinstance(wanted, int) else share  # `auto` tries smaller ones (see auto_batch.py)
    if share % micro:
        raise UserError(
            f"{share} examples a worker (global_batch_size {training.global_batch_size}) cannot be cut into batches of {micro}; "
            f"allowed: {_divisors(share)}",
            place="training.micro_batch_size",
        )
    return Batches(workers, share // micro, micro)


def worker_counts(training: Training, placement: TrainingPlacement) -> list[int]:
    """Numbers of workers that a placement allows and that cut the global batch evenly, the fewest first.

    Raises UserError when the most or the fewest that are allowed do not.
    """
    cut_batches(training, placement)
    fewest = placement.min_workers or placement.workers
    counts = []
    for number in range(fewest, placement.workers + 1):
        try:
            cut_batches(training, placement.model_copy(update={"workers": number}))
        except UserError as error:
            if number == fewest:
                raise error.at(place="training.min_workers") from None
            continue
        counts.append(number)
    return counts


def _divisors(number: int) -> str:
    return ", ".join(str(n) for n in range(1, number + 1) if number % n == 0)
