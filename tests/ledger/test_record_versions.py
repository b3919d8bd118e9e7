"""A sweep whose records were made by different versions says so, as their numbers may differ by that."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from made import SWEEP, write_sweep
from rich.console import Console
from typer.testing import CliRunner

from lmmcl.cli import app
from lmmcl.config.sweep import load_sweep
from lmmcl.ledger import Ledger, Record
from lmmcl.ledger.provenance import NUMBERS, provenance
from lmmcl.ledger.record_versions import differing_versions
from lmmcl.reports.collect import collect
from lmmcl.reports.page.page_data import page_data
from lmmcl.runner.reporting.report_files import print_table

NOW = {"torch": "2.9", "transformers": "5.24", "tokenizers": "0.23", "pillow": "13.0", "ray": "2.60", "host": "a"}


def record(made: dict[str, Any] | None = None, **fields: Any) -> Record:
    return Record("scores/x", {"provenance": NOW if made is None else made, **fields})


def test_records_of_one_environment_say_nothing_wherever_they_were_made() -> None:
    elsewhere = {**NOW, "host": "b", "ray": "2.61", "commit": "another", "finished": 7}
    assert differing_versions([record(), record(elsewhere), record(engine="transformers", image_backend="pil")]) == []
    assert differing_versions([]) == []


def test_a_package_that_differs_is_named_with_how_many_records_have_which() -> None:
    [note] = differing_versions([record(), record({**NOW, "pillow": "12.2"}), record()])
    assert note.startswith("records differ in pillow: 12.2 (1 record), 13.0 (2 records); differences in results")
    for package in NUMBERS:
        if package != "torchvision":
            assert differing_versions([record(), record({**NOW, package: "0"})])


def test_records_of_earlier_builds_that_did_not_name_a_package_are_told_apart() -> None:
    earlier = {name: value for name, value in NOW.items() if name not in ("pillow", "tokenizers")}
    notes = differing_versions([record(), record(earlier)])
    assert [note.split(":")[0] for note in notes] == ["records differ in tokenizers", "records differ in pillow"]
    assert "a version that is not recorded (1 record)" in notes[0]
    assert differing_versions([record(earlier), Record("scores/y", {})]) == []


def test_engines_and_backends_count_and_torchvision_only_where_it_made_the_pixels() -> None:
    assert differing_versions([record(engine="vllm"), record(engine="transformers")])
    assert differing_versions([record(image_backend="pil"), record(image_backend="torchvision")])
    old, new = {**NOW, "torchvision": "0.24"}, {**NOW, "torchvision": "0.25"}
    assert differing_versions([record(old, image_backend="pil"), record(new, image_backend="pil")]) == []
    assert differing_versions([record(old, image_backend="torchvision"), record(new, image_backend="torchvision")])


def test_every_record_of_a_run_names_what_made_it_and_a_difference_is_shown(tmp_path: Path, monkeypatch: Any) -> None:
    text = SWEEP.replace("[sa_proj, gate_up]", "[sa_proj]").replace("[1.0e-3, 3.0e-4]", "[1.0e-3]")
    text = text.replace("[counting, clock]", "[counting]").replace("examples: 64", "examples: 8").replace("32", "8", 1)
    path = write_sweep(tmp_path, text + "probes: [{number_bias: {examples: 4}}]\n")
    words = ["run", str(path), "--store", str(tmp_path / "store"), "--inline", "--mlflow", "off"]
    ran = CliRunner().invoke(app, words)
    assert ran.exit_code == 0 and "records differ" not in ran.output, ran.output

    ledger = Ledger(str(tmp_path / "store"))
    records = [found for step in load_sweep(path).steps.values() if (found := ledger.find(step))]
    assert len(records) == len(load_sweep(path).steps)
    for each in records:
        assert {"pillow", "tokenizers", "torch", "transformers"} <= each["provenance"].keys()
        assert each["provenance"]["pillow"] == provenance(0)["pillow"]
        assert each.fields.get("image_backend") == ("pil" if each["kind"] != "pretrained" else None)

    monkeypatch.setattr("lmmcl.ledger.provenance._versions", lambda: {**NOW, "pillow": "12.2"})
    again = CliRunner().invoke(app, [*words, "--set", "benchmarks.held_out=[colour, shape, size]"])
    assert again.exit_code == 0, again.output
    wider = load_sweep(path, ["benchmarks.held_out=[colour, shape, size]"])
    notes = [value for what, value in page_data(collect(wider, ledger))["facts"] if what == "note"]
    assert any(note.startswith("records differ in pillow: ") and "12.2 (4 records)" in note for note in notes), notes
    console = Console(width=200, record=True)
    print_table(collect(wider, ledger), console)
    assert "note: records differ in pillow" in console.export_text()
