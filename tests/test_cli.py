"""The command line as a person meets it: answers, refusals, exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml
from made import SWEEP, write_sweep
from own_data import write_receipts
from typer.testing import CliRunner

import lmmcl
from lmmcl.cli import app
from lmmcl.errors import UserError


def ask(*words: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """A whole process: what is tested is also what the entry point does with an error."""
    code = "from lmmcl.cli import main; main()"
    return subprocess.run([sys.executable, "-c", code, *map(str, words)], capture_output=True, text=True, cwd=cwd)


def answer(*words: object) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_bad_input_is_one_message_on_standard_error_and_exit_code_2(tmp_path: Path) -> None:
    done = ask("run", write_sweep(tmp_path, SWEEP.replace("sa_proj", "sa_prj")), "--store", tmp_path / "store")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    assert "did you mean 'sa_proj'" in done.stderr
    assert not (tmp_path / "store").exists(), "nothing may be written for a sweep that cannot run"


INTERRUPTED = """
import runpy, sys

class Interrupted:
    def find_spec(self, name, path=None, target=None):
        if name == "lmmcl.cli":
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupted())
runpy.run_module("lmmcl", run_name="__main__", alter_sys=True)
"""


def test_ctrl_c_during_the_first_imports_shows_no_traceback() -> None:
    done = subprocess.run([sys.executable, "-c", INTERRUPTED, "run"], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted; nothing was begun\n")


ENDING = """
import atexit, gc, sys
import lmmcl.cli
from lmmcl.__main__ import main

atexit.register(lambda: print("tidied up", gc.get_freeze_count() > 0))

def command():
    print("done", gc.get_freeze_count())
    sys.exit(3)

lmmcl.cli.main = command
main()
"""


def test_a_command_ends_without_a_search_for_what_could_be_freed_and_with_its_exit_code() -> None:
    done = subprocess.run([sys.executable, "-c", ENDING], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (3, "done 0\ntidied up True\n", "")


def test_an_mlflow_server_that_cannot_be_reached_is_told_before_anything_runs(tmp_path: Path) -> None:
    done = ask("run", write_sweep(tmp_path), "--store", tmp_path / "store", "--mlflow", "http://127.0.0.1:9")
    assert done.returncode == 2
    assert "http://127.0.0.1:9" in done.stderr
    assert not (tmp_path / "store" / "checkpoints").exists()


def test_the_store_is_named_by_option_else_by_environment_else_beside_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lmmcl.cli.options import open_ledger

    monkeypatch.chdir(tmp_path)
    assert open_ledger(None).store == str(tmp_path / "lmmcl-store")
    monkeypatch.setenv("LMMCL_STORE", str(tmp_path / "named"))
    assert open_ledger(None).store == str(tmp_path / "named")
    assert open_ledger("s3://bucket/folder").store == "s3://bucket/folder"


@pytest.mark.parametrize("command", ["plan", "status", "report"])
@pytest.mark.parametrize(
    ("store", "said"),
    [
        ("small.yaml", "is a file; a store is a folder or a URI"),
        ("nowhere://bucket/x", "Unsupported store URL scheme"),
        ("adl://bucket/x", "needs an additional package for this kind of store"),
    ],
)
def test_what_cannot_be_a_store_is_told_and_not_taken_for_an_empty_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, store: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=said):
        answer(command, write_sweep(tmp_path), "--store", store)


READING = ("status", "report", "compare", "samples", "show", "list", "export", "gc", "ledger check")


def reading(command: str, sweep: Path) -> list[object]:
    """The words of a command that reads a store, without the store's name."""
    more = {
        "compare": [sweep, "one", "other"],
        "samples": [sweep, "-b", "colour"],
        "show": ["0123456789abcdef"],
        "list": ["steps"],
        "export": ["0123456789abcdef", "--to", sweep.parent / "exported"],
        "ledger check": [],
    }
    return [*command.split(), *more.get(command, [sweep])]


@pytest.mark.parametrize("command", READING)
def test_a_store_that_is_not_there_is_told_by_all_that_read_one(tmp_path: Path, command: str) -> None:
    with pytest.raises(UserError, match=r"stroe does not exist.*--store"):
        answer(*reading(command, write_sweep(tmp_path)), "--store", tmp_path / "stroe")
    assert not (tmp_path / "stroe").exists()


