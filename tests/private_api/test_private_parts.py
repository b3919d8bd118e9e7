"""Private parts of other libraries are used in one place, and a version that nobody has looked at fails a test."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from accelerate import optimizer as accelerate_optimizer
from accelerate.optimizer import AcceleratedOptimizer
from accelerate.utils import other as accelerate_other
from mlflow.tracking._tracking_service.client import TrackingServiceClient
from ray._private.runtime_env import packaging
from ray.train import ControllerError
from ray.tune.experiment import Trial
from transformers import Trainer, TrainingArguments

import lmmcl
from lmmcl.private_api import mlflow_private, ray_private, trainer_private

PACKAGE = Path(lmmcl.__file__).parent
LIBRARIES = {"ray": ray_private, "transformers": trainer_private, "mlflow": mlflow_private}
PRIVATE = re.compile(
    r"ray\._private|ray\.\w+\.v2\.|ray\.\w+\._|mlflow\.shared|mlflow\.loggedArtifacts|_initial_global_step|\._n_gpu"
    r"|trainer\._|_get_num_multimodal|def _(save|load_from_checkpoint|prepare_inputs|inner_training_loop)\(self, (output_dir|resume|inputs)"
)


@pytest.mark.parametrize("library", LIBRARIES)
def test_somebody_has_looked_at_the_private_parts_of_this_version(library: str) -> None:
    major, minor = map(int, version(library).split(".")[:2])
    module = LIBRARIES[library]
    assert (major, minor) <= module.NEWEST, (
        f"{library} {major}.{minor} is new: hold what {module.__name__} relies on against it, then set NEWEST to {major, minor}"
    )


def test_no_other_file_uses_private_parts() -> None:
    elsewhere = [path for path in PACKAGE.rglob("*.py") if path.parent.name != "private_api"]
    assert not [str(path) for path in elsewhere if PRIVATE.search(path.read_text(encoding="utf-8"))]
    here = [path for path in (PACKAGE / "private_api").glob("*_private.py") if PRIVATE.search(path.read_text())]
    assert len(here) == len(LIBRARIES), "the pattern finds what it is for"


def test_what_would_be_uploaded_is_what_ray_packs(tmp_path: Path) -> None:
    folder = tmp_path / "work"
    for name in ("code.py", "data/rows.json", "secret/key", "big.bin", ".venv/lib", "left/out"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    (folder / ".gitignore").write_text("secret/\n")
    (folder / ".rayignore").write_text("*.bin\n")
    listed = ray_private.package_files(folder, ["left"])
    packed = tmp_path / "packed.zip"
    packaging._zip_files(folder, [".venv", "left"], packed, include_gitignore=True)
    with zipfile.ZipFile(packed) as archive:
        names = {name for name in archive.namelist() if not name.endswith("/")}
    assert {path.relative_to(folder).as_posix() for path in listed} == names
    assert {"code.py", "data/rows.json"} <= names and not names & {"secret/key", "big.bin", ".venv/lib", "left/out"}


def test_ray_still_has_the_limits_and_errors_that_are_relied_on() -> None:
    assert ray_private.most_package_bytes() > 2**20
    for kind in (*ray_private.no_place_errors(), ray_private.damaged_run_error()):
        assert issubclass(kind, Exception)
    assert "controller_failure" in inspect.signature(ControllerError).parameters
    assert ray_private.reports_file().endswith(".json")


def test_tune_and_mlflow_still_keep_what_is_let_go_of() -> None:
    trial = Trial("driver", stub=True)
    assert trial._default_result_or_future is None and "_default_result_or_future = " in inspect.getsource(
        Trial.set_ray_actor
    )
    assert "utils._artifact_repos_cache[resource_id] = " in inspect.getsource(TrackingServiceClient._get_artifact_repo)


def test_the_trainer_still_calls_what_is_overridden() -> None:
    assert list(inspect.signature(Trainer._save).parameters) == ["self", "output_dir", "state_dict"]
    assert list(inspect.signature(Trainer._load_from_checkpoint).parameters) == [
        "self",
        "resume_from_checkpoint",
        "model",
    ]
    assert list(inspect.signature(Trainer._prepare_inputs).parameters) == ["self", "inputs"]
    source = inspect.getsource(Trainer)
    for call in ("self._save(", "self._load_from_checkpoint(", "self._prepare_inputs("):
        assert call in source, f"{call} is called no more"


def test_one_worker_takes_one_of_several_gpus(tmp_path: Path) -> None:
    arguments = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none")
    arguments._n_gpu = 4
    trainer_private.use_one_gpu(arguments)
    assert arguments.n_gpu == 1


def test_the_optimizer_looks_for_a_package_that_is_missing_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []
    monkeypatch.setattr(accelerate_optimizer, "is_lomo_available", lambda: bool(looks.append(1)))
    trainer_private.remember_missing_packages()
    trainer_private.remember_missing_packages()
    Accelerator(cpu=True)  # which optimizers ask for where they run
    optimizer = AcceleratedOptimizer(torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1))
    optimizer.step()
    optimizer.step()
    assert looks == [1]


STAGE = """
import sys, tempfile
from stage_parts import stage
from lmmcl.config.cluster import TrainingPlacement
from lmmcl.ledger import Ledger
from lmmcl.training.finetune import finetune
finetune(stage(max_steps=1), Ledger(tempfile.mkdtemp()), TrainingPlacement())
print("deepspeed" in sys.modules)
"""
COMPUTE = """
import sys, tempfile
from lmmcl.config.cluster import Cluster
from lmmcl.config.settings import Training
from lmmcl.ledger import Ledger
from lmmcl.methods import get_recipe
from lmmcl.models import get_model
from lmmcl.runner.execute import compute
from lmmcl.steps import Finetune, Pretrained
from lmmcl.tasks import get_skill
settings = Training(learning_rate=1e-3, global_batch_size=4, max_steps=1, precision="fp32")
step = Finetune(Pretrained(get_model("tiny-onevision")), get_recipe("sa_proj"), None, get_skill("birds"), settings, 0)
ledger = Ledger(tempfile.mkdtemp())
for each in (step.parent, step):
    compute([each], ledger, Cluster(), lambda key, note: None)
