"""What the page draws as the front of the trials that it shows is what the report says beats nothing of them."""

from __future__ import annotations

import json
import random
from dataclasses import replace

import numpy as np
import pytest
from page_script import NODE, evaluate
from synthetic_results import make_sweep

from lmmcl.reports.page.page_data import page_data
from lmmcl.reports.page.page_front import beaten_bits
from lmmcl.reports.pareto import beaten_by, fronts
from lmmcl.reports.results import SweepResults
from lmmcl.reports.tables.table import ranked


@pytest.fixture
def many() -> SweepResults:
    rates = [1e-6 * (place + 1) for place in range(8)]
    return make_sweep(recipes=["sa_proj", "gate_up", "full"], rates=rates)


def test_a_trial_is_on_the_front_of_a_selection_where_none_of_it_beats_it(many: SweepResults) -> None:
    places, chosen = {trial.key: place for place, trial in enumerate(many.trials)}, random.Random(0)
    beaten = {
        key: {many.trials[place].key for place in np.flatnonzero(beats)} for key, beats in beaten_by(many, places)
    }
    for _ in range(20):
        some = [trial for trial in many.trials if chosen.random() < 0.5]
        keys = {trial.key for trial in some}
        expected = {trial.key for front in fronts(replace(many, trials=some)) for trial in front}
        assert {key for key in keys if not keys & beaten[key]} == expected


def test_who_beats_a_trial_is_told_as_one_number_with_a_bit_for_each(many: SweepResults) -> None:
    trials = ranked(many.trials)
    places = {trial.key: place for place, trial in enumerate(trials)}
    numbers = {key: sum(1 << int(place) for place in np.flatnonzero(beats)) for key, beats in beaten_by(many, places)}
    assert beaten_bits(many, trials) == {key: f"{number:x}"[::-1] for key, number in numbers.items()}
    assert 0 in numbers.values() and len(set(numbers.values())) > 3


@pytest.mark.skipif(NODE is None, reason="no node on the path")
def test_the_page_draws_the_front_of_what_it_shows(many: SweepResults) -> None:
    data = page_data(many)
    chosen, shown = random.Random(1), []
    for _ in range(10):
        shown.append([place for place in range(len(data["trials"])) if chosen.random() < 0.6])
    ask = f"{json.dumps(shown)}.map((some) => fronts(some.map((at) => data.trials[at])).map((front) => front.map((trial) => trial.name)))"
    found = evaluate(data, ("data.js", "labels.js", "plots.js"), ask)
    trials = ranked(many.trials)
    for drawn, places in zip(found, shown, strict=True):
        expected = fronts(replace(many, trials=[trials[place] for place in places]))
        assert drawn == [[trial.name for trial in front] for front in expected]
