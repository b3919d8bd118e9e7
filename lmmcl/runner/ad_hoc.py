"""One checkpoint evaluated outside a sweep: `lmmcl eval`, and two engines compared with each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from rich.console import Console

from lmmcl.config.cluster import Cluster
from lmmcl.config.settings import Evaluation
from lmmcl.errors import UserError, unknown
from lmmcl.inspection.live_view import describe
from lmmcl.inspection.stored_trials import find_checkpoint
from lmmcl.ledger import Ledger, Record
from lmmcl.models import get_model
from lmmcl.models.sources.reference import is_reference
from lmmcl.runner.engines import check_engine, engine_parity
from lmmcl.runner.heartbeat import WorkLine
from lmmcl.runner.preflight import check_rows
from lmmcl.steps import Checkpoint, Evaluate, Pretrained
from lmmcl.tasks import benchmark_names, get_benchmark, get_skill, skill_names
from lmmcl.tasks.hub.hub_data import check_prepared
from lmmcl.tasks.lmms_eval.benchmark import is_lmms_eval
from lmmcl.tasks.skills import Benchmark
from lmmcl.terminal import safe_console

if TYPE_CHECKING:
    from lmmcl.evaluation.engines.parity import Parity


@dataclass(frozen=True)
class Score:
    """A benchmark's score in points with its 95 % interval over `questions`: how far the questions asked may mislead."""

    benchmark: str
    score: float
    questions: int
    interval: tuple[float, float]

    def to_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {"score": self.score, "questions": self.questions, "interval": list(self.interval)}

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.benchmark:20} {self.score:6.1f}  [{low:.1f}, {high:.1f}]  n = {self.questions}"


def evaluate_checkpoint(
    wanted: str,
    names: Sequence[str],
    ledger: Ledger,
    cluster: Cluster,
    *,
    limit: int | None,
    precision: str,
    console: Console | None = None,
) -> list[Score]:
    """Scores of the benchmarks; what is recorded is read, what is missing computed here and recorded.

    On `console` (default: standard error) it is said what is being done, and which questions no answer can get right; raises
    UserError where that is true of most questions of a benchmark.
    """
    from lmmcl.runner.inline import inline_scheduler

    console = console or safe_console(stderr=True)
    check_engine(cluster, here=True)
    steps = _asked_by_hand(wanted, names, ledger, limit, precision)
    missing = [step for step in steps if ledger.find(step) is None]
    check_prepared(step.benchmark for step in missing)
    with WorkLine(console) as line:
        line.say("checking the questions")
        check_rows(missing, ledger, partial(_note, console))
        progress = partial(_tell, line, {key: name for step in steps for key, name in _named(step)})
        records = inline_scheduler(ledger, cluster, progress).ensure_all(steps)
    return [_score(record) for record in records]


def _note(console: Console, note: str) -> None:
    console.print(f"note: {note}", highlight=False, markup=False, soft_wrap=True)


def _named(step: Evaluate) -> list[tuple[str, str]]:
    """Keys that notes may be of, with what to call the work."""
    lineage = [(parent.key, parent.label) for parent in (step.checkpoint, *step.checkpoint.parents)]
    return [*lineage, (step.key, step.checkpoint.label)]


def _tell(line: WorkLine, names: Mapping[str, str], key: str, note: Mapping[str, Any]) -> None:
    line.say(f"{names.get(key, 'checkpoint')}: {describe(note)}")


def _score(record: Record) -> Score:
    from lmmcl.evaluation.matrix import ScoreMatrix

    name, scores = record["label"], record["sample_scores"]
    matrix = ScoreMatrix([], [name])
    matrix.add(0, {name: scores}, record["key"])
    return Score(name, record["score"], len(scores), matrix.score_intervals(0)[name])


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
