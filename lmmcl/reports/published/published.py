"""Our figures beside published ones: what papers report, matched to a sweep's trials by what they computed.

The figures ship as data, one file a paper, each with where it stands and what it is of (`published_figures/`). A trial has a
figure's counterpart when it taught the same skills, in the same order, to the same model with the same recipe (what it
trains), mitigation and learning rate, and asked the same held-out benchmarks where the figure says which; names that a sweep
file chose for itself play no part. A figure is compared with ours at the stage that it is of, and with nothing before that
stage is recorded. A trial that taught or asked less than all there is says so in the note of its rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lmmcl.config.sweep import Sweep
from lmmcl.errors import UserError
from lmmcl.measures import MEASURES
from lmmcl.reports.published.published_file import RETENTIONS, SHIPPED, Publication, publications
from lmmcl.reports.results import Interval, StageResult, SweepResults, TrialResult, finite, finite_pair
from lmmcl.steps.trial import Trial


@dataclass(frozen=True)
class Row:
    """One published value and ours: points, ours None while its stage is not recorded (or not defined)."""

    quantity: str
    stage: int
    published: float
    approximate: bool
    ours: float | None
    interval: Interval | None
    source: str
    second_hand: str
    note: str

    @property
    def difference(self) -> float | None:
        """Ours − published."""
        return None if self.ours is None else self.ours - self.published


@dataclass(frozen=True)
class Beside:
    """A trial with the published values that it is compared with; none where nothing was published for it."""

    trial: TrialResult
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Comparison:
    """A sweep beside what was published, and what the same papers claim without a figure."""

    sweep: str
    trials: tuple[Beside, ...]
    claims: tuple[str, ...]
    contradictions: tuple[str, ...] = ()


def hold_against(sweep: Sweep, results: SweepResults, against: str = SHIPPED) -> Comparison:
    """The trials of `results` beside published figures; with several seeds a row is their mean.

    Raises UserError, with what there is, when no trial of the sweep has a published figure.
    """
    papers = publications(against)
    trials = {trial.key: trial for trial in sweep.trials}
    beside = []
    for result in results.trials:
        trial = trials[(result.seeds or (result,))[0].key]
        beside.append(Beside(result, tuple(_rows(trial, result, _unprotected(result, results), papers))))
    concerned = [paper for paper in papers if _concerns(paper, sweep)]
    claims = [f"{paper.source}: {claim}" for paper in concerned for claim in paper.claims]
    contradictions = [f"{paper.source}: {entry}" for paper in concerned for entry in paper.contradictions]
    if not any(entry.rows for entry in beside):
        raise UserError(_nothing(papers, claims), file=sweep.file)
    return Comparison(sweep.name, tuple(beside), tuple(claims), tuple(contradictions))


def _unprotected(trial: TrialResult, results: SweepResults) -> TrialResult | None:
    """The trial that differs from `trial` in having no mitigation: its fine-tune as it was; None where the sweep has none."""
    wanted = {**trial.axes, "mitigation": None}
    return next((other for other in results.trials if dict(other.axes) == wanted), None)


def _concerns(paper: Publication, sweep: Sweep) -> bool:
    covered = any(figure.of.covers(trial) for figure in paper.figures for trial in sweep.trials)
    return covered or sweep.name in paper.sweeps


def _nothing(papers: Sequence[Publication], claims: Sequence[str]) -> str:
    """Why there is nothing to compare with: what is claimed of this sweep, then all that has figures."""
    asked = "model, skills, recipe, mitigation, learning rate and held-out benchmarks"
    lines = [f"no trial of this sweep has a published figure (by {asked})"]
    lines += [f"  claimed without a figure: {claim}" for claim in claims]
    lines.append("figures exist for:")
    for paper in papers:
        figures = list(dict.fromkeys(str(figure.of) for figure in paper.figures))
        files = ", ".join(f"sweeps/{name}.yaml" for name in paper.sweeps)
        lines += [f"  {paper.source} ({files}): {'; '.join(figures)}"] if figures else []
    return "\n".join(lines)


def _rows(trial: Trial, result: TrialResult, tuned: TrialResult | None, papers: Sequence[Publication]) -> Iterator[Row]:
    last = len(trial.skills)
    reached = {stage.number: stage for stage in result.stages}
    limited = _limited(trial)
    for paper in papers:
        for figure in paper.figures:
            if not figure.of.covers(trial):
                continue
            note = "; ".join(remark for remark in (figure.note, limited) if remark)
            for name, published in figure.values.items():
                quantity, _, number = name.partition("@")
                stage = int(number) if number else last
                ours, interval = _ours(quantity, reached[stage], result, tuned) if stage in reached else (None, None)
                about, source = name in figure.approximate, f"{paper.source}: {figure.where}"
                yield Row(quantity, stage, published, about, ours, interval, source, figure.second_hand, note)


def _limited(trial: Trial) -> str:
    """What of the skills and benchmarks a trial left out by its settings; empty for one that took all."""
    trained = [settings.training for settings in trial.settings.values()]
    limits = {
        "training examples of each skill": [training.examples for training in trained],
        "updates of each stage": [training.max_steps for training in trained],
        "questions of each benchmark": [trial.evaluation.limit],
    }
    numbers = {what: sorted({limit for limit in values if limit is not None}) for what, values in limits.items()}
    phrases = [f"{' or '.join(map(str, values))} {what}" for what, values in numbers.items() if values]
    return f"ours is limited to {', '.join(phrases)}" if phrases else ""


def _ours(
    quantity: str, stage: StageResult, trial: TrialResult, tuned: TrialResult | None
) -> tuple[float | None, Interval | None]:
    """Our value of a quantity after a stage, and its interval where there is one. `tuned` is the trial without a mitigation."""
    if quantity in RETENTIONS:
        names, other = (trial.held_out, trial) if quantity == "original_retention" else (trial.skills, tuned)
        number = 0 if quantity == "original_retention" else stage.number
        before = next((entry for entry in other.stages if entry.number == number), None) if other else None
        return _retention(stage, before, names), None
    if quantity in MEASURES:
        return finite(stage.measures.get(quantity)), finite_pair(stage.intervals.get(quantity))
    kind, _, rest = quantity.partition("/")
    if kind == "score":
        return finite(stage.scores.get(rest)), None
    if kind == "cell":
        cell = next((entry for entry in stage.cells if f"{entry.image}/{entry.text}" == rest), None)
        bounds = None if cell is None or cell.low is None or cell.high is None else (cell.low, cell.high)
        return (None if cell is None else finite(cell.change)), finite_pair(bounds)
    return _mean(stage, trial.held_out if quantity == "held_out_mean" else trial.benchmarks()), None


def _retention(stage: StageResult, before: StageResult | None, names: Sequence[str]) -> float | None:
    """The mean score on `names` in percent of what it was; None where one is not known, or it was 0."""
    after, was = _mean(stage, names), _mean(before, names) if before else None
    return None if after is None or not was else 100 * after / was


def _mean(stage: StageResult, names: Sequence[str]) -> float | None:
    scores = [finite(stage.scores.get(name)) for name in names]
    known = [value for value in scores if value is not None]
    return sum(known) / len(known) if known and len(known) == len(scores) else None
