"""Where a sweep is tracked: what the cluster file and options ask for, and what each gets."""

from __future__ import annotations

from pathlib import Path

import pytest

from lmmcl.config.cluster import Cluster, load_cluster
from lmmcl.errors import UserError
from lmmcl.tracking.destinations import OFF, Destinations, destinations, how_to_look


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (None, Destinations(None)),
        ("sqlite:////a/b.db", Destinations("sqlite:////a/b.db")),
        ("off", Destinations(OFF)),
        (["mlflow", "trackio"], Destinations(None, ("trackio",))),
        (["http://host:5000", "tensorboard"], Destinations("http://host:5000", ("tensorboard",))),
        (["tensorboard", "wandb"], Destinations(OFF, ("tensorboard", "wandb"))),
    ],
)
def test_a_list_without_mlflow_leaves_it_out(written: str | list[str] | None, expected: Destinations) -> None:
    assert destinations(Cluster(tracking=written), installed=False) == expected


def test_options_come_before_the_cluster_file_and_add_to_it() -> None:
    cluster = Cluster(tracking=["http://host:5000", "trackio"])
    assert destinations(cluster, "off", ["tensorboard", "trackio"], installed=False) == Destinations(
        OFF, ("trackio", "tensorboard")
    )


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("[mlflow, tensorbord]", "unknown tracker 'tensorbord'; did you mean 'tensorboard'?"),
        ("[mlflow, http://host:5000]", "one place of MLflow is expected, not 2: mlflow, http://host:5000"),
    ],
)
def test_a_list_that_cannot_be_meant_is_refused_with_its_place(tmp_path: Path, written: str, said: str) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text(f"tracking: {written}\n")
    with pytest.raises(UserError) as refused:
        load_cluster(file)
    assert said in str(refused.value) and "tracking" in str(refused.value)


def test_an_unknown_option_names_the_near_one() -> None:
    with pytest.raises(UserError, match="--tracking: unknown tracker 'tensorbord'; did you mean 'tensorboard'"):
        destinations(Cluster(), tracking=["tensorbord"])


def test_a_tracker_that_is_not_installed_is_refused_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"wandb needs the package wandb: pip install 'lmmcl\[wandb\]'"):
        destinations(Cluster(), tracking=["wandb"])


def test_the_command_that_shows_a_tracker_is_quoted() -> None:
    assert how_to_look("tensorboard", "s", Path("/a b/s")) == "tensorboard --logdir '/a b/s'"
    assert how_to_look("trackio", "my sweep", Path("/a")) == "trackio show --project 'my sweep'"
