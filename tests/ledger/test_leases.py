"""Claims tell runs that share a store what is being computed; they stand in nobody's way when their owner is gone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lmmcl.config.cluster import ClaimSettings
from lmmcl.ledger import Ledger
from lmmcl.ledger import leases as module
from lmmcl.ledger.leases import FOLDER, Lease, Leases
from lmmcl.ledger.owners import alive, start_time
from lmmcl.ledger.store import Store

KEY = "0123456789abcdef"


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store") if request.param == "local" else f"memory://{tmp_path.name}")


def of(store: Store, run: str = "", **settings: Any) -> Leases:
    return Leases(store, ClaimSettings(**settings), run)


def elsewhere(store: Store, **changes: Any) -> Lease:
    """Another machine claims KEY."""
    claim = Lease("token", "far", "far away", 1, "1", "run", until=time.time() + 120, expiry=120.0)
    claim = replace(claim, **changes)
    store.write(f"{FOLDER}/{KEY}.json", json.dumps(vars(claim)).encode())
    return claim


def test_what_one_run_computes_another_leaves_alone_until_it_is_done(store: Store) -> None:
    one, other = of(store, "one"), of(store, "other")
    with one.held([KEY, "other-key"]) as held:
        assert held.keys == {KEY, "other-key"}
        holder = other.owner(KEY)
        assert holder is not None and holder.pid == os.getpid()
        with other.held([KEY, "third-key"]) as left:
            assert left.keys == {"third-key"}
        assert other.owner(KEY) is not None, "who got nothing removes nothing"
    assert other.owner(KEY) is None
    assert store.sizes(FOLDER) == {}


def test_of_many_that_claim_at_once_one_gets_it(store: Store) -> None:
    def claim(number: int) -> bool:
        with of(store, f"run {number}").held([KEY]) as held:
            time.sleep(0.3)
            return KEY in held.keys

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(claim, range(8))) == 1


def test_a_broken_computation_gives_its_claim_back(store: Store) -> None:
    with pytest.raises(RuntimeError), of(store, "one").held([KEY]):
        raise RuntimeError
    assert of(store, "other").owner(KEY) is None


def test_a_run_that_lost_a_step_asks_for_it_again_without_waiting(store: Store) -> None:
    with of(store, "one").held([KEY]), of(store, "one").held([KEY]) as again:
        assert again.keys == {KEY}


def test_a_claim_can_be_left_to_the_next_who_works_on_the_step(store: Store) -> None:
    with of(store, "one").held([KEY]) as held:
        held.keep()
    assert of(store, "other").owner(KEY) is not None
    with of(store, "one").held([KEY]) as next_one:
        assert next_one.keys == {KEY}
    assert of(store, "other").owner(KEY) is None


def test_a_killed_process_of_this_machine_holds_nobody_up(tmp_path: Path) -> None:
    code = (
        "import sys, time; from lmmcl.ledger.leases import *; from lmmcl.ledger.store import Store; from lmmcl.config.cluster import *\n"
        f"with Leases(Store({str(tmp_path)!r}), ClaimSettings()).held([{KEY!r}]): print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        waiting = of(Store(str(tmp_path)))
        holder = waiting.owner(KEY)
        assert holder is not None and holder.pid == process.pid
        process.send_signal(signal.SIGKILL)
        deadline = time.monotonic() + 10
        while waiting.owner(KEY) is not None and time.monotonic() < deadline:
            time.sleep(0.01)
        assert waiting.owner(KEY) is None, "dead, though nobody has asked for its exit code yet"
        with waiting.held([KEY]) as held:
            assert held.keys == {KEY}


def test_a_process_number_that_was_given_again_is_another_process() -> None:
    born = start_time(os.getpid())
    assert alive(os.getpid(), born or "")
    if born is not None:
        assert not alive(os.getpid(), "1")
    assert not alive(2**22 + 1)


def test_a_machine_that_fell_silent_is_waited_for_until_its_claim_expires(store: Store) -> None:
    elsewhere(store, expiry=0.2, until=time.time() + 3600)  # and its clock is an hour ahead
    waiting = of(store)
    assert waiting.owner(KEY) is not None
    with waiting.held([KEY]) as held:
        assert not held.keys
    time.sleep(0.3)
    assert waiting.owner(KEY) is None
    with waiting.held([KEY]) as held:
        assert held.keys == {KEY}


def test_a_machine_whose_clock_is_behind_is_not_robbed(store: Store) -> None:
    waiting = of(store)
    for beat in range(4):  # by this clock it ended 50 seconds ago each time, but it is renewed
        elsewhere(store, beat=beat, expiry=60.0, until=time.time() - 50)
        assert waiting.owner(KEY) is not None


def test_a_claim_of_long_ago_is_void_at_once(store: Store) -> None:
    elsewhere(store, until=time.time() - 3600)
    assert of(store).owner(KEY) is None


def test_a_claim_is_renewed_as_long_as_the_work_goes_on(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = of(store, "other")
    with of(store, "one", expiry_s=0.3).held([KEY]):
        monkeypatch.setattr(module, "host_id", lambda: "another machine")
        for _ in range(10):
            assert waiting.owner(KEY) is not None
            time.sleep(0.1)


def test_news_of_the_work_is_written_to_one_claim_and_the_others_are_renewed_when_they_are_due(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that evaluates thirteen benchmarks has news every second."""
    keys = [f"{number:016x}" for number in range(13)]
    writes: list[str] = []
    plain = store.write
    monkeypatch.setattr(module, "NOTE_SECONDS", 0.05)
    with of(store, "one", expiry_s=60.0).held(keys) as held:
        monkeypatch.setattr(store, "write", lambda name, content: writes.append(name) or plain(name, content))
        for number in range(10):
            held.note = {"doing": f"question {number}"}
            time.sleep(0.1)
        notes = {key: lease.note for key, lease in of(store, "other").active().items()}
    assert set(writes) == {f"{FOLDER}/{keys[0]}.json"} and len(writes) <= 12
    assert notes[keys[0]]["doing"] in ("question 8", "question 9") and notes[keys[1]] == {}


