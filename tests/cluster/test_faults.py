"""Each part of a running sweep is killed in turn, at random moments; the sweep ends with the scores of the undisturbed one.

Prints a table of faults and outcomes, and writes it to the file that LMMCL_FAULTS_TABLE names.
"""

from __future__ import annotations

import http.server
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from chaos import NODE, SWEEP, Table, Victim, no_memory, scores, shuffled, strike
from made import write_sweep
from processes import Command
from s3 import damage

from lmmcl.ledger import Ledger
from lmmcl.spec.steps import Finetune
from lmmcl.spec.sweep import load_sweep

pytestmark = [pytest.mark.slow, pytest.mark.faults, pytest.mark.timeout(2400)]

KILLED = "SIGKILL at a random moment"
HOW = {
    "worker": "process of a stage in training",
    "evaluation": "process that asks benchmarks",
    "driver": "driver of a trial",
    "actor": "steps actor",
}


@pytest.fixture(scope="module")
def table() -> Iterator[Table]:
    table = Table()
    yield table
    print(f"\n{table.text()}\n")
    if path := os.environ.get("LMMCL_FAULTS_TABLE"):
        Path(path).write_text(f"{table.text()}\n", encoding="utf-8")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[float]]:
    folder = tmp_path_factory.mktemp("undisturbed")
    sweep = load_sweep(write_sweep(folder, SWEEP))
    alone = Command("run", "small.yaml", "--store", "store", "--mlflow", "off", "--inline", cwd=folder)
    assert alone.wait(400) == 0, alone.output
    return scores(sweep, Ledger(str(folder / "store")))


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_any_process_of_a_sweep_may_be_killed(
    seed: int, tmp_path: Path, undisturbed: dict[str, list[float]], table: Table
) -> None:
    chance = random.Random(seed)
    left = shuffled({"worker": 3, "evaluation": 2, "driver": 2, "actor": 2}, seed)
    for sweep in range(20):
        if not left:
            break
        folder = tmp_path / str(sweep)
        folder.mkdir()
        victim = Victim(folder)
        command = victim.start()
        struck: Counter[str] = Counter()
        while left and strike(command, left[0], delay=chance.uniform(0, 4 if left[0] == "worker" else 0.7)):
            struck[left.pop(0)] += 1
            time.sleep(chance.uniform(0, 5))
        outcome = victim.ends_well(command, undisturbed)
        for part, times in struck.items():
            table.add(HOW[part], KILLED, times, outcome)
    assert not left


def test_a_whole_job_may_be_killed_and_sent_again(
    tmp_path: Path, undisturbed: dict[str, list[float]], table: Table
) -> None:
    chance = random.Random(4)
    victim = Victim(tmp_path)
    for _ in range(4):
        killed = victim.start()
        strike(killed, "worker", lambda process, killed=killed: killed.process.kill(), delay=chance.uniform(0, 8))
        assert killed.wait() == -signal.SIGKILL
        killed.gone_within(90)
    outcome = victim.ends_well(victim.start(), undisturbed)
    table.add("whole job (or its head)", f"{KILLED}; the same command again", 4, outcome)


def test_a_notice_before_preemption_saves_a_stage_which_goes_on_from_there(
    tmp_path: Path, undisturbed: dict[str, list[float]], table: Table
) -> None:
    cluster = NODE.replace("save_every: 10", "save_every: 50")
    victim = Victim(tmp_path, cluster=cluster)
    command = victim.start()
    struck = 0
    for _ in range(4):
        struck += strike(
            command,
            "worker",
            lambda process: os.kill(process, signal.SIGTERM),
            when=lambda: any((victim.store / "runs").glob("*")),
            delay=1.0,
        )
        time.sleep(2)
    outcome = victim.ends_well(command, undisturbed)
    saves = [update for what, _, update in victim.watch.events if what == "save"]
    assert any(update % 50 for update in saves), f"no save at a notice: {saves}"
    table.add(HOW["worker"], "SIGTERM, as before a spot node goes: saves, ends, goes on elsewhere", struck, outcome)


def test_a_job_that_is_told_to_end_saves_and_goes_on_with_the_same_command(
    tmp_path: Path, undisturbed: dict[str, list[float]], table: Table
) -> None:
    victim = Victim(tmp_path, cluster=NODE.replace("save_every: 10", "save_every: 50"))
    command = victim.start()
    training = lambda: any((victim.store / "runs").glob("*"))  # noqa: E731
    assert strike(command, "worker", lambda _: command.process.send_signal(signal.SIGTERM), when=training, delay=1.0)
    assert command.wait(100) == 130, command.output
    assert "goes on from there" in command.output
    assert command.gone_within(60), command.left_behind()
    assert [update for what, _, update in victim.watch.events if what == "save" and update % 50], "it saved first"
    outcome = victim.ends_well(victim.start(), undisturbed)
    table.add("whole job", "SIGTERM (job stop, Slurm, Kubernetes); the same command again", 1, outcome)


