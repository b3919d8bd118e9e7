"""What keeps Ray from starting is one message with a remedy, whatever Ray makes of it."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
import ray

from lmmcl.config.cluster import Cluster, RaySettings
from lmmcl.errors import UserError
from lmmcl.runner.ray_backend import start
from lmmcl.runner.ray_backend.start_errors import LONGEST_TEMP, SOCKET, start_error

MISMATCH = "Version mismatch: The cluster was started with:\n    Ray: 2.58.0\n    Python: 3.12.1\nThis process …"
ERRORS = {
    "socket": (OSError("AF_UNIX path length cannot exceed 107 bytes: /x"), f"RAY_TMPDIR.*{LONGEST_TEMP} characters"),
    "silent": (ConnectionError("refused"), r"no Ray cluster answers at 10\.0\.0\.1:6379 \(refused\); start one"),
    "late": (TimeoutError("late"), "no Ray cluster answers"),
    "exit": (SystemExit(15), "no Ray cluster answers.*exited with code 15"),
    "versions": (RuntimeError(MISMATCH), r"other versions.*2\.58\.0 Python: 3\.12\.1.*Install the cluster's versions"),
    "busy": (Exception("The current node timed out during startup."), "this machine is too busy"),
    "port": (ValueError("Port 6379 is already in use"), "another program uses"),
    "bind": (RuntimeError("Address already in use"), "another program uses"),
    "folder": (PermissionError(errno.EACCES, "Permission denied", "/r"), "/r: Permission denied.*RAY_TMPDIR"),
    "home": (FileNotFoundError(errno.ENOENT, "No such file", "/nobody/.ray"), "/nobody/.ray: No such file.*set HOME"),
    "found": (AssertionError(), "no Ray cluster answers"),
}


@pytest.mark.parametrize("kind", ERRORS)
def test_an_error_of_the_surroundings_is_told_with_its_remedy(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    error, told = ERRORS[kind]
    monkeypatch.setenv("HOME", "/nobody")

    def fails(**_: object) -> None:
        raise error

    monkeypatch.setattr(ray, "init", fails)
    monkeypatch.setattr(start, "_wait_for", lambda address: None)
    with pytest.raises(UserError, match=told), start.ray_cluster(Cluster(ray=RaySettings(address="10.0.0.1:6379"))):
        pass


def test_an_error_of_the_program_stays_what_it_is() -> None:
    assert start_error(TypeError("a bug"), "local") is None
    assert start_error(ValueError("a bug"), "local") is None


@pytest.mark.parametrize("address", ["10.0.0.1", "somehost", "host:99999", "host:0", ":6379", "host:port", "h:"])
def test_what_is_no_address_is_refused_before_ray_is_asked(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(UserError, match="host:port is expected"), start.ray_cluster(Cluster()):
        pass


def test_a_dashboard_is_no_cluster_and_its_password_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "http://me:NOTASECRET@host:8265")
    with pytest.raises(UserError, match="lmmcl submit SWEEP --address") as caught, start.ray_cluster(Cluster()):
        pass
    assert "NOTASECRET" not in str(caught.value)


def test_an_empty_address_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "")
    assert start.ray_address(Cluster()) == "local"


@pytest.mark.parametrize("name", ["TMPDIR", "RAY_TMPDIR"])
def test_a_long_folder_for_temporary_files_is_told_by_its_variable(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / ("x" * 70)
    folder.mkdir()
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv(name, str(folder))
    settings = Cluster(ray=RaySettings(address="local", cpus=1))
    with pytest.raises(UserError, match=rf"below {folder} \({name}\).*Set RAY_TMPDIR"), start.ray_cluster(settings):
        pass
    assert len(f"/tmp{SOCKET}") <= 107 < len(f"{folder}{SOCKET}")
