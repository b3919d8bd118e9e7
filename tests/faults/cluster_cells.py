"""The cells of runs on a Ray cluster, in worker groups and as jobs: several faults strike one store, in chains of lives.

A life on a cluster costs a dozen times one in a single process, most of it for importing libraries. So what a run survives by itself
strikes one life, fault after fault, and what ends a run strikes life after life in one store.
"""

from __future__ import annotations

from dataclasses import dataclass

from fault_cells import PHASES, Cell, signal_at
from fault_lives import Strike

START, FIRST, STAGE, CLAIM, ASKING, UPLOAD, REPORT, END = PHASES
WORKER, ACTOR, DRIVER, COMMAND = "", "ray::StepsActor", "ray::ImplicitFunc", "command"
KILLED, ASKED_TO_END = (-9,), (130,)
FAILED = (1, -9, 137, 247)
"""How `lmmcl submit` ends when its job was killed."""


@dataclass(frozen=True)
class Life:
    """One life of a chain: how it runs, and what strikes it. The codes of its last cell say how it may end."""

    mode: str
    cells: tuple[Cell, ...] = ()

    @property
    def codes(self) -> tuple[int, ...]:
        return self.cells[-1].codes if self.cells else (0,)


@dataclass(frozen=True)
class Chain:
    """Lives in one store, one after another; if the last of them does not end well, an undisturbed one follows.

    `trials` is how many of the sweep's trials are run, `interval` bounds the updates that one try makes again, `pause` is added to
    each update (seconds). Where it is not exact, a worker group trains: the order of its sums is another, and so are the last bits of weights.
    """

    name: str
    lives: tuple[Life, ...]
    trials: int = 2
    interval: int = 3
    pause: float = 0.0
    is_exact: bool = True

    @property
    def cells(self) -> list[Cell]:
        return [cell for life in self.lives for cell in life.cells]


def chains() -> list[Chain]:
    """All of them."""
    return [
        Chain("a run on Ray that survives", (Life("Ray", _survived("Ray")),)),
        Chain("a run on Ray that is ended", _ended("Ray", KILLED)),
        Chain("one process and Ray in one store", _mixed()),
        Chain("worker groups and others in one store", _mixed_with_groups(), 1, GROUP_INTERVAL, 0.7, is_exact=False),
        Chain(
            "a worker group that survives", (Life("worker group", _group()),), 1, GROUP_INTERVAL, 0.7, is_exact=False
        ),
        Chain("a job that survives", (Life("job", _job()),)),
        Chain("a job that is ended", _ended("job", FAILED)),
    ]


def small_chain() -> Chain:
    """A worker group that loses a worker and then its command, and the job that continues, for the slow suite: not of the table."""
    group, job = _group()[1], _job()[2]
    strike = (signal_at("SIGKILL", "stage published", 1, COMMAND),)
    ended = Cell("SIGKILL of the command", CLAIM, "worker group", "a stage in its place, still claimed", strike, KILLED)
    return Chain(
        "a worker group and then a job", (Life("worker group", (group, ended)), Life("job", (job,))), 1, GROUP_INTERVAL, 0.7, is_exact=False
    )  # fmt: skip


GROUP_INTERVAL = 3 + 3
"""A worker group resumes from the newest checkpoint that Ray Train knows of, and it asks every two seconds: three updates more."""


def _survived(mode: str) -> tuple[Cell, ...]:
    def kill(what: str, phase: str, place: str, point: str, number: int, to: str) -> Cell:
        return Cell(f"SIGKILL of the {what}", phase, mode, place, (signal_at("SIGKILL", point, number, to),))

    return (
        kill("computing process", FIRST, "written whole, not in its place", "unpublished", 1, WORKER),
        kill("asking process", ASKING, "answer 14 of the run", "answer", 14, WORKER),
        kill("computing process", STAGE, "update 5 of the run", "update", 5, WORKER),
        kill("steps actor", STAGE, "update 12 of the run", "update", 12, ACTOR),
        kill("driver of a trial", STAGE, "update 17 of the run", "update", 17, DRIVER),
        kill("computing process", CLAIM, "record 9 in its place, still claimed", "published", 9, WORKER),
        kill("driver of a trial", ASKING, "answer 71 of the run", "answer", 71, DRIVER),
        Cell(
            "SIGTERM of the computing process",
            STAGE,
            mode,
            "update 23 of the run",
            (signal_at("SIGTERM", "update", 23),),
        ),
        Cell("out of memory", STAGE, mode, "update 28 of the run", (Strike("update", 28, "out of memory"),)),
        kill("steps actor", CLAIM, "claim 16 taken", "claimed", 16, ACTOR),
        kill("computing process", STAGE, "a stage trained, not recorded", "trained", 4, WORKER),
        kill("steps actor", ASKING, "answer 120 of the run", "answer", 120, ACTOR),
    )


