"""The cells of runs in one process (`--inline`): 20 steps, each stage of 9 updates with a checkpoint after every 3.

Steps are recorded in a fixed order: the model, its 3 evaluations, then for each of 4 stages its checkpoint and 3 evaluations.
"""

from __future__ import annotations

from collections.abc import Iterator

import fault_damage as do
from fault_cells import DAY, PHASES, Cell, signal_at
from fault_lives import Strike

START, FIRST, STAGE, CLAIM, ASKING, UPLOAD, REPORT, END = PHASES
KILLED, ASKED_TO_END, INTERRUPTED = (-9,), (-15, 130), (130,)

PLACES: dict[str, tuple[str, int, str]] = {
    "before the store is touched": (START, 1, "begins"),
    "once the sweep has its label": (START, 1, "labelled"),
    "all is checked, nothing begun": (START, 1, "checked"),
    "claimed, nothing written": (FIRST, 1, "claimed"),
    "its folder is to be made": (FIRST, 1, "writes"),
    "written whole, not in its place": (FIRST, 1, "unpublished"),
    "in its place, still claimed": (FIRST, 1, "published"),
    "update 1 of 36": (STAGE, 1, "update"),
    "update 3 of 36, before its checkpoint": (STAGE, 3, "update"),
    "update 5 of 36": (STAGE, 5, "update"),
    "update 9 of 36, the last of a stage": (STAGE, 9, "update"),
    "update 11 of 36": (STAGE, 11, "update"),
    "update 17 of 36": (STAGE, 17, "update"),
    "update 19 of 36, the first of a trial": (STAGE, 19, "update"),
    "update 26 of 36": (STAGE, 26, "update"),
    "update 32 of 36": (STAGE, 32, "update"),
    "a checkpoint has no checksums yet": (STAGE, 5, "saving"),
    "a checkpoint was just written": (STAGE, 10, "saved"),
    "trained, not recorded": (STAGE, 2, "trained"),
    "record 3 in its place": (CLAIM, 3, "published"),
    "record 5 (a stage) in its place": (CLAIM, 5, "published"),
    "record 7 to be released": (CLAIM, 7, "releases"),
    "record 8 released": (CLAIM, 8, "released"),
    "claim 9 (a stage) taken": (CLAIM, 9, "claimed"),
    "record 12 in its place": (CLAIM, 12, "published"),
    "claim 14 taken": (CLAIM, 14, "claimed"),
    "record 17 (a stage) in its place": (CLAIM, 17, "published"),
    "claim 18 taken": (CLAIM, 18, "claimed"),
    "record 20, the last, in its place": (CLAIM, 20, "published"),
    "before benchmark 2": (ASKING, 2, "asks"),
    "answer 14 of 150": (ASKING, 14, "answer"),
    "answer 44 of 150": (ASKING, 44, "answer"),
    "answer 71 of 150": (ASKING, 71, "answer"),
    "answer 113 of 150": (ASKING, 113, "answer"),
    "answer 149 of 150": (ASKING, 149, "answer"),
    "benchmark 6 answered, not scored": (ASKING, 6, "answered"),
    "all is recorded, nothing packed": (REPORT, 1, "packs"),
    "one of 5 packs written": (REPORT, 1, "pack written"),
    "4 of 5 packs written": (REPORT, 4, "pack written"),
    "packed, no report": (REPORT, 1, "report"),
    "the page written, no picture": (REPORT, 1, "page written"),
    "the report written": (REPORT, 1, "report written"),
    "what is shown is noted": (END, 1, "noted"),
    "before the process ends": (END, 1, "ended"),
}
"""Where a process can be ended: phase, count, point."""
PUTS = {
    "a file of record 2 uploaded": (2, "put"),
    "2 of 3 files of a stage uploaded": (9, "put"),
    "the record of a stage uploaded": (9, "record put"),
    "a file of record 18 uploaded": (33, "put"),
}
"""The same on the way to a bucket."""
ASKED_IN = (
    "once the sweep has its label", "claimed, nothing written", "update 5 of 36", "update 17 of 36", "update 32 of 36", "record 8 released",
    "answer 14 of 150", "answer 113 of 150", "packed, no report", "what is shown is noted",
)  # fmt: skip
FULL_IN = (
    "before the store is touched", "its folder is to be made", "update 5 of 36", "a checkpoint was just written", "trained, not recorded",
    "record 8 released", "benchmark 6 answered, not scored", "all is recorded, nothing packed", "packed, no report",
    "what is shown is noted",
)  # fmt: skip


def cells() -> list[Cell]:
    """Signals, disks, clocks, changed bytes; those with leases, other commands and servers are in `store_cells`."""
    return [*_signals(), *_surroundings(), *_clocks(), *_bytes()]


