"""Which probe correlates with forgetting follows from the stages of all trials, each checkpoint once."""

from __future__ import annotations

import dataclasses
import itertools
import math

import pytest
from rich.console import Console
from scipy.stats import spearmanr
from synthetic_results import make_sweep

from lmmcl.reports.correlation import correlation_table, exact_p, probe_correlations
from lmmcl.reports.results import SweepResults
from lmmcl.reports.tables.table import markdown_table
from lmmcl.tracking.tracker import stage_metrics


def probed(results: SweepResults) -> SweepResults:
    """The sweep with one probe that follows forgetting, one that does not move, and one of a layer."""

    def trial(given):
        stages = []
        for stage in given.stages:
            lost = stage.measures["held_out_forgetting"]
            probes = {"number_bias/sum": 0.9 ** (lost + 30), "number_bias/said": 0.0, "layer_contribution/mlp/1": lost}
            probes |= {"constrained/only_answers/free": 60 + lost}
            stages.append(dataclasses.replace(stage, probes=probes))
        return dataclasses.replace(given, stages=stages)

    return dataclasses.replace(results, trials=[trial(each) for each in results.trials])


def test_a_probe_that_rises_as_much_is_forgotten_has_the_rank_correlation_of_minus_one() -> None:
    sweep = probed(make_sweep(recipes=["llm", "sa_proj"], rates=[1e-5]))
    found = {each.probe: each for each in probe_correlations(sweep)}
    assert found["number_bias/sum"].rho == pytest.approx(-1)
    assert found["layer_contribution/mlp/1"].rho == pytest.approx(1)
    assert found["number_bias/sum"].stages == 10  # five stages of two trials; stage 0 forgot nothing
    assert "number_bias/said" not in found


def test_a_checkpoint_that_trials_share_counts_once() -> None:
    sweep = probed(make_sweep(recipes=["llm"], rates=[1e-5]))
    twice = dataclasses.replace(sweep, trials=[*sweep.trials, *sweep.trials])
    assert probe_correlations(twice) == probe_correlations(sweep)


def test_few_stages_tell_nothing() -> None:
    assert probe_correlations(probed(make_sweep(recipes=["llm"], rates=[1e-5], stages=3))) == []
    assert len(probe_correlations(probed(make_sweep(recipes=["llm"], rates=[1e-5], stages=4)))) == 3


@pytest.mark.parametrize("stages", [4, 5, 6])
def test_the_p_value_of_a_perfect_order_counts_all_orders(stages: int) -> None:
    order = [float(each) for each in range(stages)]
    assert exact_p(order, order[::-1]) == pytest.approx(2 / math.factorial(stages))


def test_the_p_value_is_that_of_every_pairing_also_with_ties() -> None:
    first, second = [1.0, 2.0, 2.0, 3.0, 5.0], [2.0, 1.0, 3.0, 3.0, 9.0]
    rho = spearmanr(first, second).statistic
    every = [spearmanr(first, [second[i] for i in order]).statistic for order in itertools.permutations(range(5))]
    assert exact_p(first, second) == pytest.approx(sum(abs(each) >= abs(rho) - 1e-9 for each in every) / 120)


def test_the_report_shows_probes_when_there_are_any_and_sums_layers_up() -> None:
    plain = make_sweep(recipes=["llm"], rates=[1e-5])
    assert "Probes" not in markdown_table(plain)
    assert correlation_table(plain) is None
    text = markdown_table(probed(plain))
    assert "| `number_bias/sum` | −1.00 | 0.017 | 5 |" in text
    assert "layer" not in text
    assert "free" not in text
    console = Console(width=100, record=True)
    console.print(correlation_table(probed(plain)))
    assert "number_bias/sum" in console.export_text()


def test_probes_are_tracked_by_name() -> None:
    stage = probed(make_sweep(recipes=["llm"], rates=[1e-5])).trials[0].stages[2]
    assert stage_metrics(stage)["probe/number_bias/sum"] == stage.probes["number_bias/sum"]
