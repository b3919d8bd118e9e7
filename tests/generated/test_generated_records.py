"""Changed records, packs and files beside them: every command reads the store or names the damage, and loses nothing else."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from generated.mutations import SIZES, Tally, explore, mutated, seen_values
from hypothesis import strategies as st
from made import write_sweep
from typer.testing import CliRunner

from lmmcl.cli import app
from lmmcl.config.sweep import Sweep, load_sweep
from lmmcl.errors import UserError
from lmmcl.ledger import Ledger
from lmmcl.ledger.packs.pack_file import encode_pack, members
from lmmcl.ledger.packs.packed_files import pack_of
from lmmcl.ledger.packs.packing import pack
from lmmcl.ledger.record import RECORD, decode_record, encode_record
from lmmcl.steps import Evaluate, Finetune, ProbeStep, Step

SWEEP = """
name: small
orders: {main: [counting, clock]}
benchmarks: {held_out: [colour]}
probes: [number_bias]
training: {examples: 64, precision: fp32}
evaluation: {limit: 8}
grids: [{model: [tiny-onevision], recipe: [sa_proj, gate_up], mitigation: [wise_ft]}]
"""
PROVENANCE = {
    "lmmcl": "0.1.0",
    "torch": "2.13.0",
    "ray": None,
    "host": "there",
    "started": 1.7e9,
    "finished": 1.7e9 + 9,
}
COMMANDS = (
    "plan SWEEP --json",
    "status SWEEP",
    "report SWEEP --format json",
    "report SWEEP",
    "report SWEEP --format csv",
    "list steps",
    "show KEY",
    "samples SWEEP --trial sa_proj --benchmark colour",
    "compare SWEEP sa_proj gate_up",
    "gc SWEEP",
    "ledger check",
    "ledger check --repair",
    "ledger pack",
    "ledger unpack",
)
Files = dict[str, bytes]


@dataclass(frozen=True)
class Change:
    """What is changed in a store before a command looks at it."""

    packed: bool
    file: str
    content: Any
    """Of a record its fields, of another file its JSON, or bytes."""
    sealed: bool
    command: str


def compute(step: Step, ledger: Ledger) -> None:
    """Record a step with all that real ones leave, its weights but for a few bytes."""
    fields: dict[str, Any] = {"seconds": 1.5, "provenance": PROVENANCE, "peak_memory_bytes": 4096}
    with ledger.writing(step) as draft:
        if isinstance(step, Evaluate):
            scores = [1.0, 0.0, 0.5, 1.0]
            rows = [
                {
                    "id": f"q{n}",
                    "question": "which?",
                    "references": ["a"],
                    "metadata": {},
                    "prediction": "b",
                    "score": score,
                }
                for n, score in enumerate(scores)
            ]
            _write_rows(draft.folder / "samples.jsonl", rows)
            fields |= {"sample_scores": scores, "score": 62.5, "image_backend": "pil"}
        elif isinstance(step, ProbeStep):
            (draft.folder / "details.json").write_text('{"tokens": [1, 2]}')
            fields |= {"values": {"number_bias/max": 0.5, "number_bias/sum": 1.0}, "image_backend": "pil"}
        elif step.parents:
            (draft.folder / "delta.safetensors").write_bytes(b"weights")
            fields |= {"trained_parameters": 8, "trained_bytes": 32, "total_parameters": 80, "checkpoint_bytes": 40}
        if isinstance(step, Finetune):
            _write_rows(
                draft.folder / "curve.jsonl",
                [{"update": n, "loss": 2.0 / n, "learning_rate": 1e-3, "grad_norm": 1.0} for n in (1, 2)],
            )
            fields |= {"updates": 2, "examples": 64, "train_seconds": 1.0, "updates_per_second": 2.0, "loss": 1.0}
            fields |= {"proof": {"frozen": 3, "moved": 2, "unmoved": []}, "precision": "fp32"}
            fields |= {"strategy": {"name": "single", "workers": 1, "backend": None, "device": "cpu"}}
        draft.commit(fields)


def _write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


class Store:
    """A finished store, in single files and in packs, written again for every input."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.file = folder / "store", write_sweep(folder, SWEEP)
        self.sweep: Sweep = load_sweep(self.file)
        ledger = Ledger(str(self.folder))
        for step in self.sweep.steps.values():
            compute(step, ledger)
        self.single = self.read()
        pack(ledger)
        self.packs = self.read()
        self.texts = {name: content for name, content in self.single.items() if not name.endswith(".safetensors")}

    def read(self) -> Files:
        files = (path for path in self.folder.rglob("*") if path.is_file())
        return {path.relative_to(self.folder).as_posix(): path.read_bytes() for path in files}

    def write(self, files: Files) -> None:
        shutil.rmtree(self.folder)
        for name, content in files.items():
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / name).write_bytes(content)

    def changes(self) -> st.SearchStrategy[Change]:
        """A file of the store, with other fields or other bytes."""
        parsed = {name: parse(content) for name, content in self.texts.items()}
        seen = seen_values(list(parsed.values()))
        names = st.sampled_from(sorted(parsed) + sorted(name for name in parsed if name.endswith(RECORD)) * 2)

        @st.composite
        def change(draw: st.DrawFn) -> Change:
            name, packed = draw(names), draw(st.booleans())
            content: Any = draw(mutated([parsed[name]], seen, most=2))
            if draw(st.integers(0, 5)) == 0:
                whole = self.texts[name]
                if packed:
                    name = str(pack_of(name))
                    whole = self.packs[name]
                content = draw(damaged(whole))
            return Change(packed, name, content, draw(st.booleans()), draw(st.sampled_from(COMMANDS)))

        return change()

    def apply(self, change: Change) -> bool:
        """Write the store so changed; whether what was changed is taken for what it was."""
        files = dict(self.packs if change.packed else self.single)
        if isinstance(change.content, bytes):
            files[change.file] = change.content
            self.write(files)
            return False
        written = {change.file: encode(change)}
        if not change.file.endswith(RECORD):  # the record knows of the change, as of a file that another version wrote
            record = f"{change.file.rsplit('/', 1)[0]}/{RECORD}"
            fields = decode_record(self.single[record])
            content = written[change.file]
            fields["files"][change.file.rsplit("/", 1)[1]] = {
                "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest(),
            }  # fmt: skip
            written[record] = encode_record(fields)
        if change.packed:
            name = str(pack_of(change.file))
            inside = {inner: member.read(files[name]) for inner, member in members(files[name]).items()}
            files[name] = encode_pack(inside | written)
        else:
            files |= written
        self.write(files)
        try:
            return all(bool(decode_record(content)) for inner, content in written.items() if inner.endswith(RECORD))
        except ValueError:
            return False


