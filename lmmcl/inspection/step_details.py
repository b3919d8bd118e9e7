"""One recorded step, for a person: what it is, which trials need it, its parents, where it is stored, how to compute it again."""

from __future__ import annotations

import datetime
import difflib
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.markup import escape
from rich.table import Table

from lmmcl.config.sweep import load_sweep
from lmmcl.errors import UserError
from lmmcl.inspection.stored_lineage import identity_of, merged_paths, routes
from lmmcl.inspection.stored_scores import comparable_scores, stored_scores
from lmmcl.inspection.stored_trials import StoredTrial, find_checkpoint, find_stored_trial, stored_sweeps, unfinished
from lmmcl.ledger import Ledger
from lmmcl.ledger.record import KINDS
from lmmcl.methods.recipes.recipe import KINDS as ADAPTERS
from lmmcl.reports import formatting
from lmmcl.reports.failures import Failure, find_failure
from lmmcl.reports.tables.generation_budget import budget_of


def step_facts(ledger: Ledger, wanted: str) -> dict[str, Any]:
    """A recorded step by its key (or a beginning of it) or, for a checkpoint, by its label or folder name, or by the name
    of a trial (or a part of it) whose last checkpoint it is.

    `wanted_by` are the trials of the store's sweeps that need it, `chain` its parents up to the pre-trained model (of a merge by
    way of the last that it merges), `merges` all that a merge combines or, with a `router`, chooses among. `export` is null where
    no plain model has its weights, `reproduce` where no sweep of the store is known to want it; `failed` says why the trial that
    ends with it failed. One that failed before is found by its key or name too: `trial`, `why` and `details`. Raises UserError.
    """
    path = _find(ledger, wanted)
    if isinstance(path, Failure):
        return asdict(path) | {"store": ledger.store}
    record = ledger.read(path)
    if record is None:
        raise UserError(
            "its record is damaged; `lmmcl ledger check --repair` quarantines it, so that the next run computes the step again",
            file=f"{ledger.store}/{path}",
        )
    identity = identity_of(ledger, path)
    is_checkpoint = path.startswith("checkpoints/")
    chain = _chain(ledger, path)
    kind, key = str(record["kind"]), str(record["key"])
    of = {"path": path, "key": key, "kind": kind} if is_checkpoint else chain[0]
    # A snapshot is needed by the trials that need its stage: sweeps tell the keys of fine-tunes and of what is evaluated.
    sweeps = _wanted_by(ledger, identity_of(ledger, of["path"])["finetune"] if of["kind"] == "snapshot" else of["key"])
    store = shlex.quote(ledger.store)
    scores_before, scores = _scores(ledger, path, chain)
    merges, router = merged_paths(ledger, path) if kind == "merge" else ([], None)
    return {
        "step": path,
        "kind": kind,
        "store": ledger.store,
        "wanted_by": sweeps,
        "chain": chain,
        "merges": merges,
        "router": router,
        "record": dict(record.fields),
        "identity": identity,
        "scores": scores,
        "scores_before": scores_before,
        "failed": asdict(failure) if (failure := find_failure(ledger, key)) else None,
        "reproduce": f"lmmcl run {shlex.join(_words(sweeps[0]))} --store {store}" if sweeps else None,
        "export": f"lmmcl export {key} --to DIR --store {store}"
        if is_checkpoint and _is_single_model(identity, ledger)
        else None,
    }


def _is_single_model(identity: Mapping[str, Any], ledger: Ledger) -> bool:
    """Whether a checkpoint has the weights of one plain model, which can be exported: not where experts answer."""
    if identity["kind"] == "snapshot" and (paths := ledger.checkpoint_paths(identity["finetune"])):
        return _is_single_model(identity_of(ledger, paths[0]), ledger)
    kind = str(((identity.get("recipe") or {}).get("adapter") or {}).get("kind"))
    if kind in ADAPTERS and ADAPTERS[kind].adds_experts:
        return False
    return not routes(identity.get("rule"))


