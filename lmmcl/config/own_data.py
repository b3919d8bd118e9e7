"""From the entries of a sweep file to the data of your own: paths are resolved, patterns expanded, files read for their digests."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from lmmcl.config.data_entries import JudgeEntry, LocalBenchmarkEntry, LocalSkillEntry, SourceEntry, SplitEntry
from lmmcl.config.sweep_file import SweepFile
from lmmcl.config.validation import join, read_yaml, validate
from lmmcl.errors import UserError
from lmmcl.models.sources.text_model import judge_model
from lmmcl.tasks.files.local_files import LocalBenchmark, LocalSkill, own_benchmark, own_skill
from lmmcl.tasks.hub.own_data_set import HubPiece, hub_piece
from lmmcl.tasks.layouts.columns import Columns, columns_of
from lmmcl.tasks.metrics.judge import PROMPT, Judge, LocalJudge
from lmmcl.tasks.sources.collection import Collection
from lmmcl.tasks.sources.pieces import Piece, file_piece
from lmmcl.tasks.sources.split import Split

Part = Literal["train", "test"]


class OwnData:
    """Makes the skills and benchmarks that a sweep file declares; every error says where in the file."""

    def __init__(self, file: str, folder: Path) -> None:
        self._file, self._folder = file, folder

    def benchmark(self, name: str, entry: LocalBenchmarkEntry, place: str) -> LocalBenchmark:
        """A benchmark of its own."""
        data = Collection(tuple(self._pieces(entry.test, entry, join(place, "test"), "test")), part="test")
        return self._benchmark(name, data, entry, place)

    def skill(self, name: str, entry: LocalSkillEntry, place: str) -> LocalSkill:
        """A skill with its benchmark, which may be a part of its training rows."""
        split = Split(**entry.test.model_dump()) if isinstance(entry.test, SplitEntry) else None
        train = tuple(self._pieces(entry.train, entry, join(place, "train"), "train"))
        if isinstance(entry.test, SplitEntry):
            test = Collection(tuple((piece, 1.0) for piece, _ in train), split, "test")
        else:
            test = Collection(tuple(self._pieces(entry.test, entry, join(place, "test"), "test")), part="test")
        taught = Collection(train, split, "train")
        with self._at(join(place, "test")):
            taught.check_split()
        return own_skill(name, taught, self._benchmark(name, test, entry, place))

    def _benchmark(
        self, name: str, data: Collection, entry: LocalBenchmarkEntry | LocalSkillEntry, place: str
    ) -> LocalBenchmark:
        with self._at(place):
            metric = entry.metric if isinstance(entry.metric, str) else self._judge(entry.metric.judge)
            return own_benchmark(name, data, metric=metric, max_new_tokens=entry.max_new_tokens)

    def _judge(self, entry: JudgeEntry) -> Judge:
        """A judge behind an address is known by its name, a local one by its content."""
        local = None if entry.address else LocalJudge(judge_model(entry.model, self._folder), entry.precision)
        model_id = {**local.model.identity(), "precision": entry.precision} if local else entry.model
        return Judge(
            label=local.model.name if local else entry.model,
            model_id=json.dumps(model_id, sort_keys=True),
            prompt=entry.prompt or PROMPT,
            max_new_tokens=entry.max_new_tokens,
            address=entry.address or "",
            key_variable=entry.key_variable or "",
            local=local,
            ask_twice=entry.ask_twice,
            most_unreadable=entry.most_unreadable,
            at_once=entry.at_once,
            timeout_s=entry.timeout_s,
        )

    def _pieces(
        self, sources: Sequence[SourceEntry], entry: LocalBenchmarkEntry | LocalSkillEntry, place: str, part: Part
    ) -> Iterator[tuple[Piece, float]]:
        single = len(sources) == 1
        for number, source in enumerate(sources):
            where = place if single else join(place, number)
            with self._at(where):
                columns = _columns(source, entry)
                if source.hub is not None:
                    yield self._hub(source, columns), source.weight
                    continue
            images = self._images(source, entry, place, where)
            files = self._files(source.file or "", where)
            unique = part == "test" and single and len(files) == 1
            for file in files:
                with self._at(where):
                    yield file_piece(file, images, unique_ids=unique, columns=columns), source.weight

    def _hub(self, source: SourceEntry, columns: Columns) -> HubPiece:
        command = f"lmmcl data prepare {shlex.quote(self._file or 'SWEEP')}"
        named = {"config": source.config, "revision": source.revision}
        return hub_piece(source.hub or "", source.split or "", columns=columns, command=command, **named)

    def hub_pieces(self, entries: Iterable[LocalBenchmarkEntry | LocalSkillEntry]) -> Iterator[HubPiece]:
        """All data sets of the hub that entries name."""
        for entry in entries:
            train = entry.train if isinstance(entry, LocalSkillEntry) else []
            test = [] if isinstance(entry.test, SplitEntry) else entry.test
            for source in (*train, *test):
                if source.hub is not None:
                    yield self._hub(source, _columns(source, entry))

    def _images(
        self, source: SourceEntry, entry: LocalBenchmarkEntry | LocalSkillEntry, place: str, where: str
    ) -> Path | None:
        named = source.images if source.images is not None else entry.images
        if named is None:
            return None
        path = (self._folder / named).absolute()
        at = where if source.images is not None else place.rpartition(".")[0]
        if not path.exists():
            raise UserError(f"{path} does not exist", file=self._file, place=join(at, "images"))
        return path

    def _files(self, name: str, where: str) -> list[Path]:
        """The file of this name, or all that a pattern stands for, by name."""
        path = (self._folder / name).absolute()
        if not path.exists() and not is_pattern(name):
            raise UserError(f"{path} does not exist", file=self._file, place=where)
        files = [path] if path.exists() else expand(path)
        if not files:
            raise UserError(f"no file is called {path}", file=self._file, place=where)
        return files

    @contextmanager
    def _at(self, place: str) -> Iterator[None]:
        try:
            yield
        except UserError as error:
            raise UserError(str(error), file=self._file, place=place) from error


def _columns(source: SourceEntry, entry: LocalBenchmarkEntry | LocalSkillEntry) -> Columns:
    """Those of the source, else those of the skill."""
    mapping = source.columns if source.columns is not None else entry.columns
    return columns_of(mapping, source.question if source.question is not None else entry.question)


def is_pattern(name: str) -> bool:
    """Whether a name stands for several files."""
    return any(mark in name for mark in "*?[")


def expand(path: Path) -> list[Path]:
    """The files that a path with `*`, `?` or `[…]` stands for."""
    anchor = Path(path.anchor)
    return sorted(match for match in anchor.glob(str(path.relative_to(anchor))) if match.is_file())


def hub_pieces_of(path: Path) -> list[HubPiece]:
    """The data sets of the hub that a sweep file names, once each; nothing else of the file is resolved."""
    entry = validate(SweepFile, read_yaml(path), file=str(path))
    pieces = OwnData(str(path), path.parent).hub_pieces([*entry.skills.values(), *entry.benchmarks.own.values()])
    return list(dict.fromkeys(pieces))
