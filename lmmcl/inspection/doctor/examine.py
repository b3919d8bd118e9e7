"""All looks of `lmmcl doctor`, in the order of a screen."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from lmmcl.config.cluster import Cluster
from lmmcl.errors import UserError
from lmmcl.inspection.doctor.finding import Examination, Finding
from lmmcl.inspection.doctor.machine import disk_findings, gpu_findings, ray_findings
from lmmcl.inspection.doctor.packages import package_findings
from lmmcl.inspection.doctor.services import hub_findings, mlflow_findings, store_findings
from lmmcl.inspection.doctor.sweep_needs import read_sweep, sweep_findings
from lmmcl.ledger import Ledger


def examine(
    ledger: Ledger, cluster: Cluster | None, *, sweep: Path | None = None, mlflow: str | None = None
) -> Examination:
    """Look at this machine as a run with these settings would use it, and at what `sweep` misses. Writes nothing that stays."""
    return Examination(list(_findings(ledger, cluster, sweep, mlflow)))


def _findings(ledger: Ledger, cluster: Cluster | None, sweep: Path | None, mlflow: str | None) -> Iterator[Finding]:
    place = cluster or Cluster()
    yield from package_findings()
    yield from gpu_findings(place)
    yield from ray_findings(place)
    yield from store_findings(ledger)
    yield from mlflow_findings(mlflow, ledger)
    yield from hub_findings()
    needed, last = None, list[Finding]()
    if sweep is not None:
        try:
            loaded, plan = read_sweep(sweep, ledger, cluster)
            needed, last = plan.bytes_to_write, list(sweep_findings(loaded, plan))
        except UserError as error:
            last = [Finding("sweep", "problem", str(error))]
    yield from disk_findings(ledger, needed)
    yield from last
