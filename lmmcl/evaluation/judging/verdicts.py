"""Verdicts: read from a judge's reply, and kept in the store so that no answer is judged twice.

`judgements/<judge>/<digest>.json` holds one verdict, sealed like a record; its name is a digest of judge, prompt, question,
references and answer. Deleting the folder costs nothing but asking again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from lmmcl.ledger import Ledger
from lmmcl.ledger.record import DamagedError
from lmmcl.ledger.side_files import WARNINGS, encode, read_object
from lmmcl.tasks.metrics.judge import VERSION, Judge

FOLDER = "judgements"
LONGEST_REPLY = 500
"""Characters of a reply that are kept: to see why a verdict is what it is."""
_LINE = re.compile(r"verdict\W{0,5}(yes|no)\b", re.IGNORECASE)
_WORDS = {"yes": True, "right": True, "correct": True, "no": False, "wrong": False, "incorrect": False}

log = logging.getLogger("lmmcl")


@dataclass(frozen=True)
class Verdict:
    """What a judge says of an answer; `right` is None where its reply holds no verdict."""

    right: bool | None
    reply: str


def read_verdict(reply: str) -> Verdict:
    """The last `VERDICT: yes` or `VERDICT: no` of a reply, or a reply that is one such word."""
    kept = reply.strip()[-LONGEST_REPLY:]
    if lines := _LINE.findall(reply):
        return Verdict(lines[-1].lower() == "yes", kept)
    return Verdict(_WORDS.get(reply.strip().strip(".!*\"'`").lower()), kept)


class Verdicts:
    """The verdicts of one judge in a store. `again` keeps those of a second asking apart."""

    def __init__(self, judge: Judge, ledger: Ledger) -> None:
        self._files = ledger.files
        self._judge = hashlib.sha256(json.dumps([VERSION, judge.identity()], sort_keys=True).encode()).hexdigest()[:16]

    def recall(self, prompts: Sequence[str], *, again: bool = False) -> dict[str, Verdict]:
        """Those that are known, by prompt."""
        with ThreadPoolExecutor(1 if self._files.is_local else 16) as pool:
            known = zip(prompts, pool.map(lambda prompt: self._read(prompt, again), prompts), strict=True)
            return {prompt: verdict for prompt, verdict in known if verdict is not None}

    def keep(self, verdicts: Mapping[str, Verdict], *, again: bool = False) -> None:
        """Write verdicts down; a reply without one is asked for again the next time."""
        for prompt, verdict in verdicts.items():
            if verdict.right is not None:
                name = self._name(prompt, again)
                text = json.dumps({"right": verdict.right, "reply": verdict.reply})
                self._files.write(name, encode(name, text))

    def _read(self, prompt: str, again: bool) -> Verdict | None:
        try:
            fields = read_object(self._files, self._name(prompt, again))
        except DamagedError as error:
            WARNINGS.say(error)
            return None
        return Verdict(bool(fields["right"]), str(fields["reply"])) if fields and "right" in fields else None

    def _name(self, prompt: str, again: bool) -> str:
        digest = hashlib.sha256(prompt.encode("utf-8", "surrogatepass")).hexdigest()
        return f"{FOLDER}/{self._judge}/{digest[:40]}{'-again' if again else ''}.json"
