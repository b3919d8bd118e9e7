"""The sweep for a paper: a booktabs table with intervals and the best values marked, and its heading as a comment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lmmcl.reports import formatting
from lmmcl.reports.results import MEASURES, Interval, SweepResults, TrialResult
from lmmcl.reports.seeds import averaged, has_seeds
from lmmcl.reports.tables.table import STAR, Column, Sheet, make_sheet, ranked

SPECIAL = {
    "\\": r"\textbackslash{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "★": r"$\star$",
    "–": "--",
    "—": "---",
    "·": r"$\cdot$",
    "×": r"$\times$",
    "±": r"$\pm$",
    "−": "$-$",
    "→": r"$\rightarrow$",
    "≥": r"$\geq$",
    "≤": r"$\leq$",
    "…": r"\ldots{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
}
NEEDS = r"\usepackage{booktabs,graphicx,textcomp} and \usepackage[T1]{fontenc}"


def latex_table(results: SweepResults) -> str:
    """A `table*` in booktabs' style; a measure with its 95 % interval, each column's best in bold face, the Pareto front starred.

    The best are the largest means among finished trials, as the cells print them: of held-out and target forgetting too, for
    below 0 something was forgotten.
    """
    note = "brackets hold the 95 % interval"
    sheet = make_sheet(results, _points, note)
    trials = ranked((averaged(results) if has_seeds(results) else results).trials)
    best = _best(trials)
    rows = []
    for trial, row in zip(trials, sheet.rows, strict=True):
        cells = [_cell(column, cell, trial, best) for column, cell in zip(sheet.columns, row.cells, strict=True)]
        rows.append("    " + " & ".join(cells) + r" \\")
    shape = "".join("r" if column.numeric else "l" for column in sheet.columns)
    lines = [
        f"% lmmcl: {_comment(sheet.title)}",
        f"% needs {NEEDS}",
        r"\begin{table*}[t]",
        r"  \centering",
        rf"  \caption{{{_caption(sheet)}}}",
        rf"  \label{{tab:{_label(results.name)}}}",
        r"  \resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
        rf"  \begin{{tabular}}{{{shape}}}",
        r"    \toprule",
        "    " + " & ".join(escape_latex(column.heading) for column in sheet.columns) + r" \\",
        r"    \midrule",
        *rows,
        r"    \bottomrule",
        r"  \end{tabular}}",
        r"\end{table*}",
    ]
    return "\n".join(lines) + "\n"


def escape_latex(text: str) -> str:
    """Text that LaTeX prints as it is; characters that its text fonts lack are written by their number."""
    return "".join(SPECIAL.get(character) or _plain(character) for character in text)


def _plain(character: str) -> str:
    if character.isascii():
        return character if character.isprintable() else " "
    # Latin letters with accents are in every text font; others need a font that only the author can choose.
    return character if character.isalpha() and ord(character) < 0x180 else f"U+{ord(character):04X}"


def _points(value: float | None, interval: Interval | None) -> str:
    """Points with the ends of the interval beneath each other, in mathematics."""
    if value is None:
        return "--"
    if interval is None:
        return f"${formatting.points(value)}$"
    return rf"${formatting.points(value)}\;{{\scriptstyle[{formatting.points(interval[0])},\,{formatting.points(interval[1])}]}}$"


def _best(trials: Sequence[TrialResult]) -> Mapping[str, str]:
    """The largest value of each measure among the finished trials, as it is printed; none where all print alike."""
    best = {}
    for name in MEASURES:
        values = [value for trial in trials if trial.state == "done" and (value := trial.measure(name)) is not None]
        if len({formatting.points(value) for value in values}) > 1:
            best[formatting.label(name)] = formatting.points(max(values))
    return best


def _cell(column: Column, text: str, trial: TrialResult, best: Mapping[str, str]) -> str:
    if not text.startswith("$"):
        return r"$\star$" if text == STAR else escape_latex(text)
    value = text.strip("$").split(r"\;")[0]
    is_best = trial.state == "done" and best.get(column.heading) == value
    return text.replace(value, rf"\mathbf{{{value}}}", 1) if is_best else text


def _caption(sheet: Sheet) -> str:
    lines = [line for line in sheet.caption if not line.startswith("`lmmcl show`")]
    marked = "Bold: the largest mean of a column."
    return escape_latex(" ".join([*(line if line.endswith(".") else f"{line}." for line in lines), marked]))


def _label(name: str) -> str:
    """A label may hold letters, digits and a few signs."""
    return "".join(character if character.isascii() and character.isalnum() else "-" for character in name)


def _comment(text: str) -> str:
    return " ".join(text.split())