def _ended(mode: str, codes: tuple[int, ...]) -> tuple[Life, ...]:
    def end(name: str, phase: str, place: str, point: str, number: int = 1) -> Life:
        ends = codes if name == "SIGKILL" else (*ASKED_TO_END, *(codes if mode == "job" else ()))
        return Life(
            mode,
            (Cell(f"{name} of the command", phase, mode, place, (signal_at(name, point, number, COMMAND),), ends),),
        )

    return (
        end("SIGKILL", START, "all is checked, nothing begun", "checked"),
        end("SIGKILL", FIRST, "record 1 in its place", "published"),
        end("SIGKILL", STAGE, "update 7 of the life", "update", 7),
        end("SIGTERM", STAGE, "update 5 of the life", "update", 5),
        end("SIGINT" if mode == "Ray" else "SIGTERM", ASKING, "answer 14 of the life", "answer", 14),
        end("SIGKILL", CLAIM, "record 3 of the life in its place", "published", 3),
        end("SIGKILL", REPORT, "all is recorded, nothing packed", "packs"),
        end("SIGKILL", END, "before the process ends", "ended"),
    )


def _handed_over(
    mode: str, to: str, name: str, phase: str, place: str, point: str, number: int, codes: tuple[int, ...] = KILLED
) -> Life:
    """A life that ends, after which the store is another mode's."""
    strike = (signal_at(name, point, number, COMMAND),)
    return Life(
        mode, (Cell(f"{name}, then another mode", phase, "mixed", f"{mode}, then {to}: {place}", strike, codes),)
    )


def _mixed() -> tuple[Life, ...]:
    end = _handed_over
    return (
        end("inline", "Ray", "SIGKILL", STAGE, "update 5 of the life", "update", 5),
        end("Ray", "inline", "SIGTERM", STAGE, "update 4 of the life", "update", 4, ASKED_TO_END),
        end("inline", "Ray", "SIGKILL", CLAIM, "claim 6 of the life taken", "claimed", 6),
        end("Ray", "inline", "SIGKILL", ASKING, "answer 14 of the life", "answer", 14),
        end("inline", "Ray", "SIGKILL", REPORT, "all is recorded, nothing packed", "packs", 1),
        Life("Ray"),
    )


def _mixed_with_groups() -> tuple[Life, ...]:
    end, group = _handed_over, "worker group"
    return (
        end("inline", group, "SIGKILL", STAGE, "update 5 of the life", "update", 5),
        end(group, "inline", "SIGKILL", ASKING, "answer 4 of the life", "answer", 4),
        end("inline", group, "SIGKILL", CLAIM, "claim 2 of the life taken", "claimed", 2),
        end(group, "Ray", "SIGKILL", STAGE, "update 7 of the life", "update", 7),
        end("Ray", group, "SIGKILL", REPORT, "all is recorded, nothing packed", "packs", 1),
        Life(group),
    )


def _group() -> tuple[Cell, ...]:
    def kill(what: str, phase: str, place: str, point: str, number: int, to: str) -> Cell:
        return Cell(f"SIGKILL of the {what}", phase, "worker group", place, (signal_at("SIGKILL", point, number, to),))

    return (
        kill("asking process", ASKING, "answer 14 of the run", "answer", 14, WORKER),
        kill("group's worker", STAGE, "update 7 of the run", "update", 7, WORKER),
        kill("steps actor", STAGE, "update 11 of the run", "update", 11, ACTOR),
        kill(
            "process that waits for the group",
            CLAIM,
            "a stage in its place, still claimed",
            "stage published",
            1,
            WORKER,
        ),
        kill("driver of a trial", STAGE, "update 17 of the run", "update", 17, DRIVER),
        kill("group's worker", STAGE, "a stage trained, not recorded", "trained", 2, WORKER),
        kill("asking process", ASKING, "answer 84 of the run", "answer", 84, WORKER),
    )


def _job() -> tuple[Cell, ...]:
    def kill(what: str, phase: str, place: str, point: str, number: int, to: str) -> Cell:
        return Cell(f"SIGKILL of the {what}", phase, "job", place, (signal_at("SIGKILL", point, number, to),))

    return (
        kill("computing process", FIRST, "its folder is to be made", "writes", 1, WORKER),
        kill("steps actor", ASKING, "answer 24 of the run", "answer", 24, ACTOR),
        kill("computing process", STAGE, "update 8 of the run", "update", 8, WORKER),
        kill("driver of a trial", CLAIM, "record 10 in its place, still claimed", "published", 10, DRIVER),
        kill("asking process", ASKING, "answer 101 of the run", "answer", 101, WORKER),
        kill("computing process", STAGE, "a checkpoint has no checksums yet", "saving", 8, WORKER),
    )
