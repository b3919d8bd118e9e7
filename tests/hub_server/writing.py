"""What a hub does with what it is sent: repositories are made, files announced, large ones stored, and commits written.

As `huggingface_hub` speaks it with HF_HUB_DISABLE_XET=1. The metadata of a card are read with its own reader, and compared with
rules that the hub publishes: a hub's own list of licences and tasks is not here.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hub_server.repositories import LARGE, Repository, commit_of

WRITE = re.compile(r"/api/models/([^/]+/[^/]+)/(preupload|commit)/([^/]+)")
BATCH = re.compile(r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch")
STORE = re.compile(r"/lfs-store/([0-9a-f]{64})")
LICENCE = re.compile(r"[a-z0-9][a-z0-9.\-]*")


class Conflict(Exception):
    """A repository of this name is there."""


@dataclass
class Written:
    """What was sent: `folder` keeps commits and large files by their SHA-256, `private` the names of private repositories."""

    folder: Path
    private: set[str] = field(default_factory=set)
    commits: list[str] = field(default_factory=list)

    def create(self, body: bytes, repositories: list[Repository], url: str) -> dict[str, Any]:
        asked = json.loads(body)
        name = f"{asked['organization']}/{asked['name']}"
        if any(each.name == name for each in repositories):
            raise Conflict(name)
        if asked.get("visibility") == "private" or asked.get("private"):
            self.private.add(name)
        first = self.folder / "commits" / commit_of(name)
        first.mkdir(parents=True)
        (first / ".gitattributes").write_text("*.safetensors filter=lfs diff=lfs merge=lfs -text\n")
        repositories.append(Repository(name, {first.name: first}))
        return {"url": f"{url}/{name}", "name": name, "id": name}

    def announce(self, repository: Repository, commit: str, body: bytes) -> dict[str, Any]:
        """How each file is to be sent, and which is there already."""
        found = []
        for file in json.loads(body)["files"]:
            entry = repository.entry(commit, file["path"])
            mode = "lfs" if file["path"].endswith(LARGE) else "regular"
            found.append(
                {
                    "path": file["path"],
                    "uploadMode": mode,
                    "shouldIgnore": False,
                    **({"oid": entry.etag} if entry else {}),
                }
            )
        return {"files": found}

    def batch(self, url: str, body: bytes) -> dict[str, Any]:
        """Where large files go; one that is stored already gets no place, and is therefore not sent."""
        objects = []
        for each in json.loads(body)["objects"]:
            there = self._object(each["oid"]).is_file()
            place = {"actions": {"upload": {"href": f"{url}/lfs-store/{each['oid']}", "header": {}}}}
            objects.append({**each, "authenticated": True, **({} if there else place)})
        return {"transfer": "basic", "objects": objects}

    def store(self, oid: str, content: bytes) -> None:
        if hashlib.sha256(content).hexdigest() != oid:
            raise ValueError(f"the content is not that of {oid}")
        self._object(oid).parent.mkdir(parents=True, exist_ok=True)
        self._object(oid).write_bytes(content)

    def commit(self, repository: Repository, parent: str, body: bytes, url: str) -> dict[str, Any]:
        """A new commit on main: the files of `parent` with what was sent."""
        lines = [json.loads(line) for line in body.splitlines() if line.strip()]
        commit = hashlib.sha256(parent.encode() + body).hexdigest()[:40]
        folder = self.folder / "commits" / commit
        shutil.copytree(repository.commits[parent], folder)
        for path, content in self._files(lines):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content)
        repository.commits = {**repository.commits, commit: folder}
        repository.branches["main"] = commit
        self.commits.append(str(lines[0]["value"]["summary"]))
        return {"success": True, "commitOid": commit, "commitUrl": f"{url}/{repository.name}/commit/{commit}"}

    def _files(self, lines: list[dict[str, Any]]) -> Iterator[tuple[str, bytes]]:
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                yield value["path"], base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                yield value["path"], self._object(value["oid"]).read_bytes()

    def _object(self, oid: str) -> Path:
        return self.folder / "objects" / oid


def card_errors(content: str) -> list[str]:
    """What a hub refuses in the metadata of a model's card; empty where nothing is wrong."""
    import yaml
    from huggingface_hub import ModelCard
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        data = ModelCard(content).data
    except (ValueError, yaml.YAMLError) as error:
        return [str(error)]
    errors = []
    for base in [data.base_model] if isinstance(data.base_model, str) else data.base_model or []:
        try:
            validate_repo_id(base)
        except HFValidationError as error:
            errors.append(f'"base_model": {error}')
    if data.license is not None and not (isinstance(data.license, str) and LICENCE.fullmatch(data.license)):
        errors.append(f'"license" must be the id of a licence, not {data.license!r}')
    if data.license == "other" and not (data.get("license_name") and data.get("license_link")):
        errors.append('"license_name" and "license_link" are required where "license" is other')
    if not all(isinstance(tag, str) for tag in data.tags or []):
        errors.append('"tags" must be strings')
    for result in data.eval_results or []:
        if not isinstance(result.metric_value, int | float):
            errors.append(f'"model-index": {result.metric_type} of {result.dataset_type} is not a number')
    return errors