def _signals() -> Iterator[Cell]:
    for place, (phase, number, point) in PLACES.items():
        yield Cell("SIGKILL", phase, "inline", place, (signal_at("SIGKILL", point, number),), KILLED)
    for place, (number, point) in PUTS.items():
        yield Cell("SIGKILL", UPLOAD, "inline", place, (signal_at("SIGKILL", point, number),), KILLED, "s3")
    for place in ASKED_IN:
        phase, number, point = PLACES[place]
        saves = 0 if phase == STAGE else 1
        yield Cell(
            "SIGTERM", phase, "inline", place, (signal_at("SIGTERM", point, number),), ASKED_TO_END, intervals=saves
        )
        yield Cell(
            "SIGINT",
            phase,
            "inline",
            place,
            (signal_at("SIGINT", point, number),),
            INTERRUPTED,
            says="run the same command",
        )
    for name, codes in (("SIGTERM", ASKED_TO_END), ("SIGINT", INTERRUPTED)):
        number, point = PUTS["2 of 3 files of a stage uploaded"]
        yield Cell(
            name, UPLOAD, "inline", "2 of 3 files of a stage uploaded", (signal_at(name, point, number),), codes, "s3"
        )


def _surroundings() -> Iterator[Cell]:
    for place in FULL_IN:
        phase, number, point = PLACES[place]
        full, closed = Strike(point, number, "fill disk"), Strike(point, number, "read only")
        yield Cell("disk full", phase, "inline", place, (full,), (0, 1, 2), "disk", then=do.empty_disk)
        yield Cell("read-only store", phase, "inline", place, (closed,), (0, 1, 2), "disk", then=do.make_writable)
    for place in ("update 11 of 36", "answer 71 of 150"):
        phase, number, point = PLACES[place]
        yield Cell(
            "out of memory", phase, "inline", place, (Strike(point, number, "out of memory"),), (1,), says="failed"
        )


def _clocks() -> Iterator[Cell]:
    back = {"seconds": -DAY}
    for place in (
        "all is checked, nothing begun", "its folder is to be made", "update 5 of 36", "record 8 released", "answer 71 of 150",
        "one of 5 packs written", "packed, no report",
    ):  # fmt: skip
        phase, number, point = PLACES[place]
        yield Cell("clock set back a day", phase, "inline", place, (Strike(point, number, "set clock", back),))
    begun = Strike("begins", 1, "set clock", back)
    yield Cell("clock set back a day", END, "inline", "the next run", (begun,), first=do.finish)
    put = Strike("put", 9, "set clock", back)
    yield Cell("clock set back a day", UPLOAD, "inline", "2 of 3 files of a stage uploaded", (put,), store="s3")
    ahead = Strike("begins", 1, "set clock", {"seconds": DAY})
    for place in (
        "claimed, nothing written",
        "update 17 of 36",
        "claim 9 (a stage) taken",
        "answer 44 of 150",
        "one of 5 packs written",
    ):
        phase, number, point = PLACES[place]
        strikes = (ahead, signal_at("SIGKILL", point, number))
        yield Cell("SIGKILL, then the clock set back a day", phase, "inline", place, strikes, KILLED)


def _bytes() -> Iterator[Cell]:
    kind = "a byte changed"

    def killed(phase: str, place: str, point: str, number: int, then: do.Deed, **more: object) -> Cell:
        return Cell(kind, phase, "inline", place, (signal_at("SIGKILL", point, number),), KILLED, then=then, **more)  # type: ignore[arg-type]

    newest = "runs/*/checkpoint-*/"
    yield killed(START, "the sweep as understood", "checked", 1, do.flip_newest("reports/*/sweep.json"))
    yield killed(FIRST, "the record", "published", 1, do.flip_of(lambda scene: do.stage(scene, 0, 0), "record.json"))
    yield killed(
        STAGE,
        "weights of the newest checkpoint",
        "update",
        8,
        do.flip_newest(f"{newest}trained.safetensors"),
        intervals=2,
    )
    yield killed(
        STAGE, "optimizer of the newest checkpoint", "update", 17, do.flip_newest(f"{newest}optimizer.pt"), intervals=2
    )
    yield killed(
        STAGE, "state of the only checkpoint", "update", 23, do.flip_newest(f"{newest}trainer_state.json"), intervals=2
    )
    weights = do.flip_of(lambda scene: do.stage(scene, 0, 2), "delta.safetensors")
    yield killed(CLAIM, "weights that are evaluated next", "published", 9, weights)
    yield killed(CLAIM, "a claim, cut", "claimed", 9, do.cut("claims/*.json"))
    scored = do.flip_of(lambda scene: do.evaluation(scene, 0, 1, 0), "record.json")
    yield killed(ASKING, "record of an evaluation", "answer", 52, scored)
    yield killed(REPORT, "a pack", "report written", 1, do.flip_packed)
    yield killed(
        UPLOAD, "weights that wait on the node", "put", 8, do.flip_on_node("lmmcl-*/delta.safetensors"), store="s3"
    )
    yield killed(
        UPLOAD,
        "weights on the node, uploaded",
        "record put",
        9,
        do.flip_on_node("copies/*/delta.safetensors"),
        store="s3",
    )
    yield killed(END, "the index", "ended", 1, do.flip_index)
    yield killed(END, "the note of what is shown", "ended", 1, do.flip_newest("reports/*/shown.json"))
    yield killed(END, "a packed record", "ended", 1, do.flip_packed)
