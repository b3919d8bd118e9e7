"""KL on the new skill against forgetting: which stages are points, what a parabola explains, and when there is a picture."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from synthetic_results import make_sweep

from lmmcl.reports.pictures.divergence_plot import explained, points, write_divergence
from lmmcl.reports.results import SweepResults
from lmmcl.runner.reporting.report_files import write_report


def probed(*, bias: bool = True) -> SweepResults:
    """A made-up sweep in which KL on the skill of a stage is a quarter of what the stage lost."""
    sweep = make_sweep(recipes=["llm", "mlp"], rates=[1e-5], mitigations=[None, "grpo"], stages=2)
    trials = []
    for trial in sweep.trials:
        stages = []
        for stage in trial.stages:
            lost = stage.measures.get("held_out_forgetting", 0.0)
            probes = {
                f"kl_from_base/benchmark/{name}": (-lost if name == stage.skill else 99.0) / 4 for name in trial.skills
            }
            probes |= {"number_bias/max": 0.1 * stage.number} if bias else {}
            stages.append(replace(stage, probes=probes if stage.number else {}))
        trials.append(replace(trial, stages=stages))
    return replace(sweep, trials=trials)


def test_a_point_is_a_stage_with_the_divergence_on_its_own_skill() -> None:
    shown = points(probed())
    assert len(shown) == 8
    assert {point.mitigation for point in shown} == {None, "grpo"}
    assert all(point.kl == pytest.approx(-point.forgetting / 4) for point in shown)


def test_a_parabola_explains_what_lies_on_one_and_not_noise() -> None:
    at = np.linspace(0, 2, 9)
    assert explained(at.tolist(), (-3 * at**2 + at).tolist()) == pytest.approx(1)
    assert (explained(at.tolist(), [1, -1] * 4 + [1]) or 0) < 0.2
    assert explained([1, 2, 3], [1, 2, 3]) is None
    assert explained([1.0] * 6, [1, 2, 3, 4, 5, 6]) is None


def test_a_report_has_the_picture_where_the_new_skill_was_probed_and_only_there(tmp_path: Path) -> None:
    from PIL import Image

    for name, results in (("both", probed()), ("one", probed(bias=False))):
        assert write_divergence(results, tmp_path / f"{name}.png")
    widths = [Image.open(tmp_path / f"{name}.png").width for name in ("both", "one")]
    assert widths[0] > 1.5 * widths[1], "the number bias is a panel of its own"
    assert tmp_path / "report" / "divergence.png" in write_report(probed(), tmp_path / "report")
    assert write_divergence(make_sweep(stages=1), tmp_path / "none.png") is None
    assert not (tmp_path / "none.png").exists()
