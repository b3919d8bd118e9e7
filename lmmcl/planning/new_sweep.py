"""`lmmcl init`: a commented sweep file for one model and one data file, tried before it is written."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from lmmcl.config.sweep import Sweep, build_sweep
from lmmcl.errors import UserError, unknown
from lmmcl.methods import get_recipe
from lmmcl.models import LMM, get_model
from lmmcl.models.sources.reference import is_path
from lmmcl.steps.count_trained import count_trained
from lmmcl.tasks.examples import Example
from lmmcl.tasks.files.check import check_file
from lmmcl.tasks.files.check_report import Report
from lmmcl.tasks.files.formats import parse_rows
from lmmcl.tasks.layouts.columns import columns_from_text
from lmmcl.tasks.metrics.metric import metric_names
from lmmcl.yaml_text import parse_yaml

FIRST = 200
"""Rows that are looked at: enough to tell the layout, the metric and folders that are wrong."""
SMALL = 100_000_000
"""Parameters up to which a model is trained as the embedded ones are: at high rates, in fp32, on a CPU."""
USUAL = ("sa_proj", "gate_up")
"""The recipes of LMM-CL that learn most of a skill for the least that is forgotten."""
METRICS = (
    ("letter", r"[A-Z]", "answers are option letters"),
    ("yes_no", r"(?i:yes|no)", "answers are yes or no"),
    ("clock", r"\d\d?:\d\d", "answers are times"),
    ("integer", r"\d+", "answers are whole numbers"),
)


@dataclass(frozen=True)
class Wishes:
    """What the command line said; what it left open is chosen by the data and the model."""

    model: str
    data: Path
    to: Path
    test: str | None = None
    images: Path | None = None
    columns: str | None = None
    question: str | None = None
    metric: str | None = None
    name: str | None = None
    recipes: Sequence[str] = ()
    held_out: Sequence[str] = ()


@dataclass(frozen=True)
class NewSweep:
    """The text of a sweep file, what it was tried with, and what it became."""

    text: str
    reports: Sequence[Report] = field(repr=False)
    sweep: Sweep


def new_sweep(wishes: Wishes) -> NewSweep:
    """The sweep file that fits the wishes, read back as `lmmcl run` would read it.

    Raises UserError for a model or a name that there is not, and with all that is wrong in the first rows of the data.
    """
    folder = wishes.to.absolute().parent
    model = get_model(wishes.model)
    reports = [_checked(path, wishes) for path in _files(wishes)]
    examples = _first_examples(wishes)
    text = _text(wishes, folder, model, examples)
    sweep = build_sweep(parse_yaml(text), file=str(wishes.to), folder=folder)
    return NewSweep(text, reports, sweep)


def _files(wishes: Wishes) -> list[Path]:
    """The data, and the test where that is a file of its own."""
    return [wishes.data, *([Path(wishes.test)] if wishes.test and _share(wishes.test) is None else [])]


def _share(test: str) -> float | None:
    """The share of the rows that is held back, where `test` is a number."""
    try:
        share = float(test)
    except ValueError:
        return None
    if not 0 < share < 1:
        raise UserError(f"is a file, or a share between 0 and 1, not {test}", place="--test")
    return share


def _checked(path: Path, wishes: Wishes) -> Report:
    columns = columns_from_text(wishes.columns, wishes.question)
    report = check_file(path, wishes.images, columns=columns, first=FIRST)
    if report.total:
        raise UserError(
            "\n".join(["", *report.lines(), "Nothing was written; `lmmcl data check` looks at all rows."]),
            file=str(path),
        )
    return report


def _first_examples(wishes: Wishes) -> list[Example]:
    columns = columns_from_text(wishes.columns, wishes.question)
    rows = islice(parse_rows(wishes.data, wishes.images, columns), FIRST)
    return [row.example for row in rows if row.example is not None]


def guess_metric(examples: Sequence[Example]) -> tuple[str, str]:
    """The metric that fits the answers, and why."""
    if sum(len(example.references) > 1 for example in examples) * 2 > len(examples):
        return "vqa_soft", "questions have several accepted answers"
    for metric, pattern, why in METRICS:
        if all(re.fullmatch(pattern, example.target.strip()) for example in examples):
            return metric, why
    longest = max(len(example.target.split()) for example in examples)
    if longest <= 5:
        return "exact_match", "answers are short"
    return ("anls", "answers are phrases") if longest <= 20 else ("cider", "answers are sentences")


def _text(wishes: Wishes, folder: Path, model: LMM, examples: Sequence[Example]) -> str:
    name = wishes.name or re.sub(r"[^A-Za-z0-9_.-]+", "-", wishes.data.stem).strip("-._") or "mine"
    large = (total := sum(model.role_counts().values())) > SMALL
    head = [
        f"# {name}: what {_shown(wishes.model)} learns of {wishes.data.name}, and what it forgets. Made by `lmmcl init`.",
        f"#   lmmcl plan {_shown(wishes.to)}    what will be computed, its memory and bytes",
        f"#   lmmcl run {_shown(wishes.to)}     trains, evaluates, prints the table, writes the page",
    ]
    precision = "bf16" if large else "fp32"
    rest = [
        ("training:", ""),
        ("  epochs: 1", ""),
        (f"  global_batch_size: {16 if large else 8}", "the same on any number of GPUs"),
        (f"  precision: {precision}", ""),
        (f"evaluation: {{precision: {precision}}}", "limit: 500 asks a fixed sample of each benchmark"),
        ("grids:", "all combinations of these lists"),
        (f"  - model: [{_model(wishes.model, folder)}]", f"{total:,} parameters"),
        (
            f"    recipe: {_list(_recipes(wishes, model))}",
            f"which parameters train: lmmcl show model {_shown(wishes.model)}",
        ),
        (f"    learning_rate: {'[1.0e-5, 5.0e-6]' if large else '[1.0e-3, 3.0e-4]'}", ""),
        ("    mitigation: [null]", "or {wise_ft: {alpha: 0.5}}: what protects the old (lmmcl list mitigations)"),
        ("    seed: [0]", ""),
    ]
    lines = [("name: " + name, ""), *_skill(name, wishes, folder, examples), *_asked(wishes, large), *rest]
    return "\n".join([*head, *(f"{line:<38}  # {comment}" if comment else line for line, comment in lines)]) + "\n"


def _skill(name: str, wishes: Wishes, folder: Path, examples: Sequence[Example]) -> list[tuple[str, str]]:
    """The skill, with lines for what the data needs."""
    if wishes.metric and wishes.metric not in metric_names():
        raise UserError(unknown("metric", wishes.metric, metric_names()), place="--metric")
    metric, why = (wishes.metric, "as you chose") if wishes.metric else guess_metric(examples)
    longest = max(len(example.target.split()) for example in examples)
    share = _share(wishes.test or "0.1")
    by = ", by: picture" if any(example.images for example in examples) else ""
    test = f"{{share: {share:g}{by}}}" if share else _path(Path(str(wishes.test)), folder)
    held = "held back from the training rows; or a file" if share else ""
    tokens = max(16, 16 * -(-longest // 8))
    return [
        ("orders:", ""),
        (f"  main: [{name}]", "skills in the order in which they are taught"),
        ("skills:", ""),
        (f"  {name}:", ""),
        (f"    train: {_path(wishes.data, folder)}", ""),
        *((line, "") for line in _optional(wishes, folder)),
        (f"    test: {test}", held),
        (f"    metric: {metric}", f"{why}; others: lmmcl list metrics"),
        (f"    max_new_tokens: {tokens}", f"of an answer; the longest of {len(examples)} rows: {_words(longest)}"),
    ]


def _asked(wishes: Wishes, large: bool) -> list[tuple[str, str]]:
    such = "[mmstar, ai2d], after `lmmcl data prepare mmstar ai2d`" if large else "[colour, shape]"
    return [
        ("benchmarks:", "asked after every stage, to see what is forgotten"),
        (f"  held_out: {_list(wishes.held_out)}", f"such as {such} (lmmcl list benchmarks)"),
    ]


def _words(number: int) -> str:
    return "1 word" if number == 1 else f"{number} words"


def _recipes(wishes: Wishes, model: LMM) -> list[str]:
    """Those that were named, else the usual ones that the model has."""
    if wishes.recipes:
        return list(wishes.recipes)
    recipes = []
    for name in (*USUAL, "mlp", "lora"):
        try:
            count_trained(get_recipe(name), model)
        except UserError:  # a model without gates, for example
            continue
        recipes.append(name)
    return recipes[:2]


def _optional(wishes: Wishes, folder: Path) -> list[str]:
    lines = []
    if wishes.images is not None:
        lines.append(f"    images: {_path(wishes.images, folder)}")
    if wishes.columns:
        pairs: dict[str, list[str]] = {}
        for part in wishes.columns.split(","):
            ours, _, theirs = (side.strip() for side in part.partition("="))
            pairs.setdefault(ours, []).append(theirs)
        columns = [
            f"{ours}: {_shown(theirs[0]) if len(theirs) == 1 else _list(theirs)}" for ours, theirs in pairs.items()
        ]
        lines.append(f"    columns: {{{', '.join(columns)}}}")
    if wishes.question:
        lines.append(f"    question: {json.dumps(wishes.question, ensure_ascii=False)}")
    return lines


def _path(path: Path, folder: Path) -> str:
    """As the sweep file names it: relative to its folder."""
    return _shown(Path(os.path.relpath(path.absolute(), folder)).as_posix())


def _model(name: str, folder: Path) -> str:
    """A model that is a directory by its path from the sweep file's folder; others as they were named."""
    directory = Path(name).expanduser()
    if not is_path(name) or not directory.is_dir():
        return _shown(name)
    path = Path(os.path.relpath(directory.absolute(), folder)).as_posix()
    return _shown(path if path.startswith(".") else f"./{path}")


def _list(names: Sequence[str]) -> str:
    return f"[{', '.join(map(_shown, names))}]"


def _shown(text: Any) -> str:
    """A text as YAML, quoted where it has to be."""
    plain = str(text)
    return plain if re.fullmatch(r"[A-Za-z./~][\w./@~+-]*", plain) else json.dumps(plain, ensure_ascii=False)
