"""The interval of a benchmark's score after a stage: Wilson's, the bootstrap's of fractional scores, or over seeds a t interval."""

from __future__ import annotations

import numpy as np

from lmmcl.evaluation.intervals import wilson
from lmmcl.reports.paired import from_variances
from lmmcl.reports.results import Interval, StageResult, TrialResult
from lmmcl.reports.seeds import TO_DEVIATION


def score_interval(trial: TrialResult, place: int, name: str) -> Interval | None:
    """Of the score on benchmark `name` at the stage in that `place`, in points; None where it was not asked or nothing is known of
    its questions. The mean over seeds varies with questions and with seeds, as that of a measure."""
    stages = [run.stages[place] for run in trial.seeds] or [trial.stages[place]]
    if len(stages) == 1:
        return stage_interval(stages[0], name)
    intervals = [ends for stage in stages if (ends := stage_interval(stage, name)) is not None]
    if len(intervals) < len(stages):
        return None
    deviation = float(np.mean([(high - low) / TO_DEVIATION for low, high in intervals]))
    mean = from_variances([stage.scores[name] for stage in stages], deviation**2)
    most = 100.0 if all(is_share(stage, name) for stage in stages) else np.inf
    return max(0.0, mean.low), min(most, mean.high)


def stage_interval(stage: StageResult, name: str) -> Interval | None:
    """`score_interval` of one stage of one seed."""
    if name in stage.score_intervals:
        return stage.score_intervals[name]
    if not is_share(stage, name):
        return None
    questions = stage.sample_counts[name]
    return wilson(round(stage.scores[name] * questions / 100), questions)


def is_share(stage: StageResult, name: str) -> bool:
    """Whether a score is a number of right answers among those asked."""
    score, questions = stage.scores.get(name), stage.sample_counts.get(name)
    if score is None or not questions or name in stage.score_intervals:
        return False
    right = score * questions / 100
    return score <= 100 and abs(right - round(right)) < 1e-6