def _find(ledger: Ledger, wanted: str) -> str | Failure:
    """The folder of a step of any kind; of checkpoints also by label. Without one, the failure of the trial that is meant."""
    paths = [path for kind in KINDS for path in ledger.paths(kind)]
    hits = [path for path in paths if path.rsplit("-", 1)[1].startswith(wanted)]
    if len(hits) == 1:
        return hits[0]
    if not hits and (failure := find_failure(ledger, wanted)):
        return failure
    if any(path.startswith("checkpoints/") for path in paths) and (len(hits) > 1 or ledger.checkpoint_paths(wanted)):
        return ledger.checkpoint(wanted).path
    if (trial := find_stored_trial(ledger, wanted)) is not None:
        return _last_of(ledger, trial)
    if not _is_key(wanted):
        return find_checkpoint(ledger, wanted).path
    near = difflib.get_close_matches(wanted, [path.rsplit("-", 1)[1] for path in paths], n=3)
    suggestion = f"did you mean {', '.join(near)}? " if near else ""
    raise UserError(
        f"no step has the key {wanted!r}; {suggestion}`lmmcl list steps` has all", file=f"store {ledger.store}"
    )


def _last_of(ledger: Ledger, trial: StoredTrial) -> str | Failure:
    """The last checkpoint of a trial; without one, why the trial failed."""
    if paths := ledger.checkpoint_paths(trial.key):
        return paths[0]
    if failure := find_failure(ledger, trial.key):
        return failure
    raise unfinished(ledger, trial)


def _is_key(wanted: str) -> bool:
    return len(wanted) == 16 and all(character in "0123456789abcdef" for character in wanted)


def _chain(ledger: Ledger, path: str) -> list[dict[str, Any]]:
    """The parents, nearest first, up to the pre-trained model; of a merge the last of what it merges, of a probe what it looks
    into."""
    chain = []
    record = ledger.read(path)
    while record is not None and record["parents"]:
        path = merged_paths(ledger, path)[0][-1] if record["kind"] == "merge" else record["parents"][0]
        record = ledger.read(path)
        chain.append({"path": path, "key": path.rsplit("-", 1)[1], "kind": record["kind"] if record else None})
    return chain


def _scores(ledger: Ledger, path: str, chain: Sequence[Mapping[str, Any]]) -> list[dict[str, float]]:
    """What the checkpoint before that in `path` scored, and what this one did, in points by benchmark: asked alike."""
    if not path.startswith("checkpoints/"):
        return [{}, {}]
    rows = [stored_scores(ledger, chain[0]["path"]) if chain else [], stored_scores(ledger, path)]
    return [{name: score.score for name, score in row.items()} for row in comparable_scores(rows)]


def _wanted_by(ledger: Ledger, key: str) -> list[dict[str, Any]]:
    """The trials that need this checkpoint, by what runs and reports of the store understood of their sweeps."""
    wanting = []
    for sweep in stored_sweeps(ledger):
        for trial in sweep["trials"]:
            held = (trial.get(name, {}) for name in ("steps", "fine_tunes"))  # the second lacks in older stores
            stages = {int(number) for steps in held for number, step in steps.items() if step == key}
            for stage in sorted(stages):
                place = {"trial": trial["name"], "trial_key": trial["key"], "stage": stage}
                wanting.append({"sweep": sweep["name"], "file": sweep["file"], "set": sweep.get("set", []), **place})
    return wanting


def _words(wanted: Mapping[str, Any]) -> list[str]:
    """The sweep's file and what it was read with."""
    return [wanted["file"], *(word for pair in wanted["set"] for word in ("--set", pair))]


def step_table(facts: Mapping[str, Any]) -> Group:
    """For the terminal."""
    if "why" in facts:
        return Group(*(escape(facts[part]) for part in ("trial", "why", "details")))
    rows = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    rows.add_column(style="bold", no_wrap=True)
    rows.add_column(overflow="fold")
    for name, text in _lines(facts):
        rows.add_row(name, escape(text))
    parts: list[Any] = [escape(facts["step"]), rows, _settings(facts["identity"])]
    return Group(*parts, _score_table(facts)) if facts["scores"] else Group(*parts)


