"""`lmmcl doctor`: a screen on what a run would find, with a remedy for each fault, and nothing written."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
from hub_server.server import HubServer
from made import write_sweep
from typer.testing import CliRunner

from lmmcl.cli import app
from lmmcl.config.cluster import Cluster
from lmmcl.inspection.doctor import machine, packages, services
from lmmcl.inspection.doctor.finding import Examination, Finding
from lmmcl.ledger import Ledger


@pytest.fixture
def one() -> Callable[[Iterator[Finding]], Finding]:
    def only(findings: Iterator[Finding]) -> Finding:
        (finding,) = findings
        return finding

    return only


def test_a_machine_that_is_ready_has_a_line_for_each_subject(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("RAY_ADDRESS", "RAY_TMPDIR", "TMPDIR"):
        monkeypatch.delenv(name, raising=False)
    sweep = write_sweep(tmp_path)
    done = CliRunner().invoke(app, ["doctor", str(sweep), "--json"])
    found = json.loads(done.stdout)
    subjects = [finding["subject"] for finding in found["findings"]]
    assert list(dict.fromkeys(subjects)) == [
        "lmmcl",
        "packages",
        "GPU",
        "Ray",
        "store",
        "MLflow",
        "hub",
        "disk",
        "sweep",
    ]
    assert found["ok"] == (done.exit_code == 0) == all(each["state"] != "problem" for each in found["findings"])
    assert not (tmp_path / "lmmcl-store").exists(), "looking makes no store"
    screen = CliRunner().invoke(app, ["doctor", str(sweep)]).stdout
    assert all(subject in screen for subject in subjects)
    assert "0 problems" in screen


def test_what_a_sweep_lacks_is_told_and_ends_with_exit_code_2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LMMCL_DATA", str(tmp_path / "data"))
    (tmp_path / "big.yaml").write_text(
        "name: big\norders: {main: [cub200]}\ngrids:\n  - {model: [qwen2.5-vl-3b], recipe: [sa_proj]}\n"
    )
    done = CliRunner().invoke(app, ["doctor", str(tmp_path / "big.yaml"), "--store", str(tmp_path / "store")])
    assert done.exit_code == 2
    unwrapped = " ".join(done.stdout.split())
    assert "hf download Qwen/Qwen2.5-VL-3B-Instruct" in unwrapped
    assert "lmmcl data prepare" in unwrapped
    (tmp_path / "big.yaml").write_text("name: big\norders: {main: [cub20]}\n")
    done = CliRunner().invoke(app, ["doctor", str(tmp_path / "big.yaml"), "--json"])
    assert done.exit_code == 2
    (problem,) = [each for each in json.loads(done.stdout)["findings"] if each["state"] == "problem"]
    assert problem["subject"] == "sweep"
    assert "grids: is missing" in problem["what"]


def test_a_package_that_is_missing_or_of_another_version_comes_with_its_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def version(name: str) -> str:
        if name not in installed:
            raise PackageNotFoundError(name)
        return installed[name]

    installed = {"transformers": "4.40.0", "torch": "2.13.0"}

    monkeypatch.setattr(packages, "version", version)
    monkeypatch.setattr(
        packages,
        "requires",
        lambda name: ["torch>=2.9,<2.14", "transformers>=5.23,<6", "peft>=0.20", "ray>=2.58", "x; extra == 'bench'"],
    )
    found = list(packages.package_findings())
    told = {finding.what: (finding.state, finding.remedy) for finding in found}
    assert told["peft is not installed, which any sweep needs"] == ("problem", "pip install 'peft>=0.20'")
    assert told["ray is not installed, which anything but --inline needs"] == ("warning", "pip install 'ray>=2.58'")
    assert told["transformers 4.40.0 is outside the range that was tested (<6,>=5.23)"][0] == "warning"
    assert found[-1].what == "torch 2.13.0, transformers 4.40.0"

    def absent(name: str) -> list[str]:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(packages, "requires", absent)
    assert [finding.remedy for finding in packages.package_findings()][-1] == "run `pip install -e .` in its folder"


def test_gpus_that_a_cluster_file_asks_for_and_that_are_not_there_are_a_problem(
    monkeypatch: pytest.MonkeyPatch, one: Callable
) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(machine.shutil, "which", lambda name: None)
    assert one(machine.gpu_findings(Cluster())).state == "ok"
    wanted = Cluster.model_validate({"training": {"gpus_per_worker": 1}})
    finding = one(machine.gpu_findings(wanted))
    assert (finding.state, finding.what[-34:]) == ("problem", "the cluster file asks 1 for a step")
    monkeypatch.setattr(machine.shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    finding = one(machine.gpu_findings(Cluster()))
    assert "there is an NVIDIA driver, but torch" in finding.what
    assert "install a build of torch" in finding.remedy


def test_gpus_that_others_use_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda number: "H200")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda number: (int(140e9 if number else 20e9), int(150e9)))
    found = list(machine.gpu_findings(Cluster()))
    assert [(each.subject, each.state) for each in found] == [("GPU 0", "warning"), ("GPU 1", "ok"), ("GPU", "warning")]
    assert found[0].what == "H200, 20 of 150 GB free"
    assert "nvidia-smi" in found[0].remedy


def test_a_cluster_that_does_not_answer_and_a_long_folder_for_sockets_are_problems(
    monkeypatch: pytest.MonkeyPatch, one: Callable
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", "/tmp/" + "long/" * 20)
    finding = one(machine.ray_findings(Cluster()))
    assert (finding.state, finding.remedy) == ("problem", "export RAY_TMPDIR=/tmp, or any short path")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{port}")
        assert one(machine.ray_findings(Cluster())).state == "ok"
    finding = one(machine.ray_findings(Cluster()))
    assert finding.state == "problem"
    assert f"nobody answers at 127.0.0.1:{port}" in finding.what
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    assert "which only Ray can look up" in one(machine.ray_findings(Cluster())).what


def test_a_store_and_a_server_that_cannot_be_used_are_problems(
    tmp_path: Path, one: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert one(services.store_findings(Ledger(str(tmp_path / "new")))).what.endswith("new (new)")
    (tmp_path / "there").mkdir()
    assert one(services.store_findings(Ledger(str(tmp_path / "there")))).what.endswith("there, 0 steps recorded")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert one(services.store_findings(Ledger(str(tmp_path / "new")))).state == "problem"
    finding = one(services.mlflow_findings("http://user:secret@127.0.0.1:9", Ledger(str(tmp_path))))
    assert (finding.state, "secret" in finding.what) == ("problem", False)
    assert one(services.mlflow_findings("off", Ledger(str(tmp_path)))).state == "ok"
    assert one(services.mlflow_findings(None, Ledger("memory://store"))).state == "problem"


def test_the_hub_is_asked_once_and_shortly(tmp_path: Path) -> None:
    code = (
        "from lmmcl.inspection.doctor.services import hub_findings\n"
        "for finding in hub_findings(): print(finding.state, finding.what)"
    )

    def told(**more: str) -> str:
        environment = {**os.environ, **hub.environment(tmp_path), "PYTHONPATH": str(Path(__file__).parents[2]), **more}
        return subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
        ).stdout

    with HubServer([]) as hub:
        assert (
            told(HF_TOKEN="")
            == f"ok {hub.url} answers; no token (gated models need one: `hf auth login`); 0 models in the cache\n"
        )
        assert "answers, but does not take the token" in told(HF_TOKEN="hf_other")
        assert told(HF_HUB_OFFLINE="1").startswith("ok HF_HUB_OFFLINE is set")
    assert told(HF_TOKEN="").startswith(f"warning {hub.url} does not answer (ConnectError); 0 models")


def test_too_little_space_for_what_a_sweep_writes_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        machine.shutil, "disk_usage", lambda path: os.statvfs_result and type("U", (), {"free": 5 * 10**9})
    )
    store, cache, temporary = machine.disk_findings(Ledger(str(tmp_path / "a" / "b")), 8 * 10**9)
    assert store.state == "problem"
    assert "5 GB free for the store" in store.what and "will write 8 GB" in store.what
    assert cache.state == temporary.state == "warning"
    (*_, last) = machine.disk_findings(Ledger("memory://store"), None)
    assert "temporary files" in last.what


def test_the_screen_counts_problems_and_shows_brackets_as_they_are() -> None:
    from rich.console import Console

    found = Examination(
        [Finding("sweep", "problem", "grids[0].model[0]: [no]", "do [this]"), Finding("disk", "warning", "low")]
    )
    console = Console(width=100, record=True, file=open(os.devnull, "w"))  # noqa: SIM115, PTH123
    console.print(found.table())
    text = console.export_text()
    assert "grids[0].model[0]: [no]" in text and "→ do [this]" in text
    assert text.rstrip().endswith("1 problem, 1 warning")
