"""Wrong inputs and the messages that they bring up: each names the place, the fault, what is allowed and the remedy."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from made import SWEEP, write_sweep
from typer.testing import CliRunner

from lmmcl.cli import app
from lmmcl.config.cluster import load_cluster
from lmmcl.config.sweep import load_sweep
from lmmcl.errors import UserError
from lmmcl.tasks.files.formats import read_examples

TABLE: list[dict[str, Any]] = yaml.safe_load((Path(__file__).parent / "wrong_inputs.yaml").read_text(encoding="utf-8"))


def message_of(row: dict[str, Any], folder: Path) -> str:
    """What the user reads, for one row of the table."""
    sweep = copy.deepcopy(yaml.safe_load(SWEEP))
    if "cli" in row:
        words = {"SWEEP": str(write_sweep(folder, SWEEP)), "STORE": str(folder), "MISSPELT": str(folder / "smal.yaml")}
        ran = CliRunner().invoke(app, [words.get(word, word) for word in row["cli"]])
        assert isinstance(ran.exception, UserError), ran.output
        return str(ran.exception)
    with pytest.raises(UserError) as caught:
        if "rows" in row:
            (folder / "rows.json").write_text(row["rows"], encoding="utf-8")
            read_examples(folder / "rows.json")
        elif "cluster" in row:
            (folder / "node.yaml").write_text(yaml.safe_dump(row["cluster"]), encoding="utf-8")
            load_cluster(folder / "node.yaml")
        else:
            for key, value in row.get("sweep", {}).items():
                sweep[key] = (
                    {**sweep[key], **value} if isinstance(value, dict) and isinstance(sweep.get(key), dict) else value
                )
            sweep["grids"][0].update(row.get("grid", {}))
            load_sweep(write_sweep(folder, yaml.safe_dump(sweep)), [row["set"]] if "set" in row else [])
    return str(caught.value)


@pytest.mark.parametrize("row", TABLE, ids=lambda row: str({key: row[key] for key in row if key != "says"})[1:-1])
def test_a_wrong_input_is_answered_with_what_helps(row: dict[str, Any], tmp_path: Path) -> None:
    message = message_of(row, tmp_path)
    missing = [words for words in row["says"] if words not in message]
    assert not missing, f"{missing} not in: {message}"


def test_the_table_has_at_least_sixty_rows_and_each_asks_for_something() -> None:
    assert len(TABLE) >= 60 and all(row["says"] for row in TABLE)
