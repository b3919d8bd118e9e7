"""What a person finds beside the numbers in MLflow: where a run came from, and its answers."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lmmcl import strict_json
from lmmcl.atomic_files import replacing
from lmmcl.config.sweep import Sweep
from lmmcl.masking import mask
from lmmcl.private_api import mlflow_private
from lmmcl.reports.flips import ANSWERED
from lmmcl.reports.page.question_pictures import Pictures
from lmmcl.reports.report_records import rows_of
from lmmcl.reports.results import TrialResult
from lmmcl.search.run_context import RunContext
from lmmcl.steps.single_model import why_no_single_model
from lmmcl.steps.trial import Trial
from lmmcl.tasks.skills import Benchmark

FIRST, WRONG = 32, 32
"""Rows of a benchmark in a table of answers: its first questions, and further ones that were answered wrongly."""
PICTURE_BYTES = 20_000_000
SAMPLES = "samples.json"
COLUMNS = ["benchmark", "id", "question", "wanted", "before", "after", "score"]


def trial_tags(trial: TrialResult, store: str, *, exportable: bool = True) -> dict[str, str]:
    """Tags and the note (Markdown) of a trial's run: its steps' keys and the commands that continue from it."""
    if not trial.stages:
        return {}
    steps = {str(stage.number): stage.checkpoint_key for stage in trial.stages}
    at = shlex.quote(mask(store))
    export = f"lmmcl export {trial.stages[-1].checkpoint_key} --to DIR --store {at}"
    lines = [f"- stage {stage.number} {stage.skill or 'before'}: `{stage.checkpoint_key}`" for stage in trial.stages]
    commands = [export] if exportable else []
    note = ["```", *commands, f"lmmcl show {trial.stages[-1].checkpoint_key} --store {at}", "```", "", *lines]
    tags = {"lmmcl.export": export} if exportable else {}
    return {"lmmcl.steps": json.dumps(steps), **tags, mlflow_private.NOTE_TAG: "\n".join(note)}


class Answers:
    """Tables of answers of one sweep, read from the ledger when they are logged."""

    def __init__(self, context: RunContext) -> None:
        self._context, self._ledger = context, context.ledger
        self._trials: dict[str, Trial] = {}
        self._base: dict[str, list[dict[str, Any]]] = {}

    def extras(self, result: TrialResult) -> tuple[dict[str, str], dict[str, str]]:
        """(tags, tables by artifact name) of a trial; no table before its last stage has been asked."""
        trial = self._trial(result.key)
        plain = trial is None or why_no_single_model(trial.stages[-1].checkpoint) is None
        tags = trial_tags(result, self._ledger.store, exportable=plain)
        tags |= self._made_by(trial, len(result.stages) - 1) if trial and result.stages else {}
        if trial is None or (len(result.stages) < len(trial.stages) and not result.stopped):
            return tags, {}
        last = len(result.stages) - 1
        rows = [row for benchmark in trial.benchmarks for row in self.rows(trial, benchmark, last)]
        return tags, {SAMPLES: strict_json.dumps({"columns": COLUMNS, "data": rows})} if rows else {}

    def _made_by(self, trial: Trial, last: int) -> dict[str, str]:
        """Commit and versions with which the `last` stage was made, as tags; what its record does not tell is left out."""
        record = self._ledger.find(trial.stages[last].checkpoint)
        provenance = dict(record.fields.get("provenance") or {}) if record else {}
        tags = {"mlflow.source.git.commit": provenance.pop("commit", None) or ""}
        versions = {
            name: version for name, version in provenance.items() if name not in ("host", "started", "finished")
        }
        tags["lmmcl.versions"] = json.dumps(versions) if versions else ""
        return {name: text for name, text in tags.items() if text}

    def _trial(self, key: str) -> Trial | None:
        if key not in self._trials:  # searched for once, not for each trial of thousands; searches propose more
            self._trials = {trial.key: trial for trial in self._context.sweep.trials}
        return self._trials.get(key)

    def rows(self, trial: Trial, benchmark: Benchmark, last: int = -1) -> list[list[Any]]:
        """The first questions and some of those answered wrongly: what was said before the first stage and after the `last`."""
        paths = [
            step.path
            for stage in (trial.stages[0], trial.stages[last])
            for step in stage.evaluations
            if step.benchmark.name == benchmark.name
        ]
        if paths[0] not in self._base:
            self._base[paths[0]] = rows_of(self._ledger, paths[0], "samples.jsonl")
        before = {row["id"]: row["prediction"] for row in self._base[paths[0]]}
        after = rows_of(self._ledger, paths[1], "samples.jsonl")
        wrong = [row for row in after[FIRST:] if row["score"] < ANSWERED][:WRONG]
        return [
            [
                benchmark.name,
                row["id"],
                row["question"],
                " / ".join(map(str, row["references"])),
                before.get(row["id"], ""),
                row["prediction"],
                row["score"],
            ]
            for row in [*after[:FIRST], *wrong]
        ]


def write_answers(context: RunContext, folder: Path, keys: Sequence[str]) -> Path | None:
    """A folder of tables with pictures, one for each benchmark: what the trials of `keys` answered, side by side.

    Picture paths are those of MLflow's tables, as seen from the artifacts of the run that holds the folder. None without answers.
    """
    with replacing(folder) as partial:  # tables of an earlier run that no longer belong are gone with the folder
        _write_tables(context, partial, folder.name, keys)
    return folder if folder.is_dir() else None


def _write_tables(context: RunContext, folder: Path, name: str, keys: Sequence[str]) -> None:
    answers, pictures = Answers(context), Pictures(PICTURE_BYTES)
    trials = [trial for trial in context.sweep.trials if trial.key in keys]
    for benchmark in {item.name: item for trial in trials for item in trial.benchmarks}.values():
        asked = [trial for trial in trials if benchmark.name in {item.name for item in trial.benchmarks}]
        by_trial = {trial.name: {row[1]: row for row in answers.rows(trial, benchmark)} for trial in asked}
        rows = {id: row for answered in by_trial.values() for id, row in answered.items()}
        if rows:
            _write_table(folder, name, benchmark, rows, by_trial, pictures)


def _write_table(
    folder: Path,
    name: str,
    benchmark: Benchmark,
    rows: Mapping[str, list[Any]],
    by_trial: Mapping[str, Mapping[str, list[Any]]],
    pictures: Pictures,
) -> None:
    label = benchmark.name.replace("/", ".")
    images = folder / "images" / label
    images.mkdir(parents=True, exist_ok=True)
    data = []
    for number, (id, row) in enumerate(rows.items()):
        picture = pictures.bytes_of(benchmark, id)
        cell: Any = None
        if picture is not None:
            content, kind = picture
            (images / f"{number}.{kind}").write_bytes(content)
            path = f"{name}/images/{label}/{number}.{kind}"
            cell = {"type": "image", "filepath": path, "compressed_filepath": path}
        predictions = [answered[id][5] if id in answered else None for answered in by_trial.values()]
        data.append([cell, *row[1:5], *predictions])
    table = {"columns": ["image", "id", "question", "wanted", "before", *by_trial], "data": data}
    (folder / f"{label}.json").write_text(strict_json.dumps(table), encoding="utf-8")


def resolved(sweep: Sweep) -> str:
    """The sweep as it was understood, as JSON: every trial with its grid point, settings and the keys of its steps."""
    trials = [
        {
            "name": trial.name,
            "key": trial.key,
            "axes": dict(trial.axes),
            "skills": [skill.name for skill in trial.skills],
            "targets": [[benchmark.name for benchmark in skill.benchmarks] for skill in trial.skills],
            "held_out": [benchmark.name for benchmark in trial.held_out],
            "training": trial.training.model_dump(mode="json"),
            "evaluation": trial.evaluation.model_dump(mode="json"),
            **({"by_stage": _by_stage(trial)} if trial.by_stage else {}),
            "steps": {str(stage.number): stage.checkpoint.key for stage in trial.stages},
            "fine_tunes": {str(stage.number): stage.tuned.key for stage in trial.stages if stage.tuned},
        }
        for trial in sweep.trials
    ]
    search = sweep.search.model_dump(mode="json", exclude_none=True)
    content = {"name": sweep.name, "file": sweep.file, "set": sweep.overrides, "search": search, "trials": trials}
    return json.dumps(content, indent=1, default=str)


def _by_stage(trial: Trial) -> dict[str, Any]:
    """What is in force at the stages whose settings differ from the grid point's."""
    return {
        str(number): {
            "recipe": settings.recipe.name,
            "mitigation": settings.mitigation.label if settings.mitigation else None,
            "training": settings.training.model_dump(mode="json"),
        }
        for number, settings in trial.by_stage.items()
    }
