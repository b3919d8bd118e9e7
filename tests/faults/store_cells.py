"""More cells of runs in one process: leases that others left, commands beside the run, buckets and MLflow servers that answer wrongly."""

from __future__ import annotations

from collections.abc import Iterator

import fault_damage as do
from fault_cells import PHASES, Cell, signal_at
from fault_lives import Strike
from inline_cells import KILLED, PLACES

START, FIRST, STAGE, CLAIM, ASKING, UPLOAD, REPORT, END = PHASES


def cells() -> list[Cell]:
    """All of them."""
    return [*_leases(), *_beside(), *_buckets(), *_truncated(), *_mlflow()]


def _leases() -> Iterator[Cell]:
    kind = "lease of a dead owner"
    yield Cell(kind, START, "inline", "a process that is gone", first=do.lease_of(lambda scene: do.stage(scene, 0, 0)))
    recycled = do.lease_of(lambda scene: do.stage(scene, 0, 1), **do.RECYCLED)
    yield Cell(kind, FIRST, "inline", "a process whose number another has", first=recycled)
    far = do.lease_of(lambda scene: do.stage(scene, 0, 2), **do.ELSEWHERE)
    killed = (signal_at("SIGKILL", "update", 14),)
    yield Cell(kind, STAGE, "inline", "a machine that renews it no more", killed, KILLED, then=far)
    late = do.lease_of(lambda scene: do.stage(scene, 0, 2), **do.ELSEWHERE, left=-3600.0)
    yield Cell(
        kind,
        CLAIM,
        "inline",
        "a machine that was lost an hour ago",
        (signal_at("SIGKILL", "published", 8),),
        KILLED,
        then=late,
    )
    asking = do.lease_of(lambda scene: do.evaluation(scene, 1, 1, 1), **do.ELSEWHERE)
    yield Cell(kind, ASKING, "inline", "a machine that renews it no more", first=asking)
    upload = do.lease_of(lambda scene: do.stage(scene, 0, 1), **do.ELSEWHERE)
    yield Cell(
        kind,
        UPLOAD,
        "inline",
        "a machine that renews it no more",
        (signal_at("SIGKILL", "put", 8),),
        KILLED,
        "s3",
        then=upload,
    )
    yield Cell(kind, REPORT, "inline", "a process that packed the store", first=do.lease_of(do.maintenance))


def _beside() -> Iterator[Cell]:
    def beside(kind: str, deed: do.Deed, places: tuple[str, ...], **more: object) -> Iterator[Cell]:
        for place in places:
            phase, number, point = PLACES[place]
            strike = (Strike(point, number, "ask", {"wish": kind}),)
            yield Cell(kind, phase, "inline", place, strike, beside={kind: deed}, **more)  # type: ignore[arg-type]

    yield from beside(
        "gc beside",
        do.collect,
        (
            "its folder is to be made",
            "update 26 of 36",
            "record 12 in its place",
            "answer 113 of 150",
            "packed, no report",
        ),
    )
    yield Cell("gc beside", END, "inline", "between two runs", first=do.finish, then=do.collect)
    yield from beside(
        "export beside",
        do.export_of(lambda scene: do.stage(scene, 0, 1)),
        ("update 17 of 36", "answer 71 of 150", "one of 5 packs written"),
    )
    yield from beside("check --repair beside", do.check, ("update 11 of 36", "claim 14 taken", "answer 44 of 150"))
    yield from beside(
        "report beside", do.report, ("update 19 of 36, the first of a trial", "the page written, no picture")
    )
    kind = "another run beside"
    other = {kind: do.start_other}
    for place in ("all is checked, nothing begun", "update 5 of 36", "answer 44 of 150"):
        phase, number, point = PLACES[place]
        strike = Strike(point, number, "ask", {"wish": kind})
        yield Cell(kind, phase, "inline", place, (strike,), beside=other, then=do.wait_for_other)
    begun = Strike("claimed", 1, "ask", {"wish": kind})
    strikes = (begun, signal_at("SIGKILL", "update", 14))
    yield Cell(
        f"{kind}, one killed",
        STAGE,
        "inline",
        "update 14 of 36",
        strikes,
        (0, -9),
        beside=other,
        then=do.wait_for_other,
    )


