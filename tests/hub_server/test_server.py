"""The local hub answers as the hub does; what its clients make of that is tested where they are used."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.client import IncompleteRead
from pathlib import Path

import pytest
from hub_server.repositories import Repository, commit_of
from hub_server.server import HubServer, Request

OLD, NEW = commit_of("old"), commit_of("new")


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubServer]:
    for name in ("old", "new"):
        (tmp_path / name / "data").mkdir(parents=True)
        (tmp_path / name / "config.json").write_text(name)
        (tmp_path / name / "data" / "train.parquet").write_bytes(b"0123456789")
    commits = {OLD: tmp_path / "old", NEW: tmp_path / "new"}
    models = [
        Repository("o/model", commits, tags={"v1": OLD}),
        Repository("o/gated", commits, gated=True),
        Repository("o/data", commits, kind="dataset"),
    ]
    with HubServer(models) as server:
        yield server


def get(hub: HubServer, path: str, **headers: str) -> bytes:
    with urllib.request.urlopen(urllib.request.Request(hub.url + path, headers=headers)) as answer:
        return answer.read()


def refusal(hub: HubServer, path: str, **headers: str) -> tuple[int, str]:
    with pytest.raises(urllib.error.HTTPError) as caught:
        get(hub, path, **headers)
    with caught.value as error:
        return error.code, error.headers["X-Error-Code"]


@pytest.mark.parametrize(
    ("revision", "content"),
    [("main", b"new"), ("v1", b"old"), (OLD, b"old"), (NEW[:8], b"new"), ("refs%2Fheads%2Fmain", b"new")],
)
def test_a_file_is_found_by_branch_tag_and_commit(hub: HubServer, revision: str, content: bytes) -> None:
    assert get(hub, f"/o/model/resolve/{revision}/config.json") == content
    assert get(hub, f"/datasets/o/data/resolve/{revision.replace('v1', OLD)}/config.json") == content


def test_a_tree_lists_folders_or_all_files_below(hub: HubServer) -> None:
    top = json.loads(get(hub, f"/api/models/o/model/tree/{NEW}"))
    assert [(each["type"], each["path"]) for each in top] == [("directory", "data"), ("file", "config.json")]
    below = json.loads(get(hub, f"/api/datasets/o/data/tree/{NEW}/data?recursive=True"))
    assert [(each["path"], each["lfs"]["size"]) for each in below] == [("data/train.parquet", 10)]


def test_what_is_missing_or_gated_is_refused_in_the_words_of_the_hub(hub: HubServer) -> None:
    assert refusal(hub, "/api/models/o/none") == (401, "RepoNotFound")
    assert refusal(hub, "/api/datasets/o/model") == (401, "RepoNotFound")
    assert refusal(hub, "/api/models/o/model/revision/v2") == (404, "RevisionNotFound")
    assert refusal(hub, "/o/model/resolve/main/none.json") == (404, "EntryNotFound")
    assert refusal(hub, "/o/gated/resolve/main/config.json") == (401, "GatedRepo")
    assert refusal(hub, "/o/gated/resolve/main/config.json", Authorization="Bearer other") == (403, "GatedRepo")
    assert get(hub, "/o/gated/resolve/main/config.json", Authorization=f"Bearer {hub.token}") == b"new"


def test_a_connection_breaks_off_and_the_rest_of_a_file_is_sent_from_a_byte_on(hub: HubServer) -> None:
    hub.break_off("train.parquet", after=4)
    path = "/o/model/resolve/main/data/train.parquet"
    with pytest.raises(IncompleteRead) as caught:
        get(hub, path)
    assert caught.value.partial == b"0123"
    assert get(hub, path, Range="bytes=4-") == b"456789"
    assert hub.sent("train.parquet") == [Request("GET", path, 0), Request("GET", path, 4)]
