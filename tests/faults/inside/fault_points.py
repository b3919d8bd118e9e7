"""Points of a run at which a test may strike, in whichever process reaches them, and a log of them that outlives a kill.

Set up in each process of a disturbed run: in a forked child by `follow_loaded`, in the processes of Ray by `follow_imports`. A point
is counted over all processes of a life (a run from its start to its end or death); a strike names a point and a count.
"""

from __future__ import annotations

import fcntl
import functools
import importlib.abc
import importlib.util
import json
import os
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fault_deeds import DEEDS

ROOM = "LMMCL_FAULTS"
"""A folder; the link `life` in it leads to the folder of the life that runs now."""


class Life:
    """The folder of one life as its processes see it: what is to strike when, and the log."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._strikes = json.loads((folder / "strikes.json").read_text())
        pause = folder / "pause"
        self.pause = float(pause.read_text()) if pause.exists() else 0.0
        """Seconds that each update takes longer."""

    def hit(self, point: str, key: str, facts: dict[str, Any]) -> None:
        """Log that a point was reached, and strike where that is wanted now."""
        if point == "begins":
            (self.folder / "command").write_text(str(os.getpid()))
        number = self._count(point, {"point": point, "key": key, **facts})
        for strike in self._strikes:
            if strike["point"] == point and strike["number"] == number:
                self._log({"point": "strike", "of": point, "number": number, "deed": strike["deed"]})
                DEEDS[strike["deed"]](self.folder, **strike["more"])

    def _count(self, point: str, line: dict[str, Any]) -> int:
        """How often the point was reached in this life, this time included; counted and logged at once."""
        counter = os.open(self.folder / f"count-{point.replace(' ', '-')}", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        try:
            fcntl.flock(counter, fcntl.LOCK_EX)
            os.write(counter, b".")
            number = os.fstat(counter).st_size
            self._log({**line, "number": number})
        finally:
            os.close(counter)
        return number

    def _log(self, line: dict[str, Any]) -> None:
        log = os.open(self.folder / "log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(
            log, json.dumps({"process": os.getpid(), "cpu": round(time.process_time(), 3), **line}).encode() + b"\n"
        )
        os.close(log)


_NOW: list[Life] = []


def hit(point: str, key: str = "", **facts: Any) -> None:
    """This process has reached a point."""
    if not _NOW:  # a process that Ray started ahead of time belongs to the life in which it first does something
        _NOW.append(Life(Path(os.environ[ROOM], "life").resolve()))
    _NOW[0].hit(point, key, facts)


def around(
    owner: Any, name: str, before: str | None, after: str | None, key: Callable[..., str] = lambda *_: ""
) -> None:
    """Have a function or method hit points before and after; wherever our modules have imported it already, too."""
    original = getattr(owner, name)

    @functools.wraps(original)
    def wrapped(*arguments: Any, **more: Any) -> Any:
        if before:
            hit(before, key(*arguments))
        result = original(*arguments, **more)
        if after:
            hit(after, key(*arguments))
        return result

    _replace(owner, name, original, wrapped)


def _replace(owner: Any, name: str, original: Any, wrapped: Any) -> None:
    setattr(owner, name, wrapped)
    if isinstance(owner, type):
        return
    for module in [module for place, module in sys.modules.items() if place.startswith("lmmcl.")]:
        for attribute, value in list(vars(module).items()):
            if value is original:
                setattr(module, attribute, wrapped)


def _follow_command(module: Any) -> None:
    around(module, "claim_label", None, "labelled")
    around(module, "write_report", "report", "report written")
    around(module, "note_shown", None, "noted")
    around(module, "run_and_report", "begins", "ended")


def _follow_run(module: Any) -> None:
    around(module.ProgressReporter, "begin", "checked", None)
    around(module, "pack_finished", "packs", "packed")


def _follow_leases(module: Any) -> None:
    take, release = module.Leases._take, module.Leases._release

    def taken(self: Any, key: str, mine: Any) -> bool:
        got = take(self, key, mine)
        if got and key != module.MAINTENANCE:
            hit("claimed", key)
        return bool(got)

    def released(self: Any, key: str, mine: Any) -> None:
        hit("releases", key) if key != module.MAINTENANCE else None
        release(self, key, mine)
        hit("released", key) if key != module.MAINTENANCE else None

    module.Leases._take, module.Leases._release = taken, released


def _follow_ledger(module: Any) -> None:
    around(module.Ledger, "writing", "writes", None, lambda self, step, *_: step.key)


def _follow_pending(module: Any) -> None:
    around(module, "publish", "unpublished", "published", lambda ledger, step, folder: step.key)
    published = module.publish

    def publish(ledger: Any, step: Any, folder: Any) -> Any:
        result = published(ledger, step, folder)
        if step.kind == "finetune":
            hit("stage published", step.key)
        return result

    _replace(module, "publish", published, publish)


def _follow_store(module: Any) -> None:
    around(module.Store, "put", None, "put")
    create = module.Store.create

    def created(self: Any, name: str, content: bytes) -> bool:
        new = create(self, name, content)
        if name.endswith("/record.json"):
            hit("record put")
        return bool(new)

    module.Store.create = created


def _follow_loop(module: Any) -> None:
    from lmmcl.training.recovery.checksums import WriteChecksums
    from lmmcl.training.recovery.preemption import SaveOnPreemption  # which every stage has

    train, step_end, save = module.train_stage, SaveOnPreemption.on_step_end, WriteChecksums.on_save
    now: dict[str, str] = {}

    def trained(job: Any, *arguments: Any) -> Any:
        now.update(key=job.key, attempt=uuid.uuid4().hex)
        fields = train(job, *arguments)
        hit("trained", job.key)
        return fields

    def stepped(self: Any, args: Any, state: Any, control: Any, **more: Any) -> Any:
        if state.is_world_process_zero:
            hit("update", **now, update=state.global_step, trainer=type(self._workers).__name__)
            time.sleep(_NOW[0].pause)
        return step_end(self, args, state, control, **more)

    def saved(self: Any, args: Any, state: Any, control: Any, **more: Any) -> Any:
        hit("saving", now["key"], update=state.global_step)
        result = save(self, args, state, control, **more)
        hit("saved", now["key"], update=state.global_step)
        return result

    _replace(module, "train_stage", train, trained)
    SaveOnPreemption.on_step_end, WriteChecksums.on_save = stepped, saved  # type: ignore[method-assign]


def _follow_evaluation(module: Any) -> None:
    from lmmcl.evaluation.partial_answers import PartialAnswers

    keep = PartialAnswers.keep

    def kept(self: Any, answers: Any) -> Iterator[Any]:
        for pair in keep(self, answers):
            hit("answer", self._file.parent.name)
            yield pair

    PartialAnswers.keep = kept  # type: ignore[method-assign]
    around(module, "ask_benchmark", "asks", None, lambda step, *_: step.key)
    around(module, "record_answers", "answered", None, lambda answers, *_: answers.step.key)


FOLLOWED: dict[str, Callable[[Any], None]] = {
    "lmmcl.runner.command": _follow_command,
    "lmmcl.runner.run": _follow_run,
    "lmmcl.reports.page.page": lambda module: around(module, "write_page", None, "page written"),
    "lmmcl.ledger.packs.packing": lambda module: around(module, "_write", None, "pack written"),
    "lmmcl.ledger.leases": _follow_leases,
    "lmmcl.ledger.ledger": _follow_ledger,
    "lmmcl.ledger.pending_record": _follow_pending,
    "lmmcl.ledger.store": _follow_store,
    "lmmcl.training.stage.loop": _follow_loop,
    "lmmcl.evaluation.evaluate": _follow_evaluation,
}


def follow_loaded() -> None:
    """Set the points in modules that are loaded already; all of them must be."""
    for name, follow in FOLLOWED.items():
        follow(sys.modules[name])


def follow_imports() -> None:
    """Set the points in modules as they are imported."""
    sys.meta_path.insert(0, _Follower())


class _Follower(importlib.abc.MetaPathFinder):
    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        if name not in FOLLOWED:
            return None
        sys.meta_path.remove(self)
        try:
            spec = importlib.util.find_spec(name)
        finally:
            sys.meta_path.insert(0, self)
        assert spec is not None and spec.loader is not None
        execute = spec.loader.exec_module

        def executed(module: Any) -> None:
            execute(module)
            FOLLOWED[name](module)

        spec.loader.exec_module = executed  # type: ignore[method-assign]
        return spec
