"""Walk a store and tell what is damaged: records that cannot be read, files that are missing or differ."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from lmmcl.ledger import ASIDE, Ledger
from lmmcl.ledger.index.view import damaged_segments
from lmmcl.ledger.record import KINDS, RECORD, DamagedError, Record, decode_record
from lmmcl.ledger.side_files import find_damaged, quarantine


@dataclass(frozen=True)
class Damage:
    """One thing that is wrong with the step in `path`."""

    path: str
    why: str

    def __str__(self) -> str:
        return f"{self.path}: {self.why}"


@dataclass
class Audit:
    """What a walk found. `unfinished` are folders without a record, `orphans` checkpoints whose parent has none: both
    harmless, for what is missing is computed when it is asked for."""

    records: Counter[str] = field(default_factory=Counter)
    bytes: int = 0
    dropped: int = 0
    damages: list[Damage] = field(default_factory=list)
    unfinished: list[str] = field(default_factory=list)
    orphans: list[str] = field(default_factory=list)
    repaired: bool = False

    def to_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {**asdict(self), "records": dict(self.records)}

    def summary(self) -> str:
        """One line."""
        counts = ", ".join(f"{number} {kind}" for kind, number in sorted(self.records.items())) or "no records"
        more = f", {self.dropped} without weights" if self.dropped else ""
        state = f"{len(self.damages)} damaged, {len(self.unfinished)} unfinished, {len(self.orphans)} without parent"
        return f"{counts}{more}; {state}{self._remedy()}"

    def _remedy(self) -> str:
        if not self.damages:
            return ""
        if self.repaired:
            return "; quarantined: the next run of their sweeps computes or writes them again"
        return "; --repair quarantines them, so that the next run of their sweeps computes or writes them again"


def check_store(ledger: Ledger, *, repair: bool = False) -> Audit:
    """Read every file of every record, and the sealed ones beside them; with `repair`, what is damaged is quarantined.

    Raises UserError where there is no store.
    """
    ledger.check_exists()
    audit = Audit(repaired=repair)
    for kind in KINDS:
        files = ledger.sizes(kind)
        names = {f"{kind}/{name}" for name in files}
        audit.bytes += sum(files.values())
        folders = {name.rsplit("/", 1)[0] for name in names if name.endswith(f"/{RECORD}")}
        started = {name.rsplit("/", 1)[0] for name in names if name.endswith("/step.json")}
        aside = {name.rsplit("/", 1)[0] for name in names if name.endswith(f"/{ASIDE}")}
        inside = {folder for folder in started if folder.rsplit("/", 1)[0] in folders | aside}  # uploads of a step
        audit.unfinished += sorted((started | aside) - folders - inside)
        for path in sorted(folders):
            reasons = list(_damages(ledger, path))
            audit.damages += [Damage(path, why) for why in reasons]
            record = ledger.read(path)
            if record and kind == "checkpoints" and not folders.issuperset(record["parents"]):
                audit.orphans.append(path)
            audit.records[record["kind"] if record else "unreadable"] += 1
            audit.dropped += bool(record and not record.has_weights)
            if reasons and repair:
                ledger.quarantine(path)
    for name, why in damaged_segments(ledger.files):
        audit.damages.append(Damage(name, why))
        if repair:
            ledger.files.remove(name)
    for name, why in find_damaged(ledger.files):
        audit.damages.append(Damage(name, why))
        if repair:
            quarantine(ledger.files, name)
    return audit


def _damages(ledger: Ledger, path: str) -> Iterator[str]:
    try:
        record = Record(path, decode_record(ledger.files.read(f"{path}/{RECORD}")))
    except FileNotFoundError:  # quarantined a moment ago, by a run
        return
    except ValueError as error:
        yield f"{RECORD} {error}"
        return
    if not path.endswith(f"-{record['key']}"):
        yield f"its record is of {record['key']}"
    yield from _file_damages(ledger, record)


def _file_damages(ledger: Ledger, record: Record) -> Iterator[str]:
    for name in record.files:
        try:
            with ledger.opened(record.path, name, quarantine=False) as file:
                if name == "step.json" and json.loads(file.read_text(encoding="utf-8"))["key"] != record["key"]:
                    yield "step.json is of another step"
        except DamagedError as error:
            yield f"{name} {error.message}"
