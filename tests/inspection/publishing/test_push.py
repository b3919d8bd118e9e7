"""An exported folder on its way to a hub: private, resumable, refused with the remedy."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hub_server.repositories import Repository, commit_of
from hub_server.server import HubServer
from made import SWEEP, write_sweep
from synthetic_ledger import fill

from lmmcl.config.sweep import load_sweep
from lmmcl.errors import UserError
from lmmcl.inspection.publishing.export_command import export_checkpoint
from lmmcl.inspection.publishing.push import check_push
from lmmcl.ledger import Ledger
from lmmcl.steps import Pretrained

PUSH = """
import json, sys
from pathlib import Path
from lmmcl.errors import UserError
from lmmcl.inspection.publishing.push import check_push, push
try:
    check_push(sys.argv[2])
    done = push(Path(sys.argv[1]), sys.argv[2], message="stage 2", public=len(sys.argv) > 3)
    print(json.dumps([done.url, done.revision, done.is_private]))
except UserError as error:
    print(json.dumps(str(error)))
"""
LICENCE = """
import sys
from types import SimpleNamespace
from lmmcl.inspection.publishing.licence import _of_hub
for online in (False, True, False):
    for name, commit in [pair.split("@") for pair in sys.argv[1:]]:
        licence = _of_hub(SimpleNamespace(hub=name, commit=commit), online=online)
        print(name, licence and licence.id)
