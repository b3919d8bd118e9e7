"""Imported by each Python process of a simulated node: its host has a name of its own, and what it does with the store is written down.

`LMMCL_NODE` is that name; the folder `LMMCL_NODE_NOTES` gets a line in `computed` for each step that is begun, and at the end of the
process the operations on files below `LMMCL_NODE_STORE` (a local store) by what they are, as `operations-<process>.json`.
"""

from __future__ import annotations

import atexit
import importlib.abc
import importlib.util
import json
import os
import socket
import sys
from collections import Counter
from typing import Any

NODE, NOTES, STORE = "LMMCL_NODE", "LMMCL_NODE_NOTES", "LMMCL_NODE_STORE"
EVENTS = {
    "os.listdir": "list",
    "os.scandir": "list",
    "os.rename": "rename",
    "os.link": "link",
    "os.remove": "remove",
    "os.mkdir": "make folder",
    "os.rmdir": "remove folder",
}
operations: Counter[str] = Counter()


def count(kind: str, path: Any) -> None:
    """Count an operation on a file of the store, by its kind and the folder of the store that it is in."""
    root = os.environ[STORE]
    if isinstance(path, bytes):
        path = path.decode(errors="replace")
    text = str(path)
    if text.startswith(root):
        operations[f"{kind} {text.removeprefix(root).strip('/').split('/')[0] or '.'}"] += 1


def audit(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and not isinstance(arguments[0], int):
        writes = bool(arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)) if isinstance(arguments[2], int) else False
        count("write" if writes else "read", arguments[0])
    elif event in EVENTS and arguments:
        count(EVENTS[event], arguments[0])


def follow_files() -> None:
    stat = os.stat

    def counted(path: Any, *arguments: Any, **more: Any) -> os.stat_result:
        if not isinstance(path, int):
            count("stat", path)
        return stat(path, *arguments, **more)

    os.stat = counted
    sys.addaudithook(audit)

    def keep() -> None:
        with open(os.path.join(os.environ[NOTES], f"operations-{os.getpid()}.json"), "w") as file:  # noqa: PTH118, PTH123
            json.dump(dict(operations), file)

    atexit.register(keep)


def follow_ledger(module: Any) -> None:
    """Write down each step that begins to be computed; a line is out of the process at once."""
    writing = module.Ledger.writing

    def noted(self: Any, step: Any, folder: Any = None) -> Any:
        line = f"{os.environ[NODE]}\t{step.key}\t{step.kind}\n"
        notes = os.open(os.path.join(os.environ[NOTES], "computed"), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)  # noqa: PTH118
        os.write(notes, line.encode())
        os.close(notes)
        return writing(self, step, folder)

    module.Ledger.writing = noted


class Follower(importlib.abc.MetaPathFinder):
    """Has the ledger followed once it is imported."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        if name != "lmmcl.ledger.ledger":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        assert spec is not None and spec.loader is not None
        plain = spec.loader.exec_module

        def execute(module: Any) -> None:
            plain(module)
            follow_ledger(module)

        spec.loader.exec_module = execute  # type: ignore[method-assign]
        return spec


if NODE in os.environ:
    socket.gethostname = lambda: os.environ[NODE]
    sys.meta_path.insert(0, Follower())
    if os.environ.get(STORE):
        follow_files()