def _buckets() -> Iterator[Cell]:
    def in_weather(kind: str, sort: str, phase: str, place: str, at: tuple[str, int], times: int, **more: str) -> Cell:
        strike = Strike(*at, "ask", {"wish": "weather"})
        return Cell(
            kind, phase, "inline", place, (strike,), store="s3", beside={"weather": do.weather(sort, times, **more)}
        )

    fails = "S3 answers 503"
    yield in_weather(fails, "503", START, "the next 4 requests", ("labelled", 1), 4)
    yield in_weather(fails, "503", FIRST, "the next 12 requests", ("writes", 1), 12)
    yield in_weather(fails, "503", STAGE, "the next 8 requests", ("update", 15), 8)
    yield in_weather(fails, "503", CLAIM, "the next 6 requests", ("published", 11), 6)
    yield in_weather(fails, "503", ASKING, "the next 12 requests", ("answer", 64), 12)
    yield in_weather(fails, "503", UPLOAD, "the next 12 uploads", ("put", 8), 12, method="PUT")
    yield in_weather(fails, "503", REPORT, "the next 12 requests", ("packs", 1), 12)
    broken = "S3 answers 500"
    yield in_weather(broken, "500", FIRST, "the next 3 requests", ("claimed", 1), 3)
    yield in_weather(broken, "500", UPLOAD, "the next 3 uploads", ("unpublished", 13), 3, method="PUT")
    yield in_weather(broken, "500", ASKING, "the next 4 reads", ("answered", 8), 4, method="GET")
    slow = "S3 is slow"
    yield in_weather(slow, "slow", STAGE, "the next 10 requests", ("update", 1), 10)
    yield in_weather(slow, "slow", UPLOAD, "the next 10 uploads", ("put", 8), 10, method="PUT")
    yield in_weather(slow, "slow", ASKING, "the next 10 reads", ("answer", 100), 10, method="GET")
    closed = "S3 closes connections"
    yield in_weather(closed, "cut", STAGE, "the next 5 requests", ("update", 30), 5)
    yield in_weather(closed, "cut", UPLOAD, "the next 5 uploads", ("unpublished", 9), 5, method="PUT")
    yield in_weather(closed, "cut", REPORT, "the next 5 requests", ("report", 1), 5)


def _truncated() -> Iterator[Cell]:
    kind = "S3 cuts what is read"

    def on_another_node(sort: str) -> do.Deed:
        def deed(scene: do.Scene) -> None:
            do.forget_node(scene)
            do.weather("truncated", 3, "GET", sort)(scene)

        return deed

    weights, records = on_another_node(r"delta\.safetensors"), on_another_node(r"record\.json")
    yield Cell(
        kind,
        STAGE,
        "inline",
        "weights, on another node",
        (signal_at("SIGKILL", "update", 14),),
        KILLED,
        "s3",
        then=weights,
        intervals=3,  # checkpoints inside a stage are on the node that is gone
    )
    yield Cell(
        kind,
        ASKING,
        "inline",
        "weights, on another node",
        (signal_at("SIGKILL", "answer", 41),),
        KILLED,
        "s3",
        then=weights,
    )
    yield Cell(
        kind,
        CLAIM,
        "inline",
        "records, on another node",
        (signal_at("SIGKILL", "released", 10),),
        KILLED,
        "s3",
        then=records,
    )
    samples = do.weather("truncated", 3, "GET", r"samples\.jsonl")
    strike = (Strike("report", 1, "ask", {"wish": "weather"}),)
    yield Cell(kind, REPORT, "inline", "answers of a benchmark", strike, store="s3", beside={"weather": samples})
    packs = do.weather("truncated", 3, "GET", r"packs/")
    yield Cell(kind, END, "inline", "packs, by the next run", first=do.finish, store="s3", then=packs)


def _mlflow() -> Iterator[Cell]:
    for kind, sort in {
        "answers 500": "500",
        "answers malformed JSON": "malformed",
        "answers something else": "other",
    }.items():
        yield Cell(
            f"MLflow {kind}",
            START,
            "inline",
            "from the first request",
            mlflow="server",
            first=do.mood(sort),
            then=do.mlflow_is_well,
            says="no result is lost",
        )
    yield Cell(
        "MLflow hangs",
        START,
        "inline",
        "from the 6th request",
        mlflow="server",
        first=do.mood("hangs", 5),
        then=do.mlflow_is_well,
    )
    for kind, sort, place in (
        ("answers a sign-in page", "page", "update 11 of 36"),
        ("answers malformed JSON", "malformed", "answer 71 of 150"),
        ("answers 500", "500", "all is recorded, nothing packed"),
        ("closes connections", "cut", "the report written"),
    ):
        phase, number, point = PLACES[place]
        strike = (Strike(point, number, "ask", {"wish": "mood"}),)
        yield Cell(
            f"MLflow {kind}",
            phase,
            "inline",
            place,
            strike,
            mlflow="server",
            beside={"mood": do.mood(sort)},
            then=do.mlflow_is_well,
        )
    strike = (Strike("update", 32, "ask", {"wish": "lock"}),)
    yield Cell(
        "MLflow's database locked",
        STAGE,
        "inline",
        "update 32 of 36",
        strike,
        mlflow="store",
        beside={"lock": do.lock_database},
    )
    yield Cell(
        "MLflow's database, a byte changed",
        END,
        "inline",
        "between two runs",
        first=do.finish,
        mlflow="store",
        then=do.flip_newest("mlflow.db", 0.001),
    )
    cut = do.cut("mlflow.db")
    yield Cell("MLflow's database, cut", END, "inline", "between two runs", first=do.finish, mlflow="store", then=cut)
