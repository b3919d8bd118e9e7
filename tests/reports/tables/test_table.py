from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console
from synthetic_results import make_sweep, make_trial

from lmmcl.reports.results import SweepResults
from lmmcl.reports.tables.table import markdown_table, ranked, terminal_table


def drawn(results: SweepResults, width: int = 160) -> str:
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(terminal_table(results, width))
    return console.file.getvalue()


def test_every_trial_has_a_row_with_points_and_half_the_interval() -> None:
    results = make_sweep(recipes=["sa_proj", "full"], rates=[1e-5, 3e-5])
    text = drawn(results)
    trial = results.trials[0]
    assert text.count("sa_proj") == text.count("full") == 2
    assert f"{trial.measure('learning'):+.1f} ±1.3" in text
    caption = " ".join(text.split())
    assert "± is half the width of the 95 % interval" in caption and "--format md" in caption


def test_what_all_trials_share_stands_in_the_caption_once() -> None:
    text = drawn(make_sweep(recipes=["sa_proj", "full"], rates=[1e-5]))
    heading = next(line for line in text.splitlines() if "recipe" in line)
    assert "model" not in heading and "seed" not in heading and "lr" not in heading
    assert "model tiny-onevision, lr 1e-5, order main, seed 0" in text


def test_one_trial_alone_keeps_its_columns() -> None:
    assert "tiny-onevision" in drawn(make_sweep(recipes=["sa_proj"], rates=[1e-5])).split("Percentage")[0]


def test_only_the_front_is_starred() -> None:
    lines = drawn(make_sweep(recipes=["sa_proj", "gate_up", "full"], rates=[1e-5])).splitlines()
    assert {line.split()[1] for line in lines if line.strip().startswith("★") and "no trial" not in line} == {
        "sa_proj",
        "gate_up",
    }


def test_failed_and_partial_trials_say_how_far_they_came_and_why() -> None:
    done = make_trial("full")
    partial = make_trial("sa_proj", stages=2, state="partial")
    failed = make_trial("mlp", stages=1, state="failed", error="out of memory [rank 0]")
    text = drawn(SweepResults("s", [failed, partial, done]))
    assert "partial 2/5" in text and "failed 1/5" in text
    assert "out of memory [rank 0]" in text


def test_finished_trials_come_first_and_the_best_learner_leads() -> None:
    failed = make_trial("mlp", rate=1e-4, state="failed")
    names = [trial.name for trial in ranked([failed, make_trial("projector"), make_trial("gate_up")])]
    assert [name.split()[0] for name in names] == ["gate_up", "projector", "mlp"]


def test_a_trial_with_no_stage_yet_has_dashes() -> None:
    empty = replace(make_trial("full"), stages=[], state="failed", error="no such file")
    line = next(
        line for line in drawn(SweepResults("s", [empty, make_trial("sa_proj")])).splitlines() if "full" in line
    )
    assert line.count("–") >= 7 and "failed 0/5" in line


@pytest.mark.parametrize("width", [80, 100, 120])
def test_no_number_is_cut_on_a_narrow_terminal(width: int) -> None:
    results = make_sweep(recipes=["sa_proj", "gate_up"], mitigations=[None, "wise_ft"], rates=[1e-5])
    text = drawn(results, width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    for trial in results.trials:
        assert f"{trial.measure('held_out_forgetting'):+.1f} ±1.3" in text


@pytest.mark.parametrize("width", [60, 80, 100])
@pytest.mark.parametrize("mitigation", [None, "wise_ft", "model_tailor granularity=block128 layers=4"])
def test_a_narrow_terminal_goes_without_costs_and_never_without_overall(width: int, mitigation: str | None) -> None:
    results = make_sweep(
        recipes=["sa_proj", "full"], mitigations=[None, mitigation] if mitigation else [None], rates=[1e-5]
    )
    text = drawn(results, width)
    assert max(map(len, text.splitlines())) <= width
    table, _, left_out = text.partition("Left out for width:")
    assert "overall" in table.split("Percentage")[0] and "overall" not in left_out and (left_out or width == 100)
    for trial in results.trials:
        for name in ("learning", "held_out_forgetting", "overall"):
            assert f"{trial.measure(name):+.1f}" in text
        low, high = trial.interval("overall")
        assert f"±{(high - low) / 2:.1f}" in text
    if mitigation == "wise_ft" and width >= 60:
        assert "wise_ft" in text, "a name that has room is not broken"


def test_a_long_name_is_folded_at_its_words_where_there_is_room_for_one() -> None:
    text = drawn(
        make_sweep(
            recipes=["sa_proj", "full"],
            mitigations=[None, "model_tailor granularity=block128 layers=4"],
            rates=[1e-5, 3e-5],
        ),
        80,
    )
    assert all(f" {word} " in text for word in ("model_tailor", "granularity=block128", "layers=4"))
    assert "±" in text and max(map(len, text.splitlines())) <= 80


def test_markdown_has_one_line_a_trial_and_both_ends_of_an_interval() -> None:
    results = make_sweep(recipes=["sa_proj", "full"], rates=[1e-5])
    rows = [line for line in markdown_table(results).splitlines() if line.startswith("|")]
    assert len(rows) == 2 + len(results.trials)
    low, high = results.trials[0].interval("learning")
    assert f"\\[{low:+.1f}, {high:+.1f}\\]" in "".join(rows)
    assert len({row.replace("\\|", "").count("|") for row in rows}) == 1


def test_markdown_escapes_what_would_break_the_table() -> None:
    trial = make_trial("full", state="failed", error="a|b <script>\nc")
    text = markdown_table(SweepResults("a_b|c", [trial, make_trial("sa_proj")]))
    assert "a\\|b &lt;script&gt;" in text
    assert "a\\_b\\|c" in text
