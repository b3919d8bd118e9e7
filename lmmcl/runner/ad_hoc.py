"""One checkpoint evaluated outside a sweep: `lmmcl eval`, and two engines compared with each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lmmcl.config.cluster import Cluster
from lmmcl.config.settings import Evaluation
from lmmcl.errors import UserError, unknown
from lmmcl.inspection.stored_trials import find_checkpoint
from lmmcl.ledger import Ledger
from lmmcl.models import get_model
from lmmcl.models.sources.reference import is_reference
from lmmcl.runner.engines import check_engine, engine_parity
from lmmcl.steps import Checkpoint, Evaluate, Pretrained
from lmmcl.tasks import benchmark_names, get_benchmark, get_skill, skill_names
from lmmcl.tasks.hub.hub_data import check_prepared
from lmmcl.tasks.lmms_eval.benchmark import is_lmms_eval
from lmmcl.tasks.skills import Benchmark

if TYPE_CHECKING:
    from lmmcl.evaluation.engines.parity import Parity


def evaluate_checkpoint(
    wanted: str, names: Sequence[str], ledger: Ledger, cluster: Cluster, *, limit: int | None, precision: str
) -> dict[str, float]:
    """Scores in points by benchmark; what is recorded is read, what is missing computed here and recorded."""
    from lmmcl.runner.inline import inline_scheduler

    check_engine(cluster, here=True)
    steps = _asked_by_hand(wanted, names, ledger, limit, precision)
    check_prepared(step.benchmark for step in steps if ledger.find(step) is None)
    records = inline_scheduler(ledger, cluster, lambda key, shown: None).ensure_all(steps)
    return {record["label"]: record["score"] for record in records}


def compare_engine(
    wanted: str, names: Sequence[str], ledger: Ledger, cluster: Cluster, *, limit: int | None, precision: str
) -> list[Parity]:
    """The cluster's engine beside transformers on the same questions; nothing is recorded but the checkpoint itself."""
    from lmmcl.runner.execute import compute

    check_engine(cluster, here=True)
    steps = _asked_by_hand(wanted, names, ledger, limit, precision)
    check_prepared(step.benchmark for step in steps)
    if ledger.find(steps[0].checkpoint) is None:
        compute([steps[0].checkpoint], ledger, cluster, lambda key, shown: None)
    return engine_parity(steps, ledger, cluster)


def _asked_by_hand(
    wanted: str, names: Sequence[str], ledger: Ledger, limit: int | None, precision: str
) -> list[Evaluate]:
    checkpoint: Checkpoint = Pretrained(get_model(wanted)) if is_reference(wanted) else find_checkpoint(ledger, wanted)
    settings = Evaluation.model_validate({"limit": limit, "precision": precision})
    return [Evaluate(checkpoint, _asked(name), settings) for name in names]


def _asked(name: str) -> Benchmark:
    if is_lmms_eval(name):
        return get_benchmark(name)
    known = [*skill_names(), *benchmark_names()]
    if name not in known:
        raise UserError(unknown("benchmark", name, known))
    return get_skill(name).benchmark if name in skill_names() else get_benchmark(name)
