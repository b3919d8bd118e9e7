"""Leases of steps in the store: runs that share one, on one machine or on two clusters, compute each step once.

A claim is a small file, `claims/<key>.json`, which the first makes whole at once, renews while it works and removes at the
end. It is advice and no lock: where one is lost or taken over too early work is done twice, and the records, which are
written last and whole, do not suffer. Nobody needs to tidy up after a kill: a claim is void when

- its process is gone, or it is of the same run, which asks again for a step only after it has lost it;
- it was not renewed for its expiry, by the clock of the waiting process: two machines' clocks need not agree;
- it is another machine's and ended longer ago than its expiry, so that clocks which differ by less deceive nobody.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, fields
from typing import Any

from lmmcl.config.cluster import ClaimSettings
from lmmcl.errors import UserError
from lmmcl.ledger.owners import alive, host_id, start_time
from lmmcl.ledger.store import Store

FOLDER = "claims"
RENEWALS = 3
"""How often a claim is renewed before it would expire."""
NOTE_SECONDS = 5.0
"""The first of a worker's claims is renewed this soon where its owner has something new to say; the others when they are due."""

FORGOTTEN = 24 * 3600.0
MAINTENANCE = "maintenance"
"""Claimed, like a step, by what packs, unpacks or repairs a store or drops weights of it: one at a time."""


@dataclass(frozen=True)
class Lease:
    """The owner of a step: `token` is of one attempt, `place` a machine since its start; times are in seconds since 1970.

    `since` is when the step was claimed, and `beat` counts renewals. `note` is what the owner said last of its work, for whoever
    looks at the store meanwhile. Of several claims with one token the one that was renewed last has the newest note.
    """

    token: str
    host: str
    place: str
    pid: int
    born: str
    run: str
    until: float
    expiry: float
    beat: int = 0
    since: float = 0.0
    note: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


@dataclass
class Held:
    """The keys that were got; `keep()` leaves their leases to the next worker of the same run."""

    keys: set[str]
    kept: bool = False
    note: dict[str, Any] = field(default_factory=dict)
    """What is being done now; it is written to the first claim some seconds after it changed, to all with their next renewal."""

    def keep(self) -> None:
        """Do not remove the claims at the end: they go over to another process of this run, or expire."""
        self.kept = True