def _lines(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    record = facts["record"]
    wanted = [f"{place['sweep']}: {place['trial']}, stage {place['stage']}" for place in facts["wanted_by"]]
    more = [f"and {formatting.plural(len(wanted) - 3, 'more trial')}"] if len(wanted) > 3 else []
    lines = [
        ("what", f"{facts['kind']} {record.get('label', '')}".rstrip()),
        ("wanted by", "\n".join([*wanted[:3], *more]) or "no sweep that was run or reported with this store"),
        ("from", " ← ".join(step["path"].rsplit("/", 1)[1] for step in facts["chain"]) or "nothing before it"),
        _merged(facts),
        ("where", f"{facts['store']}/{facts['step']}"),
        ("result", _result(record)),
        ("took", _took(record)),
        ("made by", ", ".join(f"{name} {version}" for name, version in _makers(record).items())),
        ("failed", facts["failed"]["why"] if facts["failed"] else ""),
        ("again", _again(facts)),
        ("export", facts["export"] or ""),
    ]
    return [(name, text) for name, text in lines if text]


def _merged(facts: Mapping[str, Any]) -> tuple[str, str]:
    """The fine-tunes of a merge of several, the earliest first; of experts also what chooses among them."""
    merged = [path.rsplit("/", 1)[1] for path in facts["merges"]]
    if router := facts["router"]:
        return "experts", f"{', '.join(merged)}; {router.rsplit('/', 1)[1]} chooses among them"
    return "merges", ", ".join(merged) if len(merged) > 1 else ""


def _result(record: Mapping[str, Any]) -> str:
    parts = []
    if "score" in record:
        parts.append(f"score {record['score']:.1f} over {len(record.get('sample_scores', ()))} questions")
    if record.get("trained_parameters") is not None:
        parts.append(f"{record['trained_parameters']:,} of {record.get('total_parameters', 0):,} parameters trained")
    if proof := record.get("proof"):
        parts.append(f"{proof.get('moved')} tensors moved, {proof.get('frozen')} shown unchanged")
    if record.get("checkpoint_bytes") is not None:
        parts.append(f"{formatting.size(record['checkpoint_bytes'])} on disk")
    return "; ".join(parts)


def _took(record: Mapping[str, Any]) -> str:
    provenance = record.get("provenance") or {}
    parts = [formatting.duration(record["seconds"])] if record.get("seconds") is not None else []
    if provenance.get("host"):
        parts.append(f"on {provenance['host']}")
    if provenance.get("finished"):
        when = datetime.datetime.fromtimestamp(provenance["finished"], datetime.UTC)
        parts.append(f"until {when:%Y-%m-%d %H:%M} UTC")
    if record.get("updates"):
        parts.append(f"{record['updates']} updates, {record.get('updates_per_second') or 0:.1f} a second")
    if budget := budget_of(record):
        parts.append(f"{budget['samples']:,.0f} answers of {budget['generated_tokens']:,.0f} tokens generated")
    if record.get("peak_memory_bytes"):
        parts.append(f"peak memory {formatting.size(record['peak_memory_bytes'])}")
    if record.get("padding_share") is not None:
        parts.append(f"padding {record['padding_share']:.1%}")
    return ", ".join(parts)


def _makers(record: Mapping[str, Any]) -> dict[str, Any]:
    left_out = ("host", "started", "finished")
    return {name: fact for name, fact in (record.get("provenance") or {}).items() if name not in left_out and fact}


def _again(facts: Mapping[str, Any]) -> str:
    """The command, and whether the sweep's file as it is now still says so."""
    if facts["reproduce"] is None:
        return ""
    wanted, key = facts["wanted_by"][0], facts["record"]["key"]
    file = wanted["file"]
    if not Path(file).is_file():
        return f"{facts['reproduce']}\n({file} is not here)"
    try:
        same = key in load_sweep(file, wanted["set"]).steps
    except UserError:
        same = False
    return facts["reproduce"] if same else f"{facts['reproduce']}\n({file} has changed since)"


def _settings(identity: Mapping[str, Any]) -> Table:
    """What the key is computed from."""
    table = Table("what the key is computed from", "", box=SIMPLE_HEAD)
    for name, value in identity.items():
        if name == "training":
            value = {setting: set_ for setting, set_ in value.items() if set_ is not None}
        flat = value.items() if isinstance(value, dict) and name in ("training", "evaluation", "benchmark") else None
        text = ", ".join(f"{setting} {_text(set_)}" for setting, set_ in flat) if flat else _text(value)
        table.add_row(name, escape(text))
    return table


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _score_table(facts: Mapping[str, Any]) -> Table:
    before = facts["scores_before"]
    table = Table(box=SIMPLE_HEAD)
    table.add_column("benchmark")
    table.add_column("score", justify="right")
    if before:
        table.add_column("against its parent", justify="right")
    for name, score in facts["scores"].items():
        change = [formatting.points(score - before[name]) if name in before else "–"] if before else []
        table.add_row(escape(name), f"{score:.1f}", *change)
    return table
