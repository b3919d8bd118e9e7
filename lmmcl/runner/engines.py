"""Evaluation engines from the runner's side: known and installed before anything starts; compared with transformers on request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lmmcl.config.cluster import Cluster
from lmmcl.ledger import Ledger
from lmmcl.steps import Evaluate

if TYPE_CHECKING:
    from lmmcl.evaluation.engines.parity import Parity

DEFAULT = "transformers"


def check_engine(cluster: Cluster, *, here: bool) -> None:
    """Raises UserError for an engine that there is not; where it runs on this machine, also for a package that is missing."""
    if cluster.evaluation.engine == DEFAULT:
        return
    from lmmcl.errors import UserError
    from lmmcl.evaluation.engines import get_engine

    try:
        kind = get_engine(cluster.evaluation.engine)
    except UserError as error:
        raise error.at(place="evaluation.engine") from error
    if here:
        kind.check()


def engine_parity(steps: Sequence[Evaluate], ledger: Ledger, cluster: Cluster) -> list[Parity]:
    """The cluster's engine and transformers, asked the benchmarks of one recorded checkpoint; nothing is recorded.

    Returns a `Parity` for each step. One engine is closed before the other is opened: a GPU has room for one. Raises UserError for
    a benchmark that a judge scores, before anything is opened.
    """
    from lmmcl.errors import UserError
    from lmmcl.evaluation.engines import get_engine
    from lmmcl.evaluation.engines.parity import compare_engines
    from lmmcl.evaluation.generate import scored

    if judged := next((step.benchmark for step in steps if step.benchmark.judge), None):
        raise UserError(
            "is scored by a judge, and engines are compared without one; allowed: benchmarks that have a metric",
            file=f"benchmark {judged.name}",
        )
    first = steps[0]
    answers = []
    for name in (DEFAULT, cluster.evaluation.engine):
        opened = get_engine(name).open(first.checkpoint, ledger, cluster.evaluation, first.evaluation.precision)
        with opened as engine:
            answers.append(
                [scored(step.benchmark, engine.answers(step.benchmark, step.evaluation.limit)) for step in steps]
            )
    return [compare_engines(step.label, a, b) for step, a, b in zip(steps, *answers, strict=True)]