print(*("unloaded" if name not in sys.modules else name for name in ("datasets", "peft")))
import transformers
from transformers import trainer, trainer_utils
print(trainer.is_datasets_available(), trainer_utils._is_peft_model(None), transformers.utils.is_peft_available())
import datasets, peft
model = peft.get_peft_model(step.model.load_model(), peft.LoraConfig(target_modules=["q_proj"]))
print(trainer.is_datasets_available(), trainer.datasets is datasets, trainer_utils._is_peft_model(model))
print(trainer_utils.unwrap_peft_model(model) is model.get_base_model(), trainer.is_peft_available(), trainer.PeftModel is peft.PeftModel)
stand_ins = {name for name, module in sys.modules.items() for value in list(vars(module).values()) if type(value).__name__ == "_OnceLoaded"}
print(*sorted(stand_ins))
"""


def test_a_stage_without_deepspeed_does_not_import_it() -> None:
    tests = str(Path(__file__).parents[1])
    paths = os.pathsep.join([tests, *filter(None, [os.environ.get("PYTHONPATH")])])
    run = subprocess.run(
        [sys.executable, "-c", STAGE], env={**os.environ, "PYTHONPATH": paths}, stdout=subprocess.PIPE, check=True
    )
    assert run.stdout.decode().split()[-1] == "False"
    assert "is_deepspeed_available()" in inspect.getsource(accelerate_other.extract_model_from_parallel)
    trainer_private.leave_deepspeed_unloaded()
    assert accelerate_other.is_deepspeed_available() == ("deepspeed" in sys.modules)


def test_a_stage_leaves_libraries_that_the_trainer_only_recognises_unloaded_until_they_are_used() -> None:
    tests = str(Path(__file__).parents[1])
    paths = os.pathsep.join([tests, *filter(None, [os.environ.get("PYTHONPATH")])])
    run = subprocess.run(
        [sys.executable, "-c", COMPUTE], env={**os.environ, "PYTHONPATH": paths}, stdout=subprocess.PIPE, check=True
    )
    *_, after, before, loaded, peft, stand_ins = run.stdout.decode().splitlines()
    assert after == "unloaded unloaded"
    assert before == "False False True", "installed, but not loaded"
    assert loaded == "True True True"
    assert peft == "True True True"
    assert stand_ins == "transformers.trainer transformers.trainer_utils", "others look for themselves"


def test_mlflows_page_still_knows_the_words_of_a_shared_view() -> None:
    static = Path(inspect.getfile(__import__("mlflow"))).parent / "server" / "js" / "build" / "static" / "js"
    scripts = [path.read_text(encoding="utf-8", errors="replace") for path in static.rglob("*.js")]
    assert scripts, "MLflow's page is where it was"
    tags = [mlflow_private.view_tag(""), mlflow_private.NOTE_TAG, mlflow_private.TABLES_TAG, mlflow_private.COLOUR_TAG]
    address = ["viewStateShareKey", "compareRunsMode", "workflowType", "machine_learning", "compare-runs"]
    table = ["searchFilter", "orderByKey", "orderByAsc", "selectedColumns", "runsHiddenMode", "SHOW_ALL"]
    charts = ["compareRunCharts", "compareRunSections", "metricSectionId", "SCATTER"]
    for word in (*tags, *address, *table, *charts):
        assert any(word in script for script in scripts), f"{word} is not in MLflow's page"


@pytest.mark.parametrize(
    ("version", "supported"),
    [
        ("3.15.0", True),
        (".".join(map(str, mlflow_private.NEWEST)) + ".9", True),
        ("3.14.2", False),
        ("9.0.0rc1", False),
        ("", False),
    ],
)
def test_views_are_for_versions_whose_pages_were_looked_at(version: str, supported: bool) -> None:
    assert mlflow_private.is_view_supported(version) is supported


def test_colours_of_runs_differ() -> None:
    colours = [mlflow_private.run_colour(number) for number in range(100)]
    assert len(set(colours)) == 100 and all(len(colour) == 7 for colour in colours)