def parse(content: bytes) -> Any:
    lines = [json.loads(line) for line in content.decode().splitlines()] if content.count(b"\n{") else None
    return lines or json.loads(content)


def encode(change: Change) -> bytes:
    fields = change.content
    if change.file.endswith(".jsonl") and isinstance(fields, list):
        return "".join(json.dumps(row) + "\n" for row in fields).encode()
    if change.file.endswith(RECORD) and isinstance(fields, dict):
        fields = {name: value for name, value in fields.items() if name != "seal"}
        if change.sealed:
            return encode_record(json.loads(json.dumps(fields).replace("NaN", "null").replace("Infinity", "null")))
    return json.dumps(fields).encode()


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """Bytes cut, changed, doubled or put between."""
    at = draw(st.integers(0, len(content) - 1))
    return draw(
        st.sampled_from(
            [
                content[:at],
                content[:at] + bytes([content[at] ^ (1 << draw(st.integers(0, 7)))]) + content[at + 1 :],
                content[:at] + draw(st.binary(max_size=4)) + content[at:],
                content + content[at:],
                content[at:],
            ]
        )
    )


def look(store: Store, change: Change) -> bool:
    accepted = store.apply(change)
    step = next((s for s in store.sweep.steps.values() if change.file.startswith(f"{s.path}/")), None)
    words = [
        {"SWEEP": str(store.file), "KEY": step.key if step else "colour"}.get(word, word)
        for word in change.command.split()
    ]
    done = CliRunner().invoke(app, [*words, "--store", str(store.folder)])
    if done.exception is not None and not isinstance(done.exception, SystemExit | UserError):
        raise done.exception
    ledger = Ledger(str(store.folder))
    mine = pack_of(change.file) or change.file
    lost = [
        other.path
        for other in store.sweep.steps.values()
        if other is not step
        and not (isinstance(change.content, bytes) and change.packed and pack_of(other.path) == mine)
        and ledger.find(other) is None
    ]
    assert not lost, f"{change.command}: {lost} were lost"
    return accepted


@pytest.mark.parametrize("examples", SIZES)
def test_a_changed_record_or_pack_is_read_or_named_and_nothing_else_is_lost(
    examples: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, tally = Store(tmp_path), Tally()
    explore(partial(look, store), store.changes(), examples, tally)
    tally.check("records and packs", capsys)
