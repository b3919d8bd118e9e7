"""`lmmcl run` by the id of a hub: downloaded, pinned, trained, told apart from its base, exported and loaded again; then offline.

The checkpoints have the names of tensors, the shards and the configurations of the releases that they stand for, in small.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hub_server.published import PREFIXES, TIED, publish
from hub_server.repositories import Repository, commit_of
from hub_server.server import HubServer
from models.walk_table import walking
from models.walk_type import checkpoint

from lmmcl.ledger import Ledger
from lmmcl.ledger.packs.packing import unpack
from lmmcl.models import get_model, model_names
from lmmcl.models.hub import HubModel

FAST = ("gemma3", "llava_onevision", "qwen2_5_vl")
READ_OTHERWISE = ("llava", "llava_next", "smolvlm", "instructblip", "gemma3")
TIES = {*TIED, "gemma3"}
SWEEP = """
name: hub
orders: {{main: [counting]}}
training: {{learning_rate: 1.0e-2, global_batch_size: 4, max_steps: 2, examples: 8, precision: fp32}}
evaluation: {{limit: 4, precision: fp32}}
grids:
  - {{model: [{model}], recipe: [sa_proj]}}
"""

Command = Callable[[dict[str, Any]], dict[str, Any]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hub")


@pytest.fixture(scope="module")
def hub(folder: Path) -> Iterator[HubServer]:
    with HubServer([]) as server:
        yield server


@pytest.fixture(scope="module")
def command(hub: HubServer, folder: Path) -> Iterator[Command]:
    """Runs a command of lmmcl whose hub is the local one."""
    paths = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = {
        **os.environ,
        **hub.environment(folder),
        "PYTHONPATH": os.pathsep.join(paths),
        "OMP_NUM_THREADS": "1",
    }
    words = [sys.executable, "-m", "hub_server.walk"]
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    ) as server:
        stdin, stdout = server.stdin, server.stdout
        assert stdin is not None and stdout is not None

        def ask(task: dict[str, Any]) -> dict[str, Any]:
            print(json.dumps(task), file=stdin, flush=True)
            return json.loads(stdout.readline())

        yield ask
        stdin.close()


def names_in(directory: Path) -> list[str]:
    return list(json.loads((directory / "model.safetensors.index.json").read_text())["weight_map"])


@pytest.mark.parametrize(
    "family", [f if f in FAST else pytest.param(f, marks=pytest.mark.slow) for f in sorted(PREFIXES)]
)
def test_a_sweep_names_a_model_by_its_id(hub: HubServer, command: Command, folder: Path, family: str) -> None:
    name, commit = f"maker/small-{family}", commit_of(family)
    directory = publish(family, folder / family)
    assert {
        prefix for prefix in PREFIXES[family] if any(each.startswith(prefix) for each in names_in(directory))
    } == PREFIXES[family]
    assert all(each.startswith(tuple(PREFIXES[family])) for each in names_in(directory))
    repository = Repository(name, {commit: directory, commit_of("newer"): directory})
    repository.branches["main"] = commit
    hub.repositories = [repository]
    hub.requests.clear()
    sweep, store = folder / f"{family}.yaml", str(folder / "store" / family)
    sweep.write_text(SWEEP.format(model=name))
    words = ["run", str(sweep), "--inline", "--mlflow", "off", "--store", store]

    first = command({"run": words})
    assert first["code"] == 0, first["output"]
    assert f"write {name}@{commit} to pin it" in first["output"]
    assert "4 steps computed" in first["output"]
    shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    assert [len(hub.sent(shard)) for shard in shards] == [1, 1]
    assert all(commit in each.path for each in hub.requests if "/resolve/" in each.path)

    repository.branches["main"] = commit_of("newer")  # the name keeps what it meant
    hub.requests.clear()
    second = command({"run": words})
    assert "0 steps computed, 4 recorded before" in second["output"]
    assert hub.requests == []

    unpack(Ledger(store))
    step = json.loads(next(Path(store).glob("checkpoints/*/0-base-*/step.json")).read_text())
    dialogues = {"dialogues": 2} if family in READ_OTHERWISE else {}
    assert step["model"] == {"hub": name, "revision": commit, **dialogues}
    records = [json.loads(path.read_text()) for path in Path(store).glob("checkpoints/*/1-*/record.json")]
    (record,) = records
    assert record["model_reference"] == f"{name}@{commit}"
    assert Path(store, "checkpoints", f"maker--small-{family}-{commit[:12]}").is_dir()

    exported = str(folder / "exported" / family)
    wanted = f"small-{family}-{commit[:8]}"
    assert command({"run": ["export", wanted, "--to", exported, "--store", store]})["code"] == 0
    again = command({"reload": wanted, "store": store, "exported": exported})
    assert again.get("off") == 0.0, again
    assert again["tied"] == (family in TIES)
    assert again["parameters"] == record["total_parameters"]
    assert hub.requests == []


NAMED_NOW = {
    name: model
    for name in model_names()
    if isinstance(model := get_model(name), HubModel) and not model.revision and model.family not in PREFIXES
}
WALKED = [
    name for name, model in NAMED_NOW.items() if model.family in walking() and "torchvision" not in model.description
]


def test_most_names_of_what_is_tuned_now_are_walked_and_the_others_need_a_library() -> None:
    others = NAMED_NOW.keys() - set(WALKED)
    assert len(WALKED) >= 12
    assert all("needs t" in NAMED_NOW[name].description for name in others), others


@pytest.mark.slow
@pytest.mark.parametrize("name", WALKED)
def test_a_short_name_without_a_revision_walks_from_the_hub(
    hub: HubServer, command: Command, folder: Path, name: str
) -> None:
    model = NAMED_NOW[name]
    directory = checkpoint(model.family, folder / "named" / name)
    hub.repositories = [Repository(model.hub, {commit_of(name): directory})]
    sweep, store = folder / f"{name}.yaml", str(folder / "store" / name)
    sweep.write_text(SWEEP.format(model=name))
    words = ["run", str(sweep), "--inline", "--mlflow", "off", "--store", store]
    first = command({"run": words})
    assert first["code"] == 0, first["output"]
    assert "4 steps computed" in first["output"]
    hub.requests.clear()
    assert "0 steps computed, 4 recorded before" in command({"run": words})["output"]
    assert hub.requests == []
    unpack(Ledger(store))
    step = json.loads(next(Path(store).glob("checkpoints/*/0-base-*/step.json")).read_text())
    assert (step["model"]["name"], step["model"]["revision"]) == (name, commit_of(name))
    exported = str(folder / "exported" / name)
    assert command({"run": ["export", "sa_proj", "--to", exported, "--store", store]})["code"] == 0
    again = command({"reload": "sa_proj", "store": store, "exported": exported})
    assert again.get("off") == 0.0, again