def test_claims_that_are_due_are_all_renewed_while_there_is_news(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "NOTE_SECONDS", 0.02)
    with of(store, "one", expiry_s=0.6).held(["a", "b"]) as held:
        monkeypatch.setattr(module, "host_id", lambda: "another machine")
        waiting = of(store, "other")
        for number in range(15):
            held.note = {"doing": f"question {number}"}
            assert set(waiting.active()) == {"a", "b"}
            time.sleep(0.1)


def test_who_was_robbed_does_not_rob_back(store: Store) -> None:
    with of(store, "one", expiry_s=0.1).held([KEY]):
        mine = elsewhere(store, expiry=60.0, token="the robber's")
        time.sleep(0.3)  # several beats of the robbed one
    left = json.loads(store.read(f"{FOLDER}/{KEY}.json"))
    assert left == vars(mine)


def test_a_claim_that_was_cut_is_none(store: Store) -> None:
    store.write(f"{FOLDER}/{KEY}.json", b'{"token": "a')
    waiting = of(store)
    assert waiting.owner(KEY) is None
    with waiting.held([KEY]) as held:
        assert held.keys == {KEY}, "it stands in nobody's way"
        assert of(store, "other").owner(KEY) is not None
    assert store.sizes(FOLDER) == {}


def test_a_claim_of_a_later_version_counts_by_what_is_known_of_it(store: Store) -> None:
    claim = elsewhere(store)
    store.write(f"{FOLDER}/{KEY}.json", json.dumps({**vars(claim), "mood": "new"}).encode())
    assert of(store).owner(KEY) == claim
    with of(store).held([KEY]) as held:
        assert not held.keys


def test_a_claim_whose_remover_was_killed_is_swept(tmp_path: Path) -> None:
    ledger = Ledger(str(tmp_path))
    claim = elsewhere(ledger.files)
    ledger.files.write(f"{FOLDER}/{KEY}.json.0a", json.dumps(vars(replace(claim, until=1.0))).encode())
    ledger.files.write(f"{FOLDER}/{KEY}.json.0b", b"")
    ledger.files.write(f"{FOLDER}/{KEY}.json.0c", json.dumps(vars(claim)).encode())
    ledger.files.write(f"{FOLDER}/.{KEY}.json.0d", b"")
    ledger.remove_abandoned()
    assert set(ledger.sizes(FOLDER)) == {f"{KEY}.json", f"{KEY}.json.0c", f".{KEY}.json.0d"}, "at work, or a moment ago"


def test_claims_of_long_ago_are_swept_and_others_are_not(tmp_path: Path) -> None:
    ledger = Ledger(str(tmp_path))
    elsewhere(ledger.files, until=time.time() - 3600)
    ledger.remove_abandoned()
    assert set(ledger.sizes(FOLDER)) == {f"{KEY}.json"}
    elsewhere(ledger.files, until=time.time() - 48 * 3600)
    ledger.remove_abandoned()
    assert ledger.sizes(FOLDER) == {}


def test_who_is_at_work_is_told_by_key_and_nobody_who_is_gone(store: Store) -> None:
    mine = of(store, "one")
    with mine.held(["a", "b"]):
        elsewhere(store, until=time.time() - 3600)
        assert set(of(store, "other").active()) == {"a", "b"}
        assert mine.active() == {}, "others, that is"


def test_a_claim_whose_answer_was_lost_on_the_way_is_had(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = store.create

    def create(name: str, content: bytes) -> bool:
        plain(name, content)
        return False

    monkeypatch.setattr(store, "create", create)
    with of(store).held([KEY]) as held:
        assert held.keys == {KEY}
    assert store.sizes(FOLDER) == {}


def test_a_link_whose_answer_was_lost_on_the_way_was_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = os.link

    def link(source: Path, target: Path) -> None:
        plain(source, target)
        plain(source, target)  # the network file system asks once more, and learns that there is such a file

    monkeypatch.setattr("lmmcl.ledger.store.os.link", link)
    store = Store(str(tmp_path))
    assert store.create("claims/a.json", b"one")
    monkeypatch.undo()
    assert not store.create("claims/a.json", b"two")


def test_claims_can_be_switched_off(store: Store) -> None:
    elsewhere(store)
    off = of(store, enabled=False)
    with off.held([KEY]) as held:
        assert held.keys == {KEY} and off.owner(KEY) is None
    assert store.sizes(FOLDER) != {}, "the other's is left"


def test_a_file_system_without_links_serves_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("lmmcl.ledger.store.os.link", refuse)
    store = Store(str(tmp_path))
    assert store.create("claims/a.json", b"one")
    assert not store.create("claims/a.json", b"two")
    assert store.read("claims/a.json") == b"one"
    assert [path.name for path in (tmp_path / "claims").iterdir()] == ["a.json"]


def quickest(do: Callable[[], object], times: int = 30) -> float:
    taken = []
    for _ in range(times):
        started = time.perf_counter()
        do()
        taken.append(time.perf_counter() - started)
    return min(taken)


def test_a_claim_on_a_local_store_costs_next_to_nothing(tmp_path: Path) -> None:
    claims = of(Store(str(tmp_path)))

    def claim() -> None:
        with claims.held([KEY]) as held:
            assert held.keys

    assert quickest(claim) < 0.02, "about a third of a millisecond on an idle machine"
