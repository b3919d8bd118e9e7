"""How models are named: short names, ids of the hub, directories, adapters over a base, checkpoints of a store.

    qwen2.5-vl-3b                            a short name (`lmmcl list models`)
    Qwen/Qwen2.5-VL-3B-Instruct[@REVISION]   an id of the hub; a model that has a short name is the same model by its id
    ./my-model                               a `save_pretrained` directory
    ./my-adapter[::BASE]                     an adapter directory, over the base that it names or BASE
    checkpoint:KEY@STORE                     a recorded checkpoint
    NAME+thinking                            the same model, which thinks before it answers
    NAME+{"max_pixels": 262144}              the same model, asked in another way (see `ModelSettings`)

In a sweep also `{adapter: DIRECTORY, base: MODEL}` and `{checkpoint: TRIAL, stage: NUMBER, store: STORE}`.
"""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from lmmcl.errors import LONGEST_VALUE, UserError, shown, unknown
from lmmcl.models.hub import HubCheckpoint, HubModel
from lmmcl.models.inputs.model_settings import MARK, ModelSettings
from lmmcl.models.lmm import LMM
from lmmcl.models.local_model import local_model
from lmmcl.models.model_folder import ADAPTER, CONFIG
from lmmcl.models.pretrained import THINKING
from lmmcl.models.sources.adapter_model import adapter_model, is_adapter
from lmmcl.models.sources.hub_errors import near_ids
from lmmcl.models.sources.hub_files import resolve
from lmmcl.named_settings import build
from lmmcl.registry import members

HUB_ID = re.compile(r"(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@(?P<revision>.+))?")
CHECKPOINT, OVER = "checkpoint:", "::"
STORED = "lmmcl.inspection.start_checkpoint"
"""Where checkpoints of a store are found: above this room, which knows no stores, so it is looked up by its name."""


def find_model(name: str | Mapping[str, Any], folder: Path) -> LMM:
    """The model that `name` means; paths are relative to `folder`. Raises UserError with the nearest names, or what is lacking."""
    if isinstance(name, Mapping):
        return _of_mapping(name, folder)
    plain, mark, settings = name.partition(f"{MARK}{{")
    if mark:
        return find_model(plain, folder).with_settings(_settings(plain, "{" + settings))
    if name.endswith(THINKING):
        return find_model(name.removesuffix(THINKING), folder).with_thinking()
    if name.startswith(CHECKPOINT):
        key, at, store = name.removeprefix(CHECKPOINT).partition("@")
        if not at:
            raise UserError(f"{shown(name)}: a checkpoint is named checkpoint:KEY@STORE")
        return _stored(key, None, store, folder)
    if OVER in name:
        directory, _, base = name.partition(OVER)
        return _adapter(directory, base, folder)
    known = members("lmmcl.models", "MODELS")
    if name in known:
        return known[name]
    short, _, revision = name.partition("@")
    if revision and isinstance(known.get(short), HubModel):
        return hub_model(known[short].hub, revision)
    return _of_place(name, folder)


def _settings(name: str, written: str) -> ModelSettings:
    try:
        return build(ModelSettings, name, json.loads(written))
    except ValueError as error:
        raise UserError(f'settings of {name} are JSON such as {{"square": true}}, not {shown(written)}') from error


def entry_name(entry: str | Mapping[str, Any]) -> str:
    """What a sweep calls a model of its grids elsewhere: the name, the directory of an adapter, the checkpoint's trial."""
    return entry if isinstance(entry, str) else str(entry.get("adapter") or entry.get("checkpoint"))


def is_reference(name: str) -> bool:
    """Whether a name can only be that of a model, and of no checkpoint or trial of a store."""
    name = name.partition(f"{MARK}{{")[0]
    short = name.removesuffix(THINKING).partition("@")[0]
    return short in members("lmmcl.models", "MODELS") or is_path(name) or name.startswith(CHECKPOINT)


def is_path(name: str) -> bool:
    """Whether a name is a path or an id of the hub."""
    return "/" in name or name.startswith((".", "~"))


