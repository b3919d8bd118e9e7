"""Rows that a step left, for a report of many: a damaged file is reported once and left out."""

from __future__ import annotations

import logging
from typing import Any

from lmmcl.ledger import Ledger
from lmmcl.ledger.record import DamagedError

log = logging.getLogger(__name__)
_TOLD: set[str] = set()


def rows_of(ledger: Ledger, path: str, name: str) -> list[dict[str, Any]]:
    """The rows of a .jsonl file of the step in `path`; none, with a warning, where the file is damaged.

    Curves and answers are beside the scores, which records hold themselves: no sweep ends for want of them.
    """
    try:
        return ledger.read_lines(path, name)
    except DamagedError as error:
        if str(error) not in _TOLD:
            _TOLD.add(str(error))
            log.warning("omitted from the report: %s", error)
        return []
