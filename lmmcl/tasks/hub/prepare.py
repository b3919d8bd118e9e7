"""`lmmcl data prepare`: fetch, convert, check, and write each part of a skill or benchmark once.

A part is put in its place only when all of it was converted and every image was decoded. Downloads are kept, so the same
command after an interruption continues; what is prepared already at this version is not done again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

from lmmcl.errors import UserError, unknown
from lmmcl.tasks import benchmark_names, get_benchmark, get_skill, skill_names
from lmmcl.tasks.examples import Example
from lmmcl.tasks.files.check import check_file
from lmmcl.tasks.files.prepared import PreparedWriter, about
from lmmcl.tasks.hub.client import Hub
from lmmcl.tasks.hub.hub_data import TEST, TRAIN, HubBenchmark, HubSkill, HubSource, data_folder, prepared_file
from lmmcl.tasks.images import TOO_LARGE, ImageSource, TooManyPixels, inspect_image
from lmmcl.tasks.metrics.metric import Metric, get_metric

SAMPLED = 64
"""Examples looked at before the first is written, to learn the types of their metadata."""
SHOWN = 5
"""Bad rows that an error names."""


@dataclass(frozen=True)
class Part:
    """The training or test half of a skill, or a benchmark."""

    name: str
    part: str
    version: int
    source: HubSource
    metric: Metric | None = None


@dataclass
class Outcome:
    """What became of a part: rows written, rows left out and why (`dead link`, …), the commit that was read."""

    part: Part
    file: Path
    written: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    commit: str | None = None
    fresh: bool = True

    def __str__(self) -> str:
        if not self.fresh:
            return f"{self.part.name} {self.part.part}: {self.written} rows, prepared already"
        out = ", ".join(f"{count} left out: {why}" for why, count in sorted(self.left_out.items()))
        return f"{self.part.name} {self.part.part}: {self.written} rows to {self.file}" + (f" ({out})" if out else "")


def parts_of(name: str) -> list[Part]:
    """The parts of a skill (train and test) or benchmark (test); raises UserError for a name without data to prepare."""
    known = [*skill_names(), *benchmark_names()]
    if name not in known:
        raise UserError(unknown("skill or benchmark", name, known))
    skill = get_skill(name) if name in skill_names() else None
    benchmark = skill.benchmark if skill is not None else get_benchmark(name)
    parts = []
    if isinstance(skill, HubSkill):
        parts.append(Part(name, TRAIN, skill.version, skill.source))
    if isinstance(benchmark, HubBenchmark):
        parts.append(Part(benchmark.name, TEST, benchmark.version, benchmark.source, get_metric(benchmark.metric)))
    if not parts:
        raise UserError(f"{name} ships with the package and needs no preparation")
    return parts


def prepare(
    names: Iterable[str],
    hub: Hub,
    folder: Path | None = None,
    *,
    again: bool = False,
    say: Callable[[str], object] = print,
) -> list[Outcome]:
    """Prepare all parts of `names` below `folder`; raises UserError at the first that cannot be had, keeping the others.

    `say` gets each outcome as it comes. `again` prepares data again that is there already.
    """
    parts = list(dict.fromkeys(part for name in names for part in parts_of(name)))
    outcomes = []
    for part in parts:
        outcome = prepare_part(part, hub, folder or data_folder(), again=again)
        say(str(outcome))
        outcomes.append(outcome)
    return outcomes


def prepare_part(part: Part, hub: Hub, folder: Path, *, again: bool = False) -> Outcome:
    """Fetch, convert, check and write one part, unless it is there at this version."""
    file = prepared_file(part.name, part.part, folder)
    if not again and file.is_file() and (facts := about(file)).get("version") == part.version:
        return Outcome(part, file, written=facts["rows"], commit=facts["commit"], fresh=False)
    known = None if part.source.elsewhere else hub.commit(part.source.hub, part.source.revision)
    outcome = Outcome(part, file, commit=known)
    source = replace(part.source, revision=outcome.commit or part.source.revision)  # a branch stays what it is now
    examples = converted(source, hub, part, outcome)
    first = list(islice(examples, SAMPLED))
    if not first:
        raise UserError(f"no usable row in {source.hub}, split {source.split}", place=f"{part.name} {part.part}")
    writer = PreparedWriter(file, metadata_types(first))
    try:
        for example in chain(first, examples):
            writer.add(example)
        outcome.written = writer.count
        check_written(writer.finish(facts_of(part, outcome)), part)
        writer.close()
    finally:
        writer.discard()
    return outcome


def facts_of(part: Part, outcome: Outcome) -> dict[str, Any]:
    """What a prepared file says of itself."""
    return {
        "name": part.name,
        "part": part.part,
        "version": part.version,
        **part.source.identity(),
        "commit": outcome.commit,
        "licence": part.source.licence,
        "rows": outcome.written,
        "left_out": dict(outcome.left_out),
    }


def converted(source: HubSource, hub: Hub, part: Part, outcome: Outcome) -> Iterator[Example]:
    """The examples of a source with different ids; what is left out is counted in `outcome`."""
    seen: Counter[str] = Counter()
    for number, row in enumerate(source.all_rows(hub), start=1):
        if (why := row.get("left_out")) is not None:  # a joined source says so itself: a dead link, a missing image
            outcome.left_out[why] += 1
            continue
        try:
            example = source.read(row)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            columns = ", ".join(map(str, row))
            raise UserError(
                f"does not have the form expected of {source.hub}: {type(error).__name__}: {error}; its columns: {columns}",
                place=f"{part.name} {part.part}, row {number}",
            ) from error
        if example is None:
            outcome.left_out["not asked"] += 1
            continue
        if (why := unusable(example, part.metric)) is not None:
            outcome.left_out[why] += 1
            continue
        seen[example.id] += 1
        yield example if seen[example.id] == 1 else replace(example, id=f"{example.id}#{seen[example.id]}")


def unusable(example: Example, metric: Metric | None) -> str | None:
    """Why an example can be neither taught nor asked; None for a sound one."""
    if not all(message.content.strip() for message in example.messages):
        return "an empty question or answer"
    if any(_is_too_large(image) for image in example.images):
        return TOO_LARGE
    if metric is None:
        return None
    try:
        right = metric.score(example.references[0], example) > 0
    except UserError:
        right = False
    return None if right else f"its own answer is not scored 1 by {metric.name}"


def _is_too_large(image: ImageSource) -> bool:
    """Whether an image has too many pixels to be shown; what else may be wrong with it is found when the part is checked."""
    try:
        inspect_image(image)
    except UserError as error:
        return isinstance(error, TooManyPixels)
    return False


def metadata_types(examples: Sequence[Example]) -> dict[str, type]:
    """The type of each metadata field, told by the first examples."""
    types: dict[str, type] = {}
    for example in examples:
        for name, value in example.metadata.items():
            types.setdefault(name, type(value))
    return types


def check_written(file: Path, part: Part) -> None:
    """Read the file back and decode every image; raises UserError that names the first bad rows."""
    problems = check_file(file).problems
    if problems:
        examples = "; ".join(map(str, problems[:SHOWN]))
        raise UserError(f"{len(problems)} problems after conversion: {examples}", place=f"{part.name} {part.part}")


def data_rows() -> list[dict[str, Any]]:
    """Every part that can be prepared: name, part, hub id, revision, licence, note, and rows prepared here (or None)."""
    names = [*skill_names(), *benchmark_names()]
    tasks = [get_skill(name) if name in skill_names() else get_benchmark(name) for name in names]
    from_hub = [task for task in tasks if isinstance(task, HubSkill | HubBenchmark)]
    parts = dict.fromkeys(part for task in from_hub for part in parts_of(task.name))
    rows = []
    for part in parts:
        file = prepared_file(part.name, part.part)
        facts = about(file) if file.is_file() else {}
        rows.append(
            {
                "name": part.name,
                "part": part.part,
                **part.source.identity(),
                "pinned": part.source.pinned,
                "licence": part.source.licence,
                "note": part.source.note,
                "rows": facts.get("rows") if facts.get("version") == part.version else None,
            }
        )
    return rows
