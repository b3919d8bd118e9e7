"""What a worker group leaves on its node for the upload is there when it ends well, and gone when it fails."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from lmmcl.ledger import Ledger
from lmmcl.training.ray_train import node_output
from lmmcl.training.ray_train.node_output import output_folder, read_remote_output


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ledger:
    monkeypatch.setattr(node_output.ray, "get_runtime_context", lambda: SimpleNamespace(get_node_id=lambda: "node"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return Ledger(f"memory://{tmp_path.name}")


def test_the_results_of_training_that_fails_do_not_stay_on_the_node(ledger: Ledger) -> None:
    with pytest.raises(KeyboardInterrupt), output_folder(ledger, "key", first=True) as (output, _):
        (output / "delta.safetensors").write_bytes(b"half")
        raise KeyboardInterrupt
    assert not output.exists()


def test_the_results_of_training_that_ends_well_stay_where_is_told(ledger: Ledger) -> None:
    with output_folder(ledger, "key", first=True) as (output, reported):
        left = read_remote_output(reported)
    assert left is not None and Path(left.folder) == output and output.is_dir()