def paths_in(entry: Any, folder: Path) -> list[str]:
    """The paths that a model's entry in a sweep names: directories of models and adapters, and stores that are folders."""
    if isinstance(entry, Mapping):
        paths = [path for key in ("adapter", "base") if key in entry for path in paths_in(entry[key], folder)]
        store = entry.get("store")
        return [*paths, store] if isinstance(store, str) and "://" not in store else paths
    if not isinstance(entry, str) or entry.startswith(CHECKPOINT):
        return []
    parts = entry.removesuffix(THINKING).split(OVER)
    return [
        part
        for part in parts
        if is_path(part) and (HUB_ID.fullmatch(part) is None or _directory(part, folder).is_dir())
    ]


def hub_model(repo: str, revision: str = "") -> LMM:
    """The model of the hub with this id, at a branch, tag or commit; the one with a short name where it is that one."""
    known = next((m for m in members("lmmcl.models", "MODELS").values() if getattr(m, "hub", None) == repo), None)
    if known is not None:
        if not revision or (known.revision and len(revision) >= 7 and known.revision.startswith(revision)):
            return known
        commit = resolve(repo, revision, f"model {repo}")
        if not known.revision:
            return replace(known, revision=commit)
        return known if commit == known.revision else HubCheckpoint(repo, commit)
    return HubCheckpoint(repo, resolve(repo, revision, f"model {repo}"))


def _of_place(name: str, folder: Path) -> LMM:
    directory = _directory(name, folder)
    is_short = len(name) <= LONGEST_VALUE
    if is_short and (directory / ADAPTER).is_file() and is_adapter(directory):
        return _adapter(name, None, folder)
    if is_short and (directory / CONFIG).is_file():
        return local_model(directory)
    if match := HUB_ID.fullmatch(name):
        try:
            return hub_model(match["repo"], match["revision"] or "")
        except UserError as error:
            what = f"is without {CONFIG}" if directory.is_dir() else "does not exist"
            raise error.at_end(f" (the directory {directory} {what})") from error
    if is_path(name):
        if directory.is_dir() and (below := sorted(path.parent.name for path in directory.glob(f"*/{ADAPTER}"))):
            raise UserError(
                f"{CONFIG} not found; there is an adapter in {', '.join(below[:5])}: name that directory",
                file=f"model {directory}",
            )
        return local_model(directory)
    message = unknown("model", name, members("lmmcl.models", "MODELS"))
    raise UserError(
        f"{message}, the path of a save_pretrained directory, or the id of a model of the Hugging Face hub{near_ids(name)}"
    )


def _of_mapping(entry: Mapping[str, Any], folder: Path) -> LMM:
    forms = {"adapter": ("adapter", "base"), "checkpoint": ("checkpoint", "stage", "store")}
    form = next((keys for first, keys in forms.items() if first in entry), None)
    if form is None:
        raise UserError(
            "a model is a name, {adapter: DIRECTORY, base: MODEL} or {checkpoint: TRIAL, stage: NUMBER, store: STORE}, "
            f"not {shown(dict(entry))}"
        )
    for key, value in entry.items():
        if key == "adapter" and isinstance(value, Mapping):
            raise UserError(
                f"adapter: the directory of a trained adapter is expected, not {shown(value)}; one that is to be trained is a "
                "recipe: [{lora: {rank: 8}}]"
            )
        if key not in form:
            raise UserError(unknown("key", str(key), form))
        kind = int if key == "stage" else str
        if not isinstance(value, kind) or isinstance(value, bool):
            raise UserError(f"{key}: {'an integer' if kind is int else 'a text'} is expected, not {shown(value)}")
    if form[0] == "adapter":
        return _adapter(entry["adapter"], entry.get("base"), folder)
    if "store" not in entry:
        raise UserError("store is missing: {checkpoint: TRIAL, stage: NUMBER, store: STORE}")
    return _stored(entry["checkpoint"], entry.get("stage"), entry["store"], folder)


def _adapter(directory: str, base: str | None, folder: Path) -> LMM:
    return adapter_model(_directory(directory, folder), base, lambda name: find_model(name, folder))


def _stored(wanted: str, stage: int | None, store: str, folder: Path) -> LMM:
    place = store if "://" in store else str(_directory(store, folder))
    model: LMM = importlib.import_module(STORED).start_model(wanted, stage, place)
    return model


def _directory(name: str, folder: Path) -> Path:
    path = Path(name).expanduser()
    return (path if path.is_absolute() else folder / path).resolve()
