"""Answers of an evaluation under way, kept every few seconds: one that is killed is resumed after what it had answered."""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from lmmcl.atomic_files import write_bytes
from lmmcl.ledger import Ledger
from lmmcl.ledger.record import seal_json, unseal_json
from lmmcl.steps import Evaluate
from lmmcl.tasks.examples import Example

FILE = "answers.json"
LEAST_SECONDS = 2.0
"""Between two writes; each takes milliseconds."""

log = logging.getLogger(__name__)


class PartialAnswers:
    """The first answers to the questions of one step, beside the store (or in this node's folder) until the step is recorded."""

    def __init__(self, step: Evaluate, ledger: Ledger, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder = Path(ledger.store if ledger.is_local else ledger.node.folder, "runs", step.key)
        self._clock = clock

    def read(self) -> list[str]:
        """What an earlier try has kept; none where that is damaged."""
        file = self._folder / FILE
        try:
            return list(unseal_json(file.read_bytes())["answers"])
        except FileNotFoundError:
            return []
        except (ValueError, KeyError, TypeError) as error:
            log.warning("%s is skipped: it %s", file, error)
            return []

    def keep(self, answers: Iterable[tuple[Example, str]]) -> Iterator[tuple[Example, str]]:
        """Pass on `answers`, the first question's first, and write them down now and then."""
        texts: list[str] = []
        last = self._clock()
        for example, text in answers:
            texts.append(text)
            if self._clock() - last >= LEAST_SECONDS:
                write_bytes(self._folder / FILE, seal_json(json.dumps({"answers": texts})))
                last = self._clock()
            yield example, text

    def remove(self) -> None:
        """Forget what was kept: the step is recorded."""
        shutil.rmtree(self._folder, ignore_errors=True)
