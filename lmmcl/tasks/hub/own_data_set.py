"""A data set of the hub that a sweep names by id: known by its commit, fetched once, read offline afterwards.

`{hub: owner/name, split: train}` stands for the rows of one commit. A branch or tag (default: main) is resolved by the hub once and
its commit remembered in the data folder, so that a sweep stays the same when the branch moves on; the commit enters the key.
`lmmcl data prepare SWEEP` fetches the rows and writes them as examples with their images' own bytes (`hub_rows.py`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lmmcl.atomic_files import write_text
from lmmcl.errors import UserError
from lmmcl.tasks.examples import Example
from lmmcl.tasks.files.fingerprints import Fingerprints, prepared_fingerprints
from lmmcl.tasks.files.formats import READER_VERSION
from lmmcl.tasks.files.prepared import PreparedExamples
from lmmcl.tasks.hub import client
from lmmcl.tasks.hub.hub_data import COMMIT, data_folder
from lmmcl.tasks.images import DECODING
from lmmcl.tasks.layouts.columns import AS_NAMED, Columns
from lmmcl.tasks.layouts.row_layouts import LAYOUTS

MAIN = "main"


@dataclass(frozen=True)
class HubPiece:
    """The rows of one split of a data set at one commit; `command` is what fetches them."""

    hub: str
    split: str
    config: str | None
    commit: str
    columns: Columns = AS_NAMED
    revision: str | None = field(default=None, compare=False)
    command: str = field(default="lmmcl data prepare SWEEP", compare=False)

    @property
    def name(self) -> str:
        return f"{self.hub} ({self.split})"

    @property
    def place(self) -> str:
        """What messages call it, with its commit."""
        return f"data set {self.hub} at revision {self.commit}, split {self.split}"

    def identity(self) -> dict[str, Any]:
        """What enters a key: the commit, and what turns its rows into examples."""
        return {
            "hub": self.hub,
            "config": self.config,
            "split": self.split,
            "revision": self.commit,
            "reader": READER_VERSION,
            "layouts": LAYOUTS,
            "decoding": DECODING,
            **self.columns.identity(),
        }

    def file(self, folder: Path | None = None) -> Path:
        """The prepared file."""
        name = hashlib.sha256(json.dumps(self.identity(), sort_keys=True).encode()).hexdigest()[:16]
        return _folder(self.hub, folder) / f"{self.split.replace('/', '_')}-{name}.parquet"

    def known_rows(self) -> None:
        """Not settled by the identity."""
        return

    def missing(self) -> str | None:
        file = self.file()
        if file.is_file():
            return None
        return f"{file} does not exist; fetch it on a machine with a network: `{self.command}` (LMMCL_DATA names the folder)"

    def notes(self) -> tuple[str, ...]:
        if self.revision is None:
            return ()
        return (
            f"{self.hub}: revision {self.revision!r} is commit {self.commit} here; `revision: {self.commit}` pins it",
        )

    def load(self) -> Sequence[Example]:
        if (why := self.missing()) is not None:
            raise UserError(why, file=self.place)
        return PreparedExamples(self.file())

    def fingerprints(self) -> Fingerprints | None:
        return None if self.missing() else prepared_fingerprints(self.file())


def hub_piece(
    hub: str,
    split: str,
    *,
    config: str | None = None,
    revision: str | None = None,
    columns: Columns = AS_NAMED,
    command: str = "lmmcl data prepare SWEEP",
) -> HubPiece:
    """The rows of a split; a branch or tag stands for the commit that it was when it was first asked for.

    Raises UserError where the hub has no such data set or revision, or cannot be asked.
    """
    if hub.count("/") != 1 or not all(hub.split("/")):
        raise UserError(f"the id of a data set of the hub has the form owner/name, not {hub!r}", place="hub")
    if revision is not None and COMMIT.fullmatch(revision):
        return HubPiece(hub, split, config, revision, columns, None, command)
    wanted = revision or MAIN
    return HubPiece(hub, split, config, _commit(hub, wanted), columns, wanted, command)


def _commit(hub: str, revision: str) -> str:
    """The commit of a branch or tag, remembered in the data folder."""
    file = _folder(hub) / "revisions.json"
    known: dict[str, str] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    if revision in known:
        return known[revision]
    commit = client.Hub(data_folder() / "downloads").commit(hub, revision)
    if commit is None:
        raise UserError(
            f"the commit of revision {revision!r} is not known on this machine, and HF_HUB_OFFLINE keeps it from being asked for; "
            "name a commit (`revision: 40 hexadecimal digits`), or read the sweep once with a network",
            file=f"data set {hub}",
        )
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, json.dumps({**known, revision: commit}, indent=1) + "\n")
    return commit


def _folder(hub: str, folder: Path | None = None) -> Path:
    return (folder or data_folder()) / "hub" / hub.replace("/", "--")
