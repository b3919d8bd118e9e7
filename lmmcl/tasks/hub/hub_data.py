"""Skills and benchmarks whose rows come from the hub: prepared once as parquet files below a data folder, then read offline.

A source names a data set of the hub at a revision, and a function that turns one of its rows into an Example.
`lmmcl data prepare` (prepare.py) writes `<data folder>/<name>/<part>.parquet`: rows of messages with embedded images, a
form that `lmmcl data check` and `read_examples` know too. The data folder is LMMCL_DATA, else `data` in the user's cache
folder; on a cluster it lies on storage that every node sees. The folder is not in any key: name, version, hub id and revision are.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmmcl.errors import UserError
from lmmcl.tasks.examples import Example
from lmmcl.tasks.files.digest import cache_folder
from lmmcl.tasks.files.fingerprints import Fingerprints, prepared_fingerprints
from lmmcl.tasks.files.prepared import PreparedExamples, about
from lmmcl.tasks.images import DECODING
from lmmcl.tasks.skills import Benchmark, Skill

if TYPE_CHECKING:
    from lmmcl.tasks.hub.client import Hub

Row = Mapping[str, Any]
"""A row in the data set's own schema: images as {"bytes", "path"}, a class label as its name (its number: `<column>_id`)."""

TRAIN, TEST = "train", "test"
COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class HubSource:
    """A split of a data set of the hub, and how its rows become Examples.

    `read` turns a row into an Example; None leaves the row out. `rows` replaces the plain rows of the split where a data set
    needs more than that (a join, an archive, images behind URLs). `note` says what was taken on trust. `elsewhere`: `hub` names
    a data set that is not on the hub, so that only a local copy will do.
    """

    hub: str
    split: str
    read: Callable[[Row], Example | None]
    revision: str = "main"
    config: str | None = None
    licence: str = ""
    note: str = ""
    elsewhere: bool = False
    rows: Callable[[Hub, HubSource], Iterator[Row]] | None = None

    @property
    def pinned(self) -> bool:
        """Whether the revision is a commit, which never changes; a branch may."""
        return COMMIT.fullmatch(self.revision) is not None

    def identity(self) -> dict[str, Any]:
        """What enters a key."""
        return {"hub": self.hub, "config": self.config, "split": self.split, "revision": self.revision}

    def all_rows(self, hub: Hub) -> Iterator[Row]:
        """The rows, fetched; raises UserError when the hub does not give them."""
        if self.rows is not None:
            return self.rows(hub, self)
        return hub.rows(self.hub, self.split, config=self.config, revision=self.revision)


@dataclass(frozen=True)
class HubBenchmark(Benchmark):
    """A benchmark of the hub."""

    source: HubSource = field(kw_only=True, compare=False)

    def identity(self) -> dict[str, Any]:
        """What of this enters a step's key."""
        return {**super().identity(), "data": {**self.source.identity(), "decoding": DECODING}}

    def missing(self) -> str | None:
        return missing(self.name, TEST, self.version)

    def fingerprints(self) -> Fingerprints | None:
        return None if self.missing() else prepared_fingerprints(prepared_file(self.name, TEST))


@dataclass(frozen=True)
class HubSkill(Skill):
    """A skill of the hub. Its benchmark may be of another source."""

    source: HubSource = field(kw_only=True, compare=False)

    def identity(self) -> dict[str, Any]:
        """What of this enters a step's key."""
        return {**super().identity(), "data": {**self.source.identity(), "decoding": DECODING}}

    def missing(self) -> str | None:
        return missing(self.name, TRAIN, self.version)

    def fingerprints(self) -> Fingerprints | None:
        return None if self.missing() else prepared_fingerprints(prepared_file(self.name, TRAIN))


def hub_benchmark(name: str, version: int, metric: str, source: HubSource, **more: Any) -> HubBenchmark:
    """A benchmark whose questions are prepared from `source`; `more` are other fields of Benchmark."""
    load = partial(load_prepared, name, TEST, version)
    return HubBenchmark(name=name, version=version, metric=metric, load=load, source=source, **more)


def hub_skill(name: str, version: int, source: HubSource, benchmark: Benchmark, description: str) -> HubSkill:
    """A skill whose training examples are prepared from `source`."""
    load = partial(load_prepared, name, TRAIN, version)
    return HubSkill(name=name, version=version, load=load, source=source, benchmark=benchmark, description=description)


def data_folder() -> Path:
    """Where prepared data lies: LMMCL_DATA, else `data` in the user's cache folder."""
    named = os.environ.get("LMMCL_DATA")
    return Path(named) if named else cache_folder() / "data"


def prepared_file(name: str, part: str, folder: Path | None = None) -> Path:
    """The parquet file of one part (`train` or `test`) of a skill or benchmark."""
    return (folder or data_folder()) / name / f"{part}.parquet"


def load_prepared(name: str, part: str, version: int) -> PreparedExamples:
    """The examples of a prepared part; raises UserError with the command that prepares it."""
    if (why := missing(name, part, version)) is not None:
        raise UserError(why)
    return PreparedExamples(prepared_file(name, part))


def missing(name: str, part: str, version: int) -> str | None:
    """Why a part cannot be read, and the command that fetches it; None when it can."""
    file = prepared_file(name, part)
    if not file.is_file():
        why = f"{file} is not there"
    elif (prepared := about(file).get("version")) != version:
        why = f"{file} was made by version {prepared} of its prompts, this is version {version}"
    else:
        return None
    return f"the {part} data of {name} is not prepared: {why}; fetch it with `lmmcl data prepare {name}`"


def check_prepared(tasks: Iterable[Skill | Benchmark]) -> None:
    """Raises one UserError that names all data still to be fetched, and one command that fetches it.

    What that command does not fetch (the data of lmms-eval) is described in sentences of its own.
    """
    ours: dict[str, str] = {}
    others: dict[str, str] = {}
    for task in tasks:
        if (why := task.missing()) is not None:
            (ours if isinstance(task, HubSkill | HubBenchmark) else others)[task.name] = why
    problems = list(ours.values())
    if len(ours) > 1:
        problems = [
            f"the data of {len(ours)} skills and benchmarks is not prepared: {', '.join(ours)}; fetch it where there is "
            f"a network with `lmmcl data prepare {' '.join(ours)}` (LMMCL_DATA names the folder, now {data_folder()})"
        ]
    if problems or others:
        raise UserError("\n".join([*problems, *others.values()]))
