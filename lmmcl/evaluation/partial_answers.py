"""Answers of an evaluation under way, kept every few seconds: one that is killed is resumed after what it had answered."""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from lmmcl.atomic_files import write_bytes
from lmmcl.ledger import Ledger
from lmmcl.ledger.record import seal_json, unseal_json
from lmmcl.steps import Evaluate
from lmmcl.tasks.examples import Example

NAME = "answers"
LEAST_SECONDS = 2.0
"""Between two writes: one takes milliseconds. Answers that took less are not kept."""

log = logging.getLogger(__name__)


class PartialAnswers:
    """The first answers to the questions of one step, beside the store (or in this node's folder) until the step is recorded.

    `about` (JSON) says whose answers to which questions they are: others are not resumed. `seconds` is how long they took: those
    that were read and those that are kept now.
    """

    def __init__(
        self,
        step: Evaluate,
        ledger: Ledger,
        about: Mapping[str, Any],
        *,
        name: str = NAME,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._file = _folder(step, ledger) / f"{name}.json"
        self._about, self._clock = dict(about), clock
        self._written = 0
        self.seconds = 0.0

    def read(self) -> list[str]:
        """What an earlier try has kept; none where that is damaged, or of something else."""
        try:
            content = unseal_json(self._file.read_bytes())
            answers, seconds = list(content["answers"]), float(content.get("seconds", 0.0))
        except FileNotFoundError:
            return []
        except (ValueError, KeyError, TypeError) as error:
            log.warning("%s is skipped: it %s", self._file, error)
            return []
        if content.get("about") != self._about:
            log.info("%s is skipped: it holds answers of %s, not of %s", self._file, content.get("about"), self._about)
            return []
        self._written, self.seconds = len(answers), seconds
        return answers

    def keep(self, answers: Iterable[tuple[Example, str]]) -> Iterator[tuple[Example, str]]:
        """Pass on `answers`, the first question's first, and write them down now and then, and at the end."""
        texts: list[str] = []
        coming, begun = iter(answers), self._clock()
        last = begun
        while True:
            asked = self._clock()
            pair = next(coming, None)
            now = self._clock()
            self.seconds += now - asked
            if pair is None:
                break
            texts.append(pair[1])
            if now - last >= LEAST_SECONDS and len(texts) > self._written:
                self._write(texts)
                last = self._clock()
            yield pair
        if now - begun >= LEAST_SECONDS and len(texts) > self._written:  # a judge or another expert may take hours yet
            self._write(texts)

    def _write(self, texts: list[str]) -> None:
        content = {"about": self._about, "seconds": self.seconds, "answers": texts}
        write_bytes(self._file, seal_json(json.dumps(content)))
        self._written = len(texts)


def forget_answers(step: Evaluate, ledger: Ledger) -> None:
    """Remove all that was kept of a step: it is recorded."""
    shutil.rmtree(_folder(step, ledger), ignore_errors=True)


def _folder(step: Evaluate, ledger: Ledger) -> Path:
    return Path(ledger.store if ledger.is_local else ledger.node.folder, "runs", step.key)
