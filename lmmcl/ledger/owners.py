"""Owners: processes, alive or gone, and the private folders that name the process which writes them."""

from __future__ import annotations

import os
import re
import socket
import time
from contextlib import suppress
from functools import cache
from pathlib import Path

STALE = 7 * 24 * 3600.0
"""Seconds after which what nobody changed, and nobody is known to work on, is taken for forgotten."""

_PRIVATE = re.compile(r"(?:lmmcl-)?(?P<key>[^-]+)-(?P<owner>.+)-(?P<pid>\d+)-[^-]+(?:-replaced)?")


@cache
def host_id() -> str:
    """This machine since it was started, and the room of processes (container) on it: where a process number means the same."""
    parts = [socket.gethostname()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return " ".join(parts)


def alive(pid: int, born: str = "") -> bool:
    """Whether the process is there, is not a zombie, and (where the system tells) is the one that was started at `born`."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    now = start_time(pid)
    return now is None or (now != "" and born in ("", now))


def start_time(pid: int) -> str | None:
    """When a process was started, in ticks since the machine was; empty for a zombie, None where the system does not tell."""
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return None
    return "" if after_name[0] in "ZX" else after_name[19]


def private_name(key: str) -> str:
    """How the name of a folder begins in which this process writes the step `key`."""
    return f"{key}-{_owner()}-{os.getpid()}-"


def key_of(folder: Path) -> str:
    """The key of the step that a private folder, or one named like a step, is for."""
    return folder.name.removeprefix("lmmcl-").split("-")[0]


def is_written(folder: Path) -> bool | None:
    """Whether the process that made a private folder is alive; None where that cannot be known from here."""
    match = _PRIVATE.fullmatch(folder.name)
    if match is None or match["owner"] != _owner():
        return None
    return alive(int(match["pid"]))


def is_stale(folder: Path) -> bool:
    """Whether nothing in `folder` has changed for a week."""
    times = []
    for path in (folder, *folder.rglob("*")):
        with suppress(FileNotFoundError):
            times.append(path.stat().st_mtime)
    return bool(times) and time.time() - max(times) > STALE


@cache
def _owner() -> str:
    """This host and its room of processes: unlike `host_id` the same after a restart, when what was written there is abandoned."""
    room = ""
    with suppress(OSError):
        room = "." + Path("/proc/self/ns/pid").readlink().name.strip("pid:[]")
    return f"{socket.gethostname()}{room}"