@dataclass
class Leases:
    """Claims of one run in one store. `run` names what computes no step twice at a time (empty: this process alone)."""

    store: Store
    settings: ClaimSettings
    run: str = ""
    _seen: dict[str, tuple[tuple[str, int], float]] = field(default_factory=dict)

    @contextmanager
    def held(self, keys: Iterable[str]) -> Iterator[Held]:
        """Claim what nobody else has, for the time of the `with`; all keys where claims are switched off."""
        if not self.settings.enabled:
            yield Held(set(keys))
            return
        mine = self._new()
        held = Held({key for key, got in self._each(lambda key: self._take(key, mine), list(keys)) if got})
        done = threading.Event()
        beat = threading.Thread(target=self._renew, args=(mine, held, done), name="lmmcl-claims", daemon=True)
        if held.keys:
            beat.start()
        try:
            yield held
        finally:
            done.set()
            if held.keys:
                beat.join()
            if not held.kept:
                self._each(lambda key: self._release(key, mine), sorted(held.keys))

    def owner(self, key: str) -> Lease | None:
        """Who else computes `key` now, or None. Ask again and again: what is not renewed meanwhile becomes void."""
        if not self.settings.enabled:
            return None
        claim = self._read(key)
        if claim is None or self._is_expired(key, claim):
            return None
        return claim

    def clear(self, key: str) -> None:
        """Delete the claim to `key` if it has become void while it was watched here.

        The process that is to compute the step has not watched it, and would take it for a claim that is renewed.
        """
        if key not in self._seen:
            return
        claim = self._read(key)
        if claim is not None and not (self.run and claim.run == self.run) and self._is_expired(key, claim):
            self._remove(key, claim)

    def active(self) -> dict[str, Lease]:
        """Who else computes what now, by key."""
        keys = [
            name.removeprefix(f"{FOLDER}/").removesuffix(".json") for name in self.store.matches(f"{FOLDER}/*.json")
        ]
        leases = self._each(self.owner, [key for key in keys if key != MAINTENANCE])
        return {key: claim for key, claim in leases if claim is not None}

    def _each(self, do: Any, keys: list[str]) -> list[tuple[str, Any]]:
        """`do` for each key; side by side where each takes a round trip."""
        if self.store.is_local or len(keys) < 2:
            return [(key, do(key)) for key in keys]
        with ThreadPoolExecutor(8) as pool:
            return list(zip(keys, pool.map(do, keys), strict=True))

    def _new(self) -> Lease:
        pid, expiry = os.getpid(), self.settings.expiry_s
        born, until = start_time(pid) or "", time.time() + expiry
        host, now = socket.gethostname(), time.time()
        return Lease(uuid.uuid4().hex, host, host_id(), pid, born, self.run, until, expiry, since=now)

    def _take(self, key: str, mine: Lease) -> bool:
        content = json.dumps(vars(mine)).encode()
        if self.store.create(_name(key), content):
            return True
        try:
            theirs = _parsed(self.store.read(_name(key)))
        except FileNotFoundError:  # given back just now
            return self.store.create(_name(key), content)
        if theirs is not None and theirs.token == mine.token:
            return True  # the answer to the first try was lost
        if theirs is not None and not self._is_expired(key, theirs):
            return False
        self._remove(key, theirs)
        return self.store.create(_name(key), content)

    def _release(self, key: str, mine: Lease) -> None:
        with suppress(UserError):  # a store that is away: the process is gone soon, or the claim expires
            self._remove(key, mine)

    def _remove(self, key: str, claim: Lease | None) -> None:
        """Delete a claim if it is still this one (None: one that cannot be read).

        On a file system, two processes that do so at once never delete each other's.
        """
        name, token = _name(key), claim.token if claim else None
        if not self.store.is_local:
            with suppress(FileNotFoundError):
                now = _parsed(self.store.read(name))
                if (now.token if now else None) == token:
                    self.store.remove(name)
            return
        taken = self.store.at(f"{name}.{uuid.uuid4().hex}")
        try:
            self.store.at(name).rename(taken)
            lease = _parsed(taken.read_bytes())
        except FileNotFoundError:  # or swept
            return
        if lease is not None and lease.token != token:
            with suppress(FileExistsError):
                os.link(taken, self.store.at(name))
        taken.unlink(missing_ok=True)

    def _read(self, key: str) -> Lease | None:
        try:
            return _parsed(self.store.read(_name(key)))
        except FileNotFoundError:
            return None

    def _is_expired(self, key: str, claim: Lease) -> bool:
        if self.run and claim.run == self.run:
            return True
        here = claim.place == host_id()
        if here and not alive(claim.pid, claim.born):
            return True
        now = time.monotonic()
        seen, since = self._seen.get(key, (None, now))
        if seen != (claim.token, claim.beat):
            self._seen[key] = ((claim.token, claim.beat), now)
            since = now
        return now - since > claim.expiry or (not here and time.time() - claim.until > claim.expiry)

    def _renew(self, mine: Lease, held: Held, done: threading.Event) -> None:
        """Renew all claims when they are due; in between, the first one alone whenever the note has changed."""
        beat, left = 0, set(held.keys)
        pause, written = self.settings.expiry_s / RENEWALS, dict(held.note)
        last = time.monotonic()
        while left and not done.wait(min(pause, NOTE_SECONDS)):
            note, due = dict(held.note), time.monotonic() - last >= pause
            if note == written and not due:
                continue
            beat, written, last = beat + 1, note, time.monotonic() if due else last
            for key in sorted(left)[: None if due else 1]:
                with suppress(UserError, OSError):  # the store is away: the next beat may reach it
                    now = self._read(key)
                    if now is None or now.token != mine.token:  # taken over while this process was stopped, say
                        left.discard(key)
                        continue
                    renewed = {**vars(mine), "until": time.time() + mine.expiry, "beat": beat, "note": note}
                    self.store.write(_name(key), json.dumps(renewed).encode())


def forgotten(store: Store) -> list[str]:
    """Names of the claims that ended a day ago or earlier: of runs that were killed, and steps that nobody asked for again.

    Including those whose removal was interrupted by a kill (see `Leases._remove`), and those that cannot be read.
    """
    names = []
    for name in store.matches(f"{FOLDER}/*.json*"):
        with suppress(FileNotFoundError):
            claim = _parsed(store.read(name))
            if claim is None and name.startswith(f"{FOLDER}/."):
                continue  # being written
            if claim is None or time.time() - claim.until > FORGOTTEN:
                names.append(name)
    return names


def _name(key: str) -> str:
    return f"{FOLDER}/{key}.json"


def _parsed(content: bytes) -> Lease | None:
    """A claim that cannot be read is none: it was cut. What a later version says besides is passed over."""
    try:
        values = json.loads(content)
        return Lease(**{field.name: values[field.name] for field in fields(Lease) if field.name in values})
    except (ValueError, TypeError):
        return None
