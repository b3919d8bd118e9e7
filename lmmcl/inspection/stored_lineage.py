"""From a recorded checkpoint back to the base: the fine-tunes that its weights come from, and what each stage ended in."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lmmcl.ledger import Ledger
from lmmcl.registry import members
from lmmcl.steps.keys import key_of


@dataclass(frozen=True)
class StoredStage:
    """Folders of a fine-tune (or a snapshot of it) and of the checkpoint that was evaluated after it: itself, or a merge; None
    where no record says which one that was."""

    tuned: str
    end: str | None


def identity_of(ledger: Ledger, path: str) -> dict[str, Any]:
    """What the key of the step in `path` is computed from."""
    with ledger.opened(path, "step.json", quarantine=False) as file:
        return json.loads(file.read_text(encoding="utf-8"))


def routes(rule: Mapping[str, Any] | None) -> bool:
    """Whether a merge with this rule keeps its fine-tunes as experts, and chooses among them."""
    mitigation = members("lmmcl.methods", "MITIGATIONS").get(str((rule or {}).get("name")))
    return bool(mitigation and mitigation.routes)


def merged_paths(ledger: Ledger, path: str) -> tuple[list[str], str | None]:
    """Folders of what the merge in `path` combines, oldest first, and of the router that chooses among them, where one does."""
    _, *merged = _parents(ledger, path)
    if len(merged) > 1 and routes(identity_of(ledger, path).get("rule")):
        return merged[:-1], merged[-1]
    return merged, None


def rules_of(ledger: Ledger, path: str) -> list[dict[str, Any]]:
    """The rules that made the checkpoint in `path` of fine-tunes, in the order in which they were applied."""
    if _kind(ledger, path) != "merge":
        return []
    (first, *_), _ = merged_paths(ledger, path)
    return [*rules_of(ledger, first), identity_of(ledger, path)["rule"]]


def stored_stages(ledger: Ledger, path: str) -> list[StoredStage]:
    """The stages that the weights in `path` come from, oldest first: of a merge all that it combines."""
    match _kind(ledger, path):
        case "pretrained" | None:
            return []
        case "merge":
            *earlier, last = _without_merges(ledger, path)
            if (
                _kind(ledger, _parents(ledger, path)[0]) == "pretrained"
            ):  # else stages continued from what lies on the way
                tuned = [stage.tuned for stage in earlier]
                earlier = [
                    replace(stage, end=_merge_after(ledger, path, tuned[:count]))
                    for count, stage in enumerate(earlier, start=1)
                ]
            return [*earlier, replace(last, end=path)]
    return [*stored_stages(ledger, _parents(ledger, path)[0]), StoredStage(path, path)]


def base_of(ledger: Ledger, path: str) -> str:
    """Folder of the pre-trained model that the checkpoint in `path` comes from."""
    while parents := _parents(ledger, path):
        path = parents[0]
    return path


def _without_merges(ledger: Ledger, path: str) -> list[StoredStage]:
    """The stages of what the merge in `path` combines; a merge that another one combines is the end of no stage."""
    if _kind(ledger, path) != "merge":
        return stored_stages(ledger, path)
    merged, _ = merged_paths(ledger, path)
    return [stage for part in merged for stage in _without_merges(ledger, part)]


def _merge_after(ledger: Ledger, path: str, tuned: Sequence[str]) -> str | None:
    """Folder of the merge as it was after the fine-tunes `tuned` alone; None where that is not recorded."""
    folders = ledger.checkpoint_paths(_key_after(ledger, path, tuned))
    return folders[0] if folders else None


def _key_after(ledger: Ledger, path: str, tuned: Sequence[str]) -> str:
    """Its key: the rule of the merge in `path` over fewer fine-tunes."""
    anchor, *_ = _parents(ledger, path)
    merged, _ = merged_paths(ledger, path)
    if len(merged) == 1 and _kind(ledger, merged[0]) == "merge":
        parents = [_key(anchor), _key_after(ledger, merged[0], tuned)]
    else:
        parents = [_key(anchor), *map(_key, tuned if len(merged) > 1 else tuned[-1:])]
    fields = {name: value for name, value in identity_of(ledger, path).items() if name != "key"}
    return key_of({**fields, "parents": parents})


def _key(path: str) -> str:
    return path.rsplit("-", 1)[1]


def _kind(ledger: Ledger, path: str) -> str | None:
    record = ledger.read(path)
    return str(record["kind"]) if record else None


def _parents(ledger: Ledger, path: str) -> list[str]:
    record = ledger.read(path)
    return list(record["parents"]) if record else []
