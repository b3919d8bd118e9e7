"""Each process of a running sweep is killed in turn, at random moments; the sweep ends with the scores of the undisturbed one.

LMMCL_FAULTS_SEED draws the same moments again; LMMCL_FAULTS_TABLE names a file for the table of faults and outcomes.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from chaos import EVERY, KILLED, NODE, PATIENCE, SAME, SWEEP, UPDATES, Table, Victim, chance, scores, shuffled

from lmmcl.ledger import Ledger

pytestmark = [pytest.mark.slow, pytest.mark.faults, pytest.mark.timeout(1800)]

HOW = {
    "worker": "process of a stage in training",
    "evaluation": "process that asks benchmarks",
    "driver": "driver of a trial",
    "actor": "steps actor",
}
SPARSE = NODE.replace(f"save_every: {EVERY}", "save_every: 50")
"""So that what was saved at a notice can be distinguished from what was saved anyway."""


def moment(victim: Victim, part: str, draw: random.Random) -> dict[str, Any]:
    """When to strike: a stage mostly after one of its updates, all else (and a stage now and then) some time after it began."""
    if part == "worker" and draw.random() < 0.75:
        update = draw.randint(1, UPDATES - 5)
        return {"when": lambda process: victim.update_of(process) >= update}
    return {"delay": draw.uniform(0, 2 if part == "worker" else 0.7)}


@pytest.mark.parametrize("part", [1, 2, 3])
def test_any_process_of_a_sweep_may_be_killed(
    part: int, tmp_path: Path, undisturbed: dict[str, list[float]], table: Table
) -> None:
    draw = chance("processes", part)
    left = shuffled({"worker": 3, "evaluation": 2, "driver": 2, "actor": 2}, draw)
    for sweep in range(20):
        if not left:
            break
        folder = tmp_path / str(sweep)
        folder.mkdir()
        victim = Victim(folder)
        command = victim.start()
        struck: Counter[str] = Counter()
        while left and victim.strike(command, left[0], **moment(victim, left[0], draw)):
            struck[left.pop(0)] += 1
            time.sleep(draw.uniform(0, 5))
        outcome = victim.ends_well(command, undisturbed)
        for each, times in struck.items():
            table.add(HOW[each], KILLED, times, SAME)
    assert not left, outcome


def test_a_whole_job_may_be_killed_and_sent_again(
    tmp_path: Path, undisturbed: dict[str, list[float]], table: Table
) -> None:
    draw = chance("job")
    victim = Victim(tmp_path)
    for _ in range(4):
        killed = victim.start()
        kill = lambda _, job=killed: job.process.kill()  # noqa: E731
        assert victim.strike(killed, "worker", kill, **moment(victim, "worker", draw))
        assert killed.wait() == -signal.SIGKILL
        assert killed.gone_within(90), killed.left_behind()
    table.add("whole job", f"{KILLED}; the same command again", 4, victim.ends_well(victim.start(), undisturbed))


def test_a_notice_before_preemption_saves_a_stage_which_goes_on_from_there_however_often(
    tmp_path: Path, undisturbed: dict[str, list[float]], table: Table
) -> None:
    victim = Victim(tmp_path, cluster=SPARSE.replace("max_failures: 20", "max_failures: 0"))
    command = victim.start()
    draw = chance("notice")
    for _ in range(4):
        least = draw.randint(1, 30)
        notify = lambda process: os.kill(process, signal.SIGTERM)  # noqa: E731
        there = lambda process, least=least: victim.is_midway(process, least)  # noqa: E731
        assert victim.strike(command, "worker", notify, when=there)
        time.sleep(2)
    outcome = victim.ends_well(command, undisturbed, interval=0)
    assert len(victim.made_again()) == 4, "each ended a try"
    table.add(
        HOW["worker"], "SIGTERM, as before a spot node goes: saves, ends, resumes; not one error allowed", 4, outcome
    )


def test_a_job_that_is_told_to_end_saves_and_goes_on_with_the_same_command(
    tmp_path: Path, undisturbed: dict[str, list[float]], table: Table
) -> None:
    victim = Victim(tmp_path, cluster=SPARSE)
    command = victim.start()
    told: list[int] = []

    def end(process: int) -> None:
        told.append(process)
        command.process.send_signal(signal.SIGTERM)

    assert victim.strike(command, "worker", end, when=victim.is_midway)
    assert command.wait(100) == 130, command.output
    assert "run the same command to resume" in command.output
    assert command.gone_within(60), command.left_behind()
    key = next(key for key, attempt, update in victim.diary()[::-1] if attempt.startswith(f"{told[0]}-") and update)
    outcome = victim.ends_well(victim.start(), undisturbed, interval=50)
    assert (key, 0) in victim.made_again(), "it saved first"
    table.add("whole job", "SIGTERM (job stop, Slurm, Kubernetes): saves; the same command again", 1, outcome)


def test_a_computation_that_runs_out_of_memory_is_tried_again(
    tmp_path: Path, undisturbed: dict[str, list[float]], table: Table
) -> None:
    draw = chance("memory")
    victim = Victim(tmp_path)
    command = victim.start()
    struck = 0
    for kind in ("update", "evaluate", "update"):
        time.sleep(draw.uniform(0, 5))
        wish = tmp_path / f"diary.{kind}"
        wish.touch()
        while wish.exists() and command.process.poll() is None:
            time.sleep(0.1)
        struck += not wish.exists()
    outcome = victim.ends_well(command, undisturbed)
    assert struck >= 2
    table.add("memory of a computation", "torch can allocate no more, in an update or a benchmark", struck, outcome)


def test_a_worker_group_that_loses_a_worker_goes_on(tmp_path: Path, table: Table) -> None:
    updates = 150
    text = SWEEP.replace("[counting, clock, digits]", "[counting]").replace("[sa_proj, gate_up]", "[sa_proj]")
    text = text.replace(f"max_steps: {UPDATES}", f"max_steps: {updates}")
    group = f"ray: {{cpus: 2, dashboard: true}}\ntraining: {{workers: 1, save_every: {EVERY}, max_failures: 20}}\n"
    (tmp_path / "quiet").mkdir()
    quiet = Victim(tmp_path / "quiet", sweep=text, cluster=group)
    alone = quiet.start()
    assert alone.wait(PATIENCE) == 0, alone.output
    (tmp_path / "torn").mkdir()
    victim = Victim(tmp_path / "torn", sweep=text, cluster=group)
    command = victim.start()
    saved = lambda process: EVERY < victim.update_of(process) < updates - 20  # noqa: E731
    # Ray Train's controller asks every two seconds what its workers have handed over.
    assert victim.strike(command, "group worker", when=saved, delay=2.5)
    victim.ends_well(command, scores(quiet.sweep, Ledger(str(quiet.store))), interval=updates - EVERY)
    assert len(victim.made_again()) == 1
    assert [update for _, _, update in victim.diary()].count(1) == 1, "it resumed mid-stage"
    table.add(
        "worker of a Ray Train group",
        KILLED,
        1,
        "same scores; resumed mid-stage, from the newest checkpoint that Ray Train knew of (it asks every two seconds)",
    )
