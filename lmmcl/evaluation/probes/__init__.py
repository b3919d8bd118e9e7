"""Probes of a loaded checkpoint: one file a computation, found by the name that the probe's definition gives."""

from __future__ import annotations

import importlib
import json
import math
import time

from lmmcl.evaluation.probes.subject import Findings, Subject
from lmmcl.ledger import Ledger, Record
from lmmcl.ledger.provenance import provenance
from lmmcl.models.processing.resizing import image_backend
from lmmcl.steps import ProbeStep

__all__ = ["DETAILS", "Findings", "Subject", "examine", "record_probe"]

DETAILS = "details.json"
"""Beside a probe's record: what its values are means of."""


def examine(step: ProbeStep, subject: Subject) -> Findings:
    """What the probe of `step` finds in the loaded checkpoint; raises UserError for questions that it cannot use."""
    module = importlib.import_module(f"{__name__}.{step.probe.computed_by}")
    return module.measure(step.probe, step.benchmarks, subject)


def record_probe(step: ProbeStep, ledger: Ledger, subject: Subject) -> Record:
    """Examine, and commit the record: `values` by `<probe>/<what>`, and `details.json`.

    Raises ValueError for a value that is not finite: a model that answers NaN has no measure.
    """
    started, begun = time.monotonic(), time.time()
    findings = examine(step, subject)
    values = {f"{step.probe.name}/{what}": float(value) for what, value in findings.values.items()}
    if broken := [name for name, value in values.items() if not math.isfinite(value)]:
        raise ValueError(f"{step.label} of {step.checkpoint.label} is not finite: {', '.join(broken)}")
    with ledger.writing(step) as draft:
        (draft.folder / DETAILS).write_text(json.dumps(findings.details, indent=1), encoding="utf-8")
        return draft.commit(
            {
                "values": values,
                "image_backend": image_backend(subject.processor),
                "seconds": time.monotonic() - started,
                "provenance": provenance(begun),
            }
        )