def test_a_process_that_runs_out_of_memory_is_tried_again(
    tmp_path: Path, undisturbed: dict[str, list[float]], table: Table
) -> None:
    victim = Victim(tmp_path)
    command = victim.start()
    struck = 0
    for part in ("worker", "evaluation", "worker"):
        struck += strike(command, part, no_memory, delay=0.5)
    outcome = victim.ends_well(command, undisturbed)
    table.add("memory of a computing process", "no allocation succeeds for three seconds", struck, outcome)


def test_a_worker_group_that_loses_a_worker_goes_on(tmp_path: Path, table: Table) -> None:
    text = SWEEP.replace("[counting, clock, digits]", "[counting]").replace("[sa_proj, gate_up]", "[sa_proj]")
    group = "ray: {cpus: 2, dashboard: true}\ntraining: {workers: 1, save_every: 10, max_failures: 20}\n"
    (tmp_path / "quiet").mkdir()
    quiet = Victim(tmp_path / "quiet", sweep=text, cluster=group)
    alone = quiet.start()
    assert alone.wait(400) == 0, alone.output
    (tmp_path / "torn").mkdir()
    victim = Victim(tmp_path / "torn", sweep=text, cluster=group)
    command = victim.start()
    saved = lambda: any((victim.store / "runs").rglob("trainer_state.json"))  # noqa: E731
    assert strike(command, "group worker", when=saved, delay=3)
    victim.ends_well(command, scores(quiet.sweep, Ledger(str(quiet.store))))
    record = Ledger(str(victim.store)).find(
        next(step for step in victim.sweep.steps.values() if isinstance(step, Finetune))
    )
    assert record and record["updates"] == 60
    table.add("worker of a Ray Train group", KILLED, 1, "same scores as an undisturbed group; resumed mid-stage")


def test_nodes_may_leave_a_cluster(
    tmp_path: Path, undisturbed: dict[str, list[float]], table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    several = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "resources": {"head": 10}})
    try:
        nodes = [several.add_node(num_cpus=1) for _ in range(2)]
        monkeypatch.setenv("RAY_ADDRESS", several.address)
        victim = Victim(
            tmp_path, cluster="driver: {resources: {head: 0.001}}\ntraining: {save_every: 10, max_failures: 0}\n"
        )
        command = victim.start()
        for number in range(2):
            end = time.monotonic() + 400
            while not victim.training_saved():
                assert command.process.poll() is None and time.monotonic() < end, command.output
                time.sleep(0.1)
            several.remove_node(nodes[number], allow_graceful=False)
            nodes.append(several.add_node(num_cpus=1))
            time.sleep(5)
        outcome = victim.ends_well(command, undisturbed)
    finally:
        several.shutdown()
    table.add("worker node", "removed mid-stage (its raylet and processes killed), another added", 2, outcome)


def test_files_that_were_damaged_are_found_and_computed_again_in_the_same_run(
    tmp_path: Path, undisturbed: dict[str, list[float]], table: Table
) -> None:
    victim = Victim(tmp_path)
    first = victim.start("--inline")
    assert first.wait(400) == 0, first.output
    ledger, chance = Ledger(str(victim.store)), random.Random(5)
    stages = [step for step in victim.sweep.steps.values() if isinstance(step, Finetune)]
    hit = chance.sample(stages, 4)
    for number, step in enumerate(hit):
        for asked in (
            each for each in victim.sweep.steps.values() if each.kind == "evaluate" and each.parents[0] == step
        ):
            (victim.store / asked.path / "record.json").unlink()
        damage(ledger, step.path, "delta.safetensors", truncate=bool(number % 2))
    untouched = next(
        step for step in victim.sweep.steps.values() if step.kind == "evaluate" and step.parents[0] not in hit
    )
    record = victim.store / untouched.path / "record.json"
    record.write_text(record.read_text()[:100])  # a record that was cut is none
    before = victim.watch.starts()
    again = victim.start()  # on Ray, where the error comes out of a task in another process
    victim.ends_well(again, undisturbed, repeats=1000)
    more = {key for key, times in victim.watch.starts().items() if times > before.get(key, 0)}
    wanted = {step.key for step in hit} | {untouched.key}
    assert wanted <= more
    assert {key for key in more if victim.sweep.steps[key].kind == "finetune"} == {step.key for step in hit}
    table.add(
        "files in the store",
        "weights cut or changed in a byte, a record cut",
        5,
        "told by digest; those steps, and no others, computed again in the same run; same scores",
    )


def test_an_mlflow_server_that_goes_away_ends_no_sweep(
    tmp_path: Path, undisturbed: dict[str, list[float]], table: Table
) -> None:
    class Healthy(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/health" else 503)
            self.end_headers()

        def log_message(self, *words: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Healthy)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    victim = Victim(tmp_path)
    command = victim.start(mlflow=f"http://127.0.0.1:{server.server_port}")

    def unplug(_: int) -> None:
        server.shutdown()
        server.server_close()

    assert strike(command, "worker", unplug, delay=1)
    outcome = victim.ends_well(command, undisturbed)
    assert "nothing is lost" in command.output, command.output
    table.add(
        "MLflow server", "refuses, then is gone", 1, f"{outcome}; told at the end, with the command that fills it"
    )


def test_at_least_forty_faults_were_survived(table: Table) -> None:
    assert table.faults >= 40, table.text()
    assert set(HOW.values()) <= {row[0] for row in table.rows}
