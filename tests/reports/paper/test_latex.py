"""The table for a paper: every special character escaped, the best marked, and LaTeX takes it where it is installed."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from synthetic_results import make_sweep, make_trial

from lmmcl.reports import formatting
from lmmcl.reports.paper.latex import escape_latex, latex_table
from lmmcl.reports.results import SweepResults


def rows(text: str) -> list[str]:
    return text.split(r"\midrule")[1].split(r"\bottomrule")[0].strip().splitlines()


def test_a_row_holds_each_measure_with_both_ends_of_its_interval() -> None:
    results = make_sweep(recipes=["sa_proj", "full"], rates=[1e-5])
    trial = results.trials[0]
    low, high = trial.interval("learning") or (None, None)
    expected = rf"{formatting.points(trial.measure('learning'))}"
    row = next(each for each in rows(latex_table(results)) if r"sa\_proj" in each)
    assert expected in row
    assert rf"[{formatting.points(low)},\,{formatting.points(high)}]" in row


def test_the_largest_mean_of_each_column_is_bold_and_only_that() -> None:
    results = make_sweep(recipes=["sa_proj", "gate_up", "full"], rates=[1e-5])
    text = latex_table(results)
    for name in ("learning", "held_out_forgetting"):
        best = max(trial.measure(name) for trial in results.trials)
        assert rf"\mathbf{{{formatting.points(best)}}}" in text
    worst = min(trial.measure("held_out_forgetting") for trial in results.trials)
    assert rf"\mathbf{{{formatting.points(worst)}}}" not in text


def test_an_unfinished_trial_is_never_the_best() -> None:
    partial = make_trial("full", stages=2, state="partial")
    done = [make_trial("sa_proj"), make_trial("gate_up")]
    text = latex_table(SweepResults("s", [partial, *done]))
    (row,) = [each for each in rows(text) if "partial" in each]
    assert r"\mathbf" not in row


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a_b & 5 % of $3 #1 {x} ~ ^", r"a\_b \& 5 \% of \$3 \#1 \{x\} \textasciitilde{} \textasciicircum{}"),
        ("back\\slash", r"back\textbackslash{}slash"),
        ("1e-3 · ± −2", r"1e-3 $\cdot$ $\pm$ $-$2"),
        ("é鳥\x07", "éU+9CE5 "),
    ],
)
def test_text_is_printed_as_it_is(text: str, expected: str) -> None:
    assert escape_latex(text) == expected


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="LaTeX is not installed")
def test_latex_takes_the_table_of_hostile_names(tmp_path: Path) -> None:
    trial = make_trial()
    odd = replace(trial, key="b", name="50 % & $x_", axes={**trial.axes, "recipe": "50 % & $\\frac{ #1 ~^"})
    body = latex_table(SweepResults("100 % \\end{table*} _$", [trial, odd]))
    packages = r"\usepackage{booktabs,graphicx,textcomp}\usepackage[T1]{fontenc}"
    (tmp_path / "a.tex").write_text(
        rf"\documentclass{{article}}{packages}\begin{{document}}{body}\end{{document}}", encoding="utf-8"
    )
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "a.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, errors="replace")
    assert done.returncode == 0, re.findall(r"^!.*", done.stdout, re.MULTILINE)
