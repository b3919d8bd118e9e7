from __future__ import annotations

import base64
import os
import socket
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from lmmcl.errors import UserError
from lmmcl.tracking.database import (
    check_reachable,
    default_artifact_location,
    default_tracking_uri,
    sqlite_file,
    with_credentials_apart,
)


class Answers(BaseHTTPRequestHandler):
    code = 200

    def do_GET(self) -> None:
        self.send_response(self.code if self.path == "/health" else 404)
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def server(answering: Callable[[type[BaseHTTPRequestHandler]], str]) -> str:
    return answering(Answers)


def test_the_default_store_lies_beside_the_ledger(tmp_path: Path) -> None:
    assert default_tracking_uri(tmp_path) == f"sqlite:///{tmp_path}/mlflow.db"
    assert default_artifact_location(tmp_path) == f"file://{tmp_path}/mlflow-artifacts"
    assert sqlite_file(default_tracking_uri(tmp_path)) == tmp_path / "mlflow.db"


def test_the_default_store_of_a_relative_path_is_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert default_tracking_uri("store") == f"sqlite:///{tmp_path}/store/mlflow.db"
    assert default_tracking_uri(f"file://{tmp_path}") == f"sqlite:///{tmp_path}/mlflow.db"


def test_an_object_store_has_no_default_and_says_what_to_name() -> None:
    with pytest.raises(UserError, match="--mlflow http"):
        default_tracking_uri("s3://bucket/store")


@pytest.mark.parametrize("code", [200, 401])
def test_a_living_server_is_reachable(server: str, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Answers, "code", code)
    check_reachable(server)
    check_reachable(server + "/")


@pytest.mark.parametrize(("code", "remedy"), [(403, "--allowed-hosts"), (500, "mlflow server")])
def test_a_server_that_refuses_is_answered_with_the_remedy(
    server: str, code: int, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Answers, "code", code)
    with pytest.raises(UserError, match=remedy):
        check_reachable(server)


def test_a_dead_server_is_told_at_once_with_the_remedy() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(UserError, match=r"cannot be reached .*mlflow server") as caught:
        check_reachable(f"http://127.0.0.1:{port}")
    assert str(port) in str(caught.value)


def test_a_database_file_gets_its_folder(tmp_path: Path) -> None:
    check_reachable(default_tracking_uri(tmp_path / "new" / "store"))
    assert (tmp_path / "new" / "store").is_dir()


def test_a_database_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be created"):
        check_reachable(f"sqlite:///{tmp_path}/file/mlflow.db")


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write anywhere")
def test_a_database_without_permission_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="no permission"):
        check_reachable(default_tracking_uri(tmp_path))


@pytest.mark.parametrize("uri", ["./mlruns", "file:///tmp/mlruns", "ftp://host", ""])
def test_what_mlflow_cannot_use_is_refused(uri: str) -> None:
    with pytest.raises(UserError, match="allowed"):
        check_reachable(uri)


def test_a_database_in_memory_is_refused() -> None:
    with pytest.raises(UserError, match="names no file"):
        check_reachable("sqlite://")


def test_user_and_password_of_a_server_are_sent_as_it_expects_them(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    monkeypatch.setattr(Answers, "send_response", lambda self, code: (seen.append(self.headers.get("Authorization")), BaseHTTPRequestHandler.send_response(self, code)))  # fmt: skip
    uri = server.replace("http://", "http://me:p%40ss@")
    check_reachable(uri)
    assert seen == [f"Basic {base64.b64encode(b'me:p@ss').decode()}"]
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "another")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "another")
    assert with_credentials_apart(uri) == server
    assert (os.environ["MLFLOW_TRACKING_USERNAME"], os.environ["MLFLOW_TRACKING_PASSWORD"]) == ("me", "p@ss")
    for other in (server, "postgresql://me:pw@host/db"):
        assert with_credentials_apart(other) == other
