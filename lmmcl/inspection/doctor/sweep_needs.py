"""What one sweep needs and this machine lacks: models, prepared data, memory, packages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from lmmcl.config.cluster import Cluster
from lmmcl.config.sweep import Sweep, load_sweep
from lmmcl.errors import UserError
from lmmcl.inspection.doctor.finding import Finding
from lmmcl.ledger import Ledger
from lmmcl.planning.inputs import missing_inputs
from lmmcl.planning.plan import Plan, make_plan


def read_sweep(path: Path, ledger: Ledger, cluster: Cluster | None) -> tuple[Sweep, Plan]:
    """The sweep and its plan; raises UserError as `lmmcl plan` does."""
    sweep = load_sweep(path)
    return sweep, make_plan(sweep, ledger, cluster)


def sweep_findings(sweep: Sweep, plan: Plan) -> Iterator[Finding]:
    """What is to run, and what it lacks."""
    wanted, missing = sum(plan.wanted.values()), sum(plan.to_run.values())
    size = f", {plan.bytes_to_write / 1e9:,.1f} GB to be written" if plan.bytes_to_write >= 10**8 else ""
    yield Finding("sweep", "ok", f"{sweep.name}: {len(sweep.trials)} trials, {missing} of {wanted} steps to run{size}")
    for error in missing_inputs(sweep.trials):
        yield Finding("sweep", "problem", str(error))
    for check in (plan.refuse_overlaps, plan.refuse_infeasible):
        try:
            check()
        except UserError as error:
            yield Finding("sweep", "problem", str(error))
    for note in plan.notes:
        yield Finding("sweep", "warning", note)