"""


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with HubServer([]) as server:
        yield server


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "model.safetensors").write_bytes(b"weights" * 1000)
    (tmp_path / "out" / "config.json").write_text("{}")
    (tmp_path / "out" / "README.md").write_text("---\nlicense: mit\n---\n# card\n")
    return tmp_path / "out"


def call(script: str, environment: dict[str, str], *words: Any) -> str:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    command = [sys.executable, "-c", script, *map(str, words)]
    done = subprocess.run(command, env={**kept, **environment}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "hf_local" not in done.stdout + done.stderr, "a token is never printed"
    return done.stdout


def pushed(hub: HubServer, home: Path, *words: Any, token: str | None = "hf_local") -> Any:
    environment = {**hub.environment(home), **({"HF_TOKEN": token} if token else {})}
    return json.loads(call(PUSH, environment, *words).splitlines()[-1])


def files(hub: HubServer, name: str) -> dict[str, bytes]:
    repository = hub.find("model", name)
    assert repository is not None
    return {entry.name: entry.path.read_bytes() for entry in repository.entries(repository.branches["main"])}


def test_a_push_makes_a_private_repository_and_continues_where_it_was_interrupted(
    hub: HubServer, folder: Path, tmp_path: Path
) -> None:
    hub.refuse_large(times=20)
    refused = pushed(hub, tmp_path, folder, "me/mine")
    assert "was interrupted" in refused and "no room" in refused and "run the same command again" in refused
    assert hub.written.commits == []
    hub.refuse_large(times=0)
    url, revision, is_private = pushed(hub, tmp_path, folder, "me/mine")
    assert url == f"{hub.url}/me/mine" and is_private and revision == hub.find("model", "me/mine").branches["main"]
    sent = files(hub, "me/mine")
    assert {name: sent[name] for name in ("model.safetensors", "config.json", "README.md")} == {
        path.name: path.read_bytes() for path in folder.iterdir()
    }
    hub.requests.clear()
    assert pushed(hub, tmp_path, folder, "me/mine") == [url, revision, True], "nothing has changed"
    assert not [request for request in hub.requests if request.method == "PUT"]
    assert hub.written.commits == ["stage 2"]


def test_a_repository_is_public_where_that_is_asked_for(hub: HubServer, folder: Path, tmp_path: Path) -> None:
    assert pushed(hub, tmp_path, folder, "me/open", "public")[2] is False


@pytest.mark.parametrize(
    ("name", "token", "part"),
    [
        ("mine", "hf_local", "write it as OWNER/NAME"),
        ("me/a b", "hf_local", "--push me/a b"),
        ("me/mine", None, "hf auth login"),
    ],
)
def test_a_push_that_cannot_work_is_refused_before_anything_is_written(
    name: str, token: str | None, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.get_token", lambda: token)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with pytest.raises(UserError, match=part):
        check_push(name)


def test_a_push_needs_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="HF_HUB_OFFLINE is set"):
        check_push("me/mine")


def test_a_token_without_permission_is_answered_with_the_remedy(hub: HubServer, folder: Path, tmp_path: Path) -> None:
    refused = pushed(hub, tmp_path, folder, "me/mine", token="hf_of_another")
    assert (
        "refused to take me/mine: Invalid username or password. The token needs" in refused
        and "hf auth login" in refused
    )
    assert hub.written.commits == []


def test_a_card_that_was_edited_wrongly_is_refused_before_weights_are_sent(
    hub: HubServer, folder: Path, tmp_path: Path
) -> None:
    (folder / "README.md").write_text("---\nlicense: My Own Terms\n---\n")
    refused = pushed(hub, tmp_path, folder, "me/mine")
    assert "license" in refused and str(folder / "README.md") in refused
    assert not [request for request in hub.requests if request.method == "PUT"]


def test_the_licence_of_a_base_is_read_from_its_card_on_the_hub_and_then_from_the_cache(tmp_path: Path) -> None:
    """Where the hub does not show the card (the base is gated, renamed or deleted, the commit gone) it is unknown."""
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "README.md").write_text("---\nlicense: llama3.2\n---\n")
    commits = {commit_of("base"): tmp_path / "base"}
    closed = [f"o/gated@{commit_of('base')}", f"o/deleted@{commit_of('base')}", f"o/base@{commit_of('gone')}"]
    with HubServer([Repository("o/base", commits), Repository("o/gated", commits, gated=True)]) as hub:
        lines = call(LICENCE, hub.environment(tmp_path), f"o/base@{commit_of('base')}", *closed).splitlines()
    unknown = ["o/gated None", "o/deleted None", "o/base None"]
    assert lines == ["o/base None", *unknown, *2 * ["o/base llama3.2", *unknown]]


def test_a_card_that_cannot_be_made_is_known_before_weights_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = load_sweep(write_sweep(tmp_path, SWEEP))
    fill(sweep, tmp_path / "store", questions=4)
    ledger = Ledger(str(tmp_path / "store"))

    def refuse(*_: Any, **__: Any) -> None:
        raise UserError("no card")

    monkeypatch.setattr("lmmcl.inspection.publishing.model_card.licence_of", refuse)
    monkeypatch.setattr("lmmcl.weights.checkpoint.export", lambda *_: pytest.fail("weights were written"))
    step = ledger.checkpoint(sweep.trials[0].key)
    with pytest.raises(UserError, match="no card"):
        list(export_checkpoint(step, ledger, tmp_path / "out", adapter=False, repository=None, public=False))


@pytest.mark.slow
def test_export_and_push_in_one_command_which_may_be_repeated(hub: HubServer, tmp_path: Path) -> None:
    sweep = load_sweep(write_sweep(tmp_path, SWEEP))
    fill(sweep, tmp_path / "store", questions=4)
    ledger = Ledger(str(tmp_path / "store"))
    (base,) = {step.key: step for step in sweep.steps.values() if isinstance(step, Pretrained)}.values()
    from lmmcl.weights.checkpoint import ensure_pretrained

    ledger.files.remove_folder(base.path)
    ensure_pretrained(base, ledger)
    command = [sys.executable, "-m", "lmmcl", "export", base.key, "--to", str(tmp_path / "out"), "--push", "me/base"]
    environment = {**hub.environment(tmp_path), "HF_TOKEN": hub.token, "PATH": "/usr/bin:/bin"}
    outputs = []
    for _ in range(2):
        done = subprocess.run(
            [*command, "--store", str(tmp_path / "store")], env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr[-2000:]
        outputs.append(done.stdout)
    assert outputs[0] == outputs[1] and f"pushed to {hub.url}/me/base (private), revision " in outputs[0]
    sent = files(hub, "me/base")
    assert {"config.json", "model.safetensors", "lmmcl.json", "README.md"} <= set(sent)
    assert b"name: base" in sent["README.md"] and b'"host"' not in sent["lmmcl.json"]
