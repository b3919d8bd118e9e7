"""A finished sweep, run again and again: what each rerun costs, and which files of the store it changes."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from holdings import Files

NOTHING = "0 steps computed"
SLOWER, LARGER = 1.5, 1.1
"""The most that the last rerun may cost in CPU seconds and in memory, as a multiple of the second one."""


def digests(folder: Path) -> dict[str, str]:
    """A hash of each file below a folder, by its name there."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def reruns(words: Sequence[str], folder: Path, environment: Mapping[str, str], times: int) -> None:
    """Run the command again and again; a line of JSON for each in `reruns.jsonl`."""
    before = digests(folder / "store")
    with (folder / "reruns.jsonl").open("w", encoding="utf-8") as file:
        for number in range(1, times + 1):
            figures = _rerun(words, folder, environment)
            after = digests(folder / "store")
            changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
            left = Files.below(folder / "tmp")
            file.write(json.dumps({"rerun": number, **figures, "changed": changed, "temporary": left.files}) + "\n")
            file.flush()
            before = after


def _rerun(words: Sequence[str], folder: Path, environment: Mapping[str, str]) -> dict[str, Any]:
    started, log = time.monotonic(), folder / "rerun.log"
    with log.open("w") as output:
        process = subprocess.Popen(list(words), cwd=folder, env=dict(environment), stdout=output, stderr=output)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    printed = log.read_text(encoding="utf-8", errors="replace")
    if process.returncode or NOTHING not in printed:
        raise SystemExit(f"a rerun ended with {process.returncode}:\n{printed[-3000:]}")
    cpu = used.ru_utime + used.ru_stime
    return {
        "seconds": round(time.monotonic() - started, 1),
        "cpu": round(cpu, 1),
        "megabytes": round(used.ru_maxrss / 1024),
    }


def rerun_table(folder: Path) -> tuple[list[str], list[str]]:
    """The table of `reruns.jsonl`, and what misses its bound."""
    rows = [json.loads(line) for line in (folder / "reruns.jsonl").read_text(encoding="utf-8").splitlines()]
    lines = [
        "| rerun | seconds | CPU s | memory, MiB | files of the store that changed | temporary files |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        changed = ", ".join(row["changed"][:4]) or "none"
        more = f" and {len(row['changed']) - 4} more" if len(row["changed"]) > 4 else ""
        figures = f"{row['seconds']} | {row['cpu']} | {row['megabytes']} | {changed}{more} | {row['temporary']}"
        lines.append(f"| {row['rerun']} | {figures} |")
    second, last = rows[min(1, len(rows) - 1)], rows[-1]
    missed = [f"rerun {row['rerun']} changed {', '.join(row['changed'])}" for row in rows if row["changed"]]
    if last["cpu"] > SLOWER * second["cpu"]:
        missed.append(f"reruns: the last took {last['cpu']} s CPU, the second {second['cpu']} s")
    if last["megabytes"] > LARGER * second["megabytes"]:
        missed.append(f"reruns: the last took {last['megabytes']} MiB, the second {second['megabytes']} MiB")
    if last["temporary"] > second["temporary"]:
        missed.append(f"reruns: temporary files grew from {second['temporary']} to {last['temporary']}")
    return lines, missed
