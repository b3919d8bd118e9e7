"""Changed command lines: each does what it says or ends with one message, and what a store holds stays."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from pathlib import Path

import pytest
from generated.mutations import SIZES, TEXTS, Tally, explore
from hypothesis import strategies as st
from made import SWEEP, write_sweep
from synthetic_ledger import fill

from lmmcl.cli import main
from lmmcl.config.sweep import load_sweep
from lmmcl.ledger import Ledger

LINES = (
    "plan small.yaml",
    "plan small.yaml --set training.epochs=2 --json",
    "plan small.yaml --cluster node.yaml --store lmmcl-store",
    "status small.yaml --json",
    "report small.yaml",
    "report small.yaml --format json --budget 5",
    "report small.yaml --csv",
    "compare small.yaml gate_up_3e-4 sa_proj_3e-4 --json",
    "samples small.yaml --benchmark colour --trial sa_proj --wrong --most 3",
    "show 1-counting",
    "show model tiny-onevision --json",
    "list recipes",
    "list steps --json",
    "list benchmarks --store lmmcl-store",
    "schema cluster",
    "data check rows.json --columns question=q,answer=a --json",
    "data check rows.json --skip-images --question what",
    "gc small.yaml --dry-run",
    "gc small.yaml --keep 1-counting --all --json",
    "ledger check --repair --json",
    "ledger pack",
    "ledger unpack --json",
    "completion bash",
    "init tiny-onevision rows.json --to made.yaml --force --columns question=q,answer=a --metric exact_match --test 0.5",
    "--version",
)
OPTIONS = sorted({word for line in LINES for word in line.split() if word.startswith("--")})
HARMLESS = [text for text in TEXTS if "/" not in text and ".." not in text and "\0" not in text]
WORDS = sorted({word for line in LINES for word in line.split()})


@st.composite
def command_lines(draw: st.DrawFn) -> list[str]:
    """A valid line with up to two words left out, doubled, exchanged, or put between others."""
    words = draw(st.sampled_from(LINES)).split()
    for _ in range(draw(st.sampled_from([0, 1, 1, 2]))):
        at = draw(st.integers(min(1, len(words) - 1), max(0, len(words) - 1))) if words else 0
        kind = draw(st.sampled_from([*["override"] * 4, "value", "swap", "drop", "double", "option", "text", "edit"]))
        if kind == "override":
            words += (
                ["--set", draw(st.sampled_from(OVERRIDES))]
                if words and words[0] in ("plan", "status", "report", "compare")
                else ["--store", "lmmcl-store"]
            )
        elif kind == "value" and words:
            words[at : at + 1] = [draw(st.sampled_from(WORDS))]
        elif kind == "swap" and words:
            words[at], words[-1] = words[-1], words[at]
        elif kind == "drop" and words:
            del words[at]
        elif kind == "double" and words:
            words.insert(at, words[at])
        elif kind == "option":
            words.insert(at, draw(st.sampled_from(OPTIONS)))
        elif kind == "text":
            words[at : at + 1] = [
                draw(st.sampled_from(HARMLESS) | st.text(st.characters(exclude_characters="/.\0"), max_size=5))
            ]
        elif words:
            words[at] = words[at][: draw(st.integers(0, len(words[at])))]
    return words or ["list"]


OVERRIDES = (
    "training.epochs=3", "grids[0].seed=[0,1]", "evaluation.limit=4", "training={}", "name=other", "grids[0].recipe=[llm]",
    "benchmarks.held_out=[]", "grids[9].seed=[1]", "=", "a.b.c=1", "training.epochs=1e400", "grids=[]", "probes=[number_bias]",
)  # fmt: skip


def run(words: list[str], monkeypatch: pytest.MonkeyPatch) -> tuple[int, str]:
    """The exit code of `lmmcl WORDS`, and what it wrote; whatever else escapes is a traceback for its user."""
    monkeypatch.setattr(sys, "argv", ["lmmcl", *words])
    out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            main()
            code: object = 0
        except SystemExit as done:
            code = done.code
        out.flush()
    assert code is None or isinstance(code, int), code
    buffer = out.buffer
    assert isinstance(buffer, io.BytesIO)
    return code or 0, buffer.getvalue().decode()


@pytest.mark.parametrize("examples", SIZES)
def test_a_changed_command_line_is_done_or_refused(
    examples: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = load_sweep(write_sweep(tmp_path, SWEEP))
    fill(sweep, tmp_path / "lmmcl-store", questions=4)
    (tmp_path / "node.yaml").write_text("training: {workers: 1}\n")
    (tmp_path / "rows.json").write_text(json.dumps([{"q": f"{n} ?", "a": str(n)} for n in range(9)]))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    ledger, tally = Ledger(str(tmp_path / "lmmcl-store")), Tally()
    assert run(["list", "recipes"], monkeypatch)[0] == 0

    def read(words: list[str]) -> bool:
        code, text = run(words, monkeypatch)
        assert code in (0, 1, 2) and "Traceback" not in text, (code, text[-2000:])
        lost = [step.path for step in sweep.steps.values() if not ledger.has(step)]
        assert not lost, f"{words}: {lost} were lost"
        return not text.startswith("Usage:") or code == 0

    explore(read, command_lines(), examples, tally)
    tally.check("command lines", capsys)
