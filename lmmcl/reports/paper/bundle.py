"""A zip from which somebody else repeats a sweep: its file, the keys of its steps, versions, scores, and the commands."""

from __future__ import annotations

import shlex
import zipfile
from collections.abc import Mapping
from pathlib import Path

from lmmcl.atomic_files import replacing
from lmmcl.ledger.provenance import NUMBERS
from lmmcl.reports.results import SweepResults
from lmmcl.reports.tables import export
from lmmcl.search.run_context import RunContext

EPOCH = (1980, 1, 1, 0, 0, 0)
"""The time of every member: the same results give the same bytes."""


def write_bundle(context: RunContext, results: SweepResults, path: Path, texts: Mapping[str, str]) -> None:
    """Write `path`, with `texts` (by file name; `sweep.json` is the sweep as understood) besides what every bundle holds.

    No weights: keys say what must come out.

    `versions` are those with which the stages were computed. Data and model files of the user are not copied; their digests
    are in the keys, so other data give other keys.
    """
    file = Path(context.sweep.file)
    name = file.name if file.is_file() else "sweep.yaml"
    members = {
        "README.md": _readme(context, name),
        "requirements.txt": _requirements(context),
        "report.json": export.as_json(results),
        "trials.csv": export.as_csv(results),
        **texts,
    }
    if file.is_file():
        members[name] = file.read_text(encoding="utf-8")
    with replacing(path) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as bundle:
        for member, text in sorted(members.items()):
            bundle.writestr(zipfile.ZipInfo(member, EPOCH), text.encode("utf-8"), zipfile.ZIP_DEFLATED)


def _readme(context: RunContext, name: str) -> str:
    sweep = context.sweep
    options = " ".join(f"--set {shlex.quote(override)}" for override in sweep.overrides)
    run = " ".join(filter(None, ["lmmcl run", shlex.quote(name), options]))
    own = sorted(
        {skill.name for trial in sweep.trials for skill in trial.skills}
        | {benchmark.name for trial in sweep.trials for benchmark in trial.benchmarks}
    )
    return f"""# {sweep.name}

    pip install -r requirements.txt
    {run}

`sweep.json` holds every trial as it was understood, with the keys of its steps. A key is a hash of all that decides a
result: model and revision, data (digests of files), recipe, mitigation, settings, seed. If `lmmcl plan` shows the same keys,
the sweep is the same experiment; scores may still
differ by rounding between processors. `report.json` and `trials.csv` hold the scores.

Skills and benchmarks: {", ".join(own)}. Files of your own that the sweep file names must lie where it says; they are not in here.
"""


def _requirements(context: RunContext) -> str:
    """Exact versions as the records of the fine-tunes tell them; where they differ among stages, all are listed."""
    by_package: dict[str, set[str]] = {}
    commits: set[str] = set()
    for trial in context.sweep.trials:
        for stage in trial.stages:
            record = context.ledger.find(stage.tuned) if stage.tuned else None
            provenance = (record.fields.get("provenance") or {}) if record else {}
            for package in ("lmmcl", *NUMBERS):
                if provenance.get(package):
                    # a local build (`+cpu`) is on no index
                    by_package.setdefault(package, set()).add(str(provenance[package]).split("+")[0])
            if provenance.get("commit"):
                commits.add(str(provenance["commit"]))
    lines = [f"# lmmcl at commit {commit}" for commit in sorted(commits)]
    for package, versions in by_package.items():
        first, *others = sorted(versions)
        lines += [f"{package}=={first}", *(f"# some stages: {package}=={other}" for other in others)]
    return "\n".join(lines or ["# no stage is recorded yet"]) + "\n"
