"""What the parts of a ledger need of the whole: a protocol, so that they do not import it."""

from __future__ import annotations

from typing import Protocol

from lmmcl.ledger.node import Node
from lmmcl.ledger.packs.packed_files import PackedFiles
from lmmcl.ledger.record import Record
from lmmcl.ledger.store import Store
from lmmcl.steps import Step


class LedgerAccess(Protocol):
    """The records and files of one store, as `lmmcl.ledger.Ledger` offers them."""

    @property
    def store(self) -> str:
        """A folder or a URI."""

    @property
    def deferred_key(self) -> str:
        """The key of a checkpoint that waits on this node for its upload; empty where none does."""

    @property
    def files(self) -> Store:
        """The files of the store."""

    @property
    def packs(self) -> PackedFiles:
        """What is in packs."""

    @property
    def node(self) -> Node:
        """This node's folder for the store, where that is elsewhere."""

    @property
    def is_local(self) -> bool:
        """Whether the store is a folder of this machine's file system (NFS included)."""

    def find(self, step: Step) -> Record | None:
        """The record of `step`, or None."""

    def read(self, path: str) -> Record | None:
        """The record in the folder `path` below the store, or None."""

    def has_usable(self, step: Step) -> bool:
        """Whether `step` is recorded and, where it ends in weights, these were not dropped."""

    def upload(self, step: Step) -> Record:
        """Publish what waits on this node."""

    def quarantine(self, path: str) -> None:
        """Rename the record in the folder `path`, so that its step is computed again."""