@pytest.mark.parametrize("command", READING)
def test_all_that_read_a_store_take_the_one_that_a_cluster_file_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.delenv("LMMCL_STORE", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lmmcl-store").mkdir()
    (tmp_path / "cluster.yaml").write_text(f"store: {tmp_path / 'named'}\n")
    with pytest.raises(UserError, match="named does not exist"):
        answer(*reading(command, write_sweep(tmp_path)), "--cluster", "cluster.yaml")


def test_a_command_that_is_told_repeats_what_was_given(tmp_path: Path) -> None:
    from lmmcl.cli.options import given_again

    words = given_again(["training.epochs=2", "name=a b"], "my store", Path("c.yaml"))
    assert words == " --set training.epochs=2 --set 'name=a b' --store 'my store' --cluster c.yaml"
    assert given_again(None, None, None) == ""


def test_a_second_word_is_the_name_of_a_model_or_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"'x' is an unexpected extra argument.*in quotes"):
        answer("show", "birds", "x", "--store", tmp_path)


def test_the_version_is_told() -> None:
    assert answer("--version") == f"lmmcl {lmmcl.__version__}\n"


def test_a_precision_that_is_none_is_one_message(tmp_path: Path) -> None:
    done = ask("eval", "tiny-onevision", "-b", "colour", "--precision", "fp8", "--store", tmp_path / "store")
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    assert "'fp8' is not one of 'fp32', 'bf16', 'fp16'" in " ".join(done.stderr.replace("│", "").split())


def test_a_file_that_cannot_be_written_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    (tmp_path / "store").mkdir()
    done = ask("report", write_sweep(tmp_path), "--store", tmp_path / "store", "--to", tmp_path / "taken" / "table.md")
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    assert done.stderr.startswith("error: ") and "taken" in done.stderr


def test_a_plan_counts_steps_parameters_and_bytes(tmp_path: Path) -> None:
    path = write_sweep(tmp_path)
    plan = json.loads(answer("plan", path, "--store", tmp_path / "store", "--json"))
    assert plan["wanted"] == {"pretrained": 1, "finetune": 8, "merge": 0, "snapshot": 0, "evaluate": 36, "examine": 0}
    assert plan["to_run"] == plan["wanted"]
    assert plan["asked_by_trials"] == 4 * 15
    sizes = {trial["axes"]["recipe"]: trial["trained_parameters"] for trial in plan["trials"]}
    assert plan["bytes_to_write"] == 4 * 2 * 2 * sum(sizes.values()), "fp32, two stages, two learning rates"
    assert "15 of 60 steps are shared" in answer("plan", path, "--store", tmp_path / "store")


def test_every_kind_can_be_listed_and_has_members() -> None:
    floors = {"models": 3, "recipes": 8, "mitigations": 1, "skills": 5, "benchmarks": 8, "metrics": 8}
    for kind, floor in floors.items():
        rows = json.loads(answer("list", kind, "--json"))
        assert len(rows) >= floor, kind
        if kind not in ("metrics",):
            assert all(row["description"] for row in rows), f"a member of {kind} has no description"


def test_a_kind_that_is_not_there_is_answered_with_the_near_ones() -> None:
    done = ask("list", "recipe")
    assert done.returncode == 2
    assert "did you mean 'recipes'" in done.stderr


def test_a_model_shows_what_each_recipe_trains() -> None:
    facts = json.loads(answer("show", "model", "tiny-onevision", "--json"))
    whole = facts["total"]["parameters"]
    assert facts["recipes"]["full"] == {"parameters": whole, "bytes": 2 * whole}
    assert sum(size["parameters"] for size in facts["roles"].values()) == whole
    assert 0 < facts["recipes"]["sa_qkv"]["parameters"] < facts["recipes"]["sa_proj"]["parameters"] < whole


def test_data_check_names_bad_rows_and_fails(tmp_path: Path) -> None:
    path = write_receipts(tmp_path, rows=6)
    assert ask("data", "check", path).returncode == 0
    rows = json.loads(path.read_text())
    rows[2]["image"] = "images/nowhere.png"
    path.write_text(json.dumps(rows))
    done = ask("data", "check", path, "--json")
    assert done.returncode == 2
    [problem] = json.loads(done.stdout)["problems"]
    assert (problem["row"], problem["field"]) == (3, "image")


def test_the_printed_schema_is_that_of_sweep_files() -> None:
    jsonschema.validate(yaml.safe_load(SWEEP), json.loads(answer("schema")))
    local = Path(__file__).parents[1] / "cluster" / "local.yaml"
    jsonschema.validate(yaml.safe_load(local.read_text()), json.loads(answer("schema", "cluster")))


def test_the_package_runs_as_a_module_too() -> None:
    done = subprocess.run([sys.executable, "-m", "lmmcl", "list", "recipe"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "did you mean 'recipes'" in done.stderr


@pytest.mark.parametrize("kind", ["recipes", "mitigations", "skills", "benchmarks", "probes", "metrics"])
def test_every_member_that_is_listed_says_what_it_is(kind: str) -> None:
    rows = json.loads(answer("list", kind, "--json"))
    assert len(rows) >= 8
    assert [row["name"] for row in rows if not row["description"]] == []
