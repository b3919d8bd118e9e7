"""What a hub answers beside files: gated, missing, another revision; and what happens on the way: breaks, kills, a full cache.

Each client is a process of its own, as `huggingface_hub` reads its environment once.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_server.repositories import Repository, commit_of
from hub_server.server import HubServer

from lmmcl.models import get_model

OLD, NEW = commit_of("old"), commit_of("new")
BYTES = 3_000_000
FETCH = """
import sys, huggingface_hub.constants
huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE = 100_000  # what a broken connection loses at most; as shipped 10 MB
from lmmcl.errors import UserError
from lmmcl.models import get_model
for name in sys.argv[1:]:
    try:
        model = get_model(name)
        {before}
        folder = model.hub_files.fetch()
        print(model.commit, (folder / "model.safetensors").stat().st_size, (folder / "chat_template.jinja").read_text())
    except UserError as error:
        print(error)
"""


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubServer]:
    for name in ("old", "new"):
        folder = tmp_path / "served" / name
        folder.mkdir(parents=True)
        (folder / "config.json").write_text('{"model_type": "qwen2_5_vl"}')
        (folder / "preprocessor_config.json").write_text("{}")
        (folder / "chat_template.jinja").write_text(name)
        (folder / "model.safetensors").write_bytes(bytes(BYTES))
        (folder / "consolidated.safetensors").write_bytes(bytes(BYTES))
    commits = {OLD: tmp_path / "served" / "old", NEW: tmp_path / "served" / "new"}
    named = Repository("OpenGVLab/InternVL3_5-1B-HF", commits, tags={"v1.0": OLD})
    pinned = get_model("qwen2.5-vl-3b").revision  # type: ignore[attr-defined]
    known = Repository(
        "Qwen/Qwen2.5-VL-3B-Instruct", {pinned: tmp_path / "served" / "old", NEW: tmp_path / "served" / "new"}
    )
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    repositories = [
        Repository("maker/open", commits, tags={"v1.0": OLD}, branches={"fixes/tokens": OLD}),
        Repository("maker/gated", commits, gated=True),
        named,
        known,
        Repository("maker/adapter", {NEW: tmp_path / "adapter"}),
    ]
    with HubServer(repositories) as server:
        yield server


class Client:
    def __init__(self, hub: HubServer, home: Path) -> None:
        self.hub, self.home = hub, home

    def start(self, *names: str, before: str = "pass", **more: str) -> subprocess.Popen[str]:
        environment = {**os.environ, **self.hub.environment(self.home), **more}
        environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[2]), environment.get("PYTHONPATH", "")])
        words = [sys.executable, "-c", FETCH.format(before=before), *names]
        return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)

    def fetch(self, *names: str, before: str = "pass", **more: str) -> str:
        """A line for each name: commit, bytes of the weights and the chat template; for a refusal its message."""
        process = self.start(*names, before=before, **more)
        out, error = process.communicate(timeout=240)
        assert process.returncode == 0, error
        return out.strip()


@pytest.fixture
def client(hub: HubServer, tmp_path: Path) -> Client:
    return Client(hub, tmp_path / "home")


def test_a_revision_is_a_branch_a_tag_or_a_commit_and_stays_what_it_was(hub: HubServer, client: Client) -> None:
    assert client.fetch("maker/open") == f"{NEW} {BYTES} new"
    assert not hub.sent("consolidated.safetensors"), "only what transformers loads is fetched"
    others = [f"maker/open@{revision}" for revision in ("v1.0", "fixes/tokens", OLD)]
    assert client.fetch(*others) == "\n".join([f"{OLD} {BYTES} old"] * 3)
    hub.find("model", "maker/open").branches["main"] = OLD  # type: ignore[union-attr]
    hub.requests.clear()
    assert client.fetch("maker/open") == f"{NEW} {BYTES} new"
    assert hub.requests == []
    assert client.fetch("maker/open", HF_HUB_OFFLINE="1") == f"{NEW} {BYTES} new"
    assert client.fetch(f"maker/open@{OLD}", HF_ENDPOINT="http://127.0.0.1:9") == f"{OLD} {BYTES} old"


def test_a_short_name_without_a_revision_records_the_one_that_it_finds(hub: HubServer, client: Client) -> None:
    told = "print(model.reference, model.identity()['name'], model.identity()['revision'])"
    name = "OpenGVLab/InternVL3_5-1B-HF"
    expected = f"{name}@{NEW} internvl3.5-1b {NEW}\n{NEW} {BYTES} new"
    assert client.fetch("internvl3.5-1b", before=told) == expected
    hub.find("model", name).branches["main"] = OLD  # type: ignore[union-attr]
    same = ("internvl3.5-1b", name, f"{name}@{NEW}", f"internvl3.5-1b@{NEW}")
    assert client.fetch(*same, "internvl3.5-1b@v1.0", before=told).startswith("\n".join([expected] * 4))
    assert client.fetch("internvl3.5-1b@v1.0") == f"{OLD} {BYTES} old"


def test_a_pinned_model_is_fetched_at_its_commit_whatever_the_branch_says(hub: HubServer, client: Client) -> None:
    pinned = get_model("qwen2.5-vl-3b").revision  # type: ignore[attr-defined]
    told = client.fetch("Qwen/Qwen2.5-VL-3B-Instruct", "qwen2.5-vl-3b", f"Qwen/Qwen2.5-VL-3B-Instruct@{NEW}")
    assert told.splitlines() == [f"{pinned} {BYTES} old", f"{pinned} {BYTES} old", f"{NEW} {BYTES} new"]
    assert len(hub.sent("model.safetensors")) == 1, "equal bytes of two commits are one file of the cache"


def test_a_gated_model_says_what_to_do_and_comes_with_a_token(client: Client) -> None:
    refusal = client.fetch("maker/gated")
    assert refusal.startswith(f"model maker/gated: maker/gated at revision {NEW}: gated: accept its terms on its page")
    assert "HF_TOKEN" in refusal
    assert client.fetch("maker/gated", before="model.check()", HF_TOKEN="hf_other") == refusal
    assert client.fetch("maker/gated", before="model.check()", HF_TOKEN="hf_local") == f"{NEW} {BYTES} new"


def test_what_the_hub_does_not_have_is_answered_with_what_it_has(client: Client) -> None:
    told = {
        "maker/open": f"{NEW} {BYTES} new",  # it is in the cache from now on
        "Qwen/Qwen2.5-VL-3B-Instuct": "no such model, or it is private (set HF_TOKEN); did you mean Qwen/Qwen2.5-VL-3B-Instruct",
        "maker/opne": "did you mean maker/open?",
        "maker/open@v1.1": "has no revision 'v1.1'; did you mean 'v1.0'? allowed: a commit, or fixes/tokens, main, v1.0",
        f"maker/open@{commit_of('none')}": f"has no revision '{commit_of('none')}'",
        "maker/adapter": "holds an adapter and no model; `hf download maker/adapter --local-dir FOLDER`",
        "models/mine": "models/mine does not exist)",
    }
    lines = client.fetch(*told, before="model.config").splitlines()
    assert len(lines) == len(told)
    for line, said in zip(lines, told.values(), strict=True):
        assert said in line


def test_without_network_and_cache_the_message_says_how_to_fetch(client: Client) -> None:
    refusal = client.fetch("maker/open@v1.0", HF_HUB_OFFLINE="1")
    assert "not in the local cache and HF_HUB_OFFLINE is set" in refusal
    assert "`hf download maker/open --revision v1.0`" in refusal
    refusal = client.fetch(f"maker/open@{NEW}", HF_ENDPOINT="http://127.0.0.1:9")
    assert "the hub cannot be reached" in refusal


def test_a_connection_that_breaks_off_is_resumed_where_it_broke(hub: HubServer, client: Client) -> None:
    hub.break_off("model.safetensors", after=1_250_000, times=2)
    assert client.fetch("maker/open") == f"{NEW} {BYTES} new"
    starts = [request.start for request in hub.sent("model.safetensors")]
    assert len(starts) == 3
    assert starts[0] == 0
    assert 1_000_000 < starts[1] < starts[2] < BYTES


@pytest.mark.slow
def test_after_a_download_that_was_killed_only_what_was_not_whole_is_fetched(hub: HubServer, client: Client) -> None:
    hub.pause("model.safetensors", after=1_250_000, seconds=60)
    process = client.start("maker/open")
    deadline = time.monotonic() + 60
    while (
        not list(client.home.rglob("*.incomplete"))
        or max(p.stat().st_size for p in client.home.rglob("*.incomplete")) == 0
    ):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.kill()
    process.communicate()
    hub.pause("model.safetensors", after=0, seconds=0)
    assert client.fetch("maker/open") == f"{NEW} {BYTES} new"
    assert len(hub.sent("model.safetensors")) == 2
    assert len(hub.sent("chat_template.jinja")) == 1


@pytest.mark.slow
def test_two_processes_that_share_a_cache_download_once(hub: HubServer, client: Client) -> None:
    hub.pause("model.safetensors", after=1_250_000, seconds=1)
    both = [client.start("maker/open"), client.start("maker/open")]
    results = [process.communicate(timeout=120)[0].strip() for process in both]
    assert results == [f"{NEW} {BYTES} new"] * 2
    assert len(hub.sent("model.safetensors")) == 1


def test_a_cache_without_room_is_refused_before_and_told_on_the_way(hub: HubServer, client: Client) -> None:
    little = "import shutil; shutil.disk_usage = lambda path: shutil._ntuple_diskusage(10**9, 10**9, 2_000_000)"
    refusal = client.fetch("maker/open", before=little)
    assert "no space left for it in the cache" in refusal
    assert "0.0 GB are to be downloaded, 0.0 GB are free" in refusal
    assert "HF_HOME" in refusal
    assert not hub.sent("model.safetensors")
    limited = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))"
    refusal = client.fetch("maker/open", before=limited)
    assert "no space left for it in the cache" in refusal
    assert "files that were downloaded whole stay" in refusal
    assert client.fetch("maker/open") == f"{NEW} {BYTES} new"


def test_a_cache_that_cannot_be_written_is_named(client: Client, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    refusal = client.fetch(f"maker/open@{NEW}", HF_HOME=str(tmp_path / "file" / "huggingface"))
    assert "the cache cannot be written (Not a directory: " in refusal
    assert "set HF_HOME to a folder of your own" in refusal
