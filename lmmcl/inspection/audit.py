"""Walk a store and tell what is damaged: records that cannot be read, files that are missing or differ."""

from __future__ import annotations

from collections import Counter
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from typing import Any

from lmmcl.inspection.store_check import check_packs, check_steps
from lmmcl.ledger import ASIDE, Ledger
from lmmcl.ledger.index.view import damaged_segments
from lmmcl.ledger.packs.packed_files import FOLDER as PACKS
from lmmcl.ledger.packs.packed_files import SUFFIX
from lmmcl.ledger.packs.packing import maintenance, rewrite
from lmmcl.ledger.record import KINDS, RECORD
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
    with maintenance(ledger) if repair else nullcontext():
        _check_records(ledger, audit, repair=repair)
        for name, why in damaged_segments(ledger.files):
            audit.damages.append(Damage(name, why))
            if repair:
                ledger.files.remove(name)
        for name, why in find_damaged(ledger.files):
            audit.damages.append(Damage(name, why))
            if repair:
                quarantine(ledger.files, name)
    return audit


def _check_records(ledger: Ledger, audit: Audit, *, repair: bool) -> None:
    files = {f"{kind}/{name}": size for kind in (*KINDS, PACKS) for name, size in ledger.sizes(kind).items()}
    packs = sorted(name for name in files if name.startswith(f"{PACKS}/") and name.endswith(SUFFIX))
    audit.bytes = sum(files.values())
    folders = {name.rsplit("/", 1)[0] for name in files if name.endswith(f"/{RECORD}")}
    aside = {name.rsplit("/", 1)[0] for name in files if name.endswith(f"/{ASIDE}")}
    damaged_packs = set()
    checked = list(check_steps(ledger, sorted(folders)))
    for pack in check_packs(ledger, packs, files):
        checked += pack.steps
        if pack.damage:
            audit.damages.append(Damage(pack.name, pack.damage))
        if pack.damage or any(step.damages for step in pack.steps):
            damaged_packs.add(pack.name)
    folders |= {step.path for step in checked}
    started = {name.rsplit("/", 1)[0] for name in files if name.endswith("/step.json")}
    known = folders | aside
    inside = {folder for folder in started if folder.rsplit("/", 1)[0] in known}  # uploads of a step
    audit.unfinished = sorted((started | aside) - folders - inside)
    for step in sorted(checked, key=lambda step: (KINDS.index(step.path.split("/")[0]), step.path)):
        audit.damages += [Damage(step.path, why) for why in step.damages]
        if step.path.startswith("checkpoints/") and not folders.issuperset(step.parents):
            audit.orphans.append(step.path)
        audit.records[step.kind] += 1
        audit.dropped += not step.has_weights
        if step.damages and repair:
            ledger.quarantine(step.path)
    for name in sorted(damaged_packs) if repair else ():
        rewrite(ledger, name)
