"""The paragraph on methods says what the sweep and its records say, and no more."""

from __future__ import annotations

from pathlib import Path

from made import write_sweep
from pretended import SEARCH, Pretence, lmmcl, pretence, run, tell_provenance  # noqa: F401 - pretence is a fixture

from lmmcl.config.sweep import load_sweep
from lmmcl.ledger import Ledger
from lmmcl.reports.collect import collect_results
from lmmcl.reports.paper.methods_text import methods_text
from lmmcl.search.run_context import RunContext


def text_of(sweep: Path, store: Path) -> str:
    context = RunContext.resolve(load_sweep(sweep), Ledger(str(store)))
    return methods_text(context, collect_results(context))


def test_a_sweep_that_has_run_is_described(tmp_path: Path, pretence: Pretence) -> None:  # noqa: F811
    sweep = write_sweep(tmp_path, SEARCH)
    tell_provenance(pretence)
    run(sweep)
    text = text_of(sweep, tmp_path / "store")
    for part in (
        "We fine-tuned tiny-onevision",
        "main: counting, clock, birds",
        "Held-out benchmarks: colour and shape.",
        "learning rates 1e-6, 1e-5, 1e-4 and 1e-3; seed 0; 4 trials in all",
        "answered 5 benchmarks by greedy decoding, 50 questions each",
        "Stages were computed with lmmcl 0.1.0, torch 2.9.1+cpu in 2 processes on cuda; ",
    ):
        assert part in text, text
    shown = lmmcl("report", sweep, "--store", tmp_path / "store", "--format", "latex").stdout
    assert r"\begin{table*}" in shown and "We fine-tuned tiny-onevision" in shown


def test_before_the_first_run_versions_are_not_invented(tmp_path: Path) -> None:
    sweep = write_sweep(tmp_path, SEARCH)
    (tmp_path / "store").mkdir()
    text = text_of(sweep, tmp_path / "store")
    assert text.endswith("No stage is recorded yet: versions and hardware are not known.")
