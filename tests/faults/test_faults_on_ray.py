"""Runs on a Ray cluster, in worker groups and as jobs lose their processes in every phase, and modes are mixed in one store.

A short chain is in the slow suite; `pytest -m faults tests/faults` plays every chain of lives. LMMCL_FAULTS_RESULTS keeps what
came of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import cluster_cells
import pytest
from cluster_cells import Chain
from cluster_scenes import ClusterWorld
from fault_scenes import World

if TYPE_CHECKING:
    from conftest import Results

CHAINS = cluster_cells.chains()
pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, world: World) -> Iterator[ClusterWorld]:
    with ClusterWorld.served(tmp_path_factory.mktemp("chains"), tmp_path_factory.mktemp("ray"), world) as served:
        yield served


def test_a_worker_group_and_a_job_survive_kills_in_one_store(cluster: ClusterWorld) -> None:
    chain = cluster_cells.small_chain()
    assert {outcome.cell.identity for outcome in cluster.play(chain)} == {cell.identity for cell in chain.cells}


@pytest.mark.faults
@pytest.mark.parametrize("chain", CHAINS, ids=lambda chain: chain.name)
def test_a_chain_of_lives_ends_as_an_undisturbed_run(chain: Chain, cluster: ClusterWorld, results: Results) -> None:
    results.skip_played(chain.cells)
    outcomes = cluster.play(chain)
    assert {outcome.cell.identity for outcome in outcomes} == {cell.identity for cell in chain.cells}
    for outcome in outcomes:
        results.add(outcome)
