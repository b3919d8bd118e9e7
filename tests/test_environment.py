"""What somebody left in the environment changes neither where a stage runs nor what it computes."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from stage_parts import stage

from lmmcl import environment
from lmmcl.config.cluster import Cluster
from lmmcl.environment import neutral_environment
from lmmcl.errors import UserError
from lmmcl.ledger import Ledger
from lmmcl.runner.execute import compute

PLACE = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29652"}
OTHERS = {"OMPI_COMM_WORLD_SIZE": "4", "PMI_RANK": "1", "SM_FRAMEWORK_PARAMS": "{}", "TORCHELASTIC_RUN_ID": "x"}
NUMBERS = {
    "ACCELERATE_MIXED_PRECISION": "bf16",
    "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4",
    "ACCELERATE_DYNAMO_BACKEND": "inductor",
    "FSDP_OFFLOAD_PARAMS": "true",
    "XLA_USE_BF16": "1",
}


@pytest.fixture(autouse=True)
def _nothing_reported_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "_reported", set())


def set_all(monkeypatch: pytest.MonkeyPatch, values: dict[str, str]) -> None:
    for name, value in values.items():
        monkeypatch.setenv(name, value)


def test_places_and_numbers_are_unset_for_a_computation_and_back_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    everything = {**PLACE, **OTHERS, **NUMBERS}
    set_all(monkeypatch, {**everything, "ACCELERATE_LOG_LEVEL": "INFO", "CUDA_VISIBLE_DEVICES": "0"})
    with neutral_environment():
        assert not everything.keys() & os.environ.keys()
        assert {"ACCELERATE_LOG_LEVEL", "CUDA_VISIBLE_DEVICES"} <= os.environ.keys()
    assert everything.items() <= os.environ.items()


def test_who_was_launched_on_purpose_keeps_the_launchers_place_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, {**PLACE, **NUMBERS, "OMPI_COMM_WORLD_SIZE": "4"})
    with neutral_environment(launched=True):
        assert PLACE.items() <= os.environ.items()
        assert not {*NUMBERS, "OMPI_COMM_WORLD_SIZE"} & os.environ.keys()


def test_what_a_library_leaves_behind_does_not_reach_the_next_computation() -> None:
    with neutral_environment():
        os.environ["ACCELERATE_DYNAMO_BACKEND"] = "inductor"  # as TrainingArguments does for `compile: true`
    assert "ACCELERATE_DYNAMO_BACKEND" not in os.environ


def test_an_error_inside_hides_nothing_and_puts_all_back(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, PLACE)
    with pytest.raises(ZeroDivisionError), neutral_environment():
        1 / 0  # noqa: B018
    assert PLACE.items() <= os.environ.items()


def test_what_is_ignored_is_named_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    set_all(monkeypatch, {"RANK": "0", "ACCELERATE_MIXED_PRECISION": "bf16"})
    with caplog.at_level(logging.WARNING, logger="lmmcl"):
        for _ in range(3):
            with neutral_environment():
                pass
    (message,) = caplog.messages
    assert "ignoring environment variables ACCELERATE_MIXED_PRECISION, RANK:" in message


def test_tf32_that_torch_was_loaded_with_is_set_right_and_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "1")
    matmul = torch.backends.cuda.matmul
    before, matmul.fp32_precision = matmul.fp32_precision, "tf32"
    try:
        with neutral_environment():
            assert matmul.fp32_precision == "ieee"
            assert "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE" not in os.environ
        assert matmul.fp32_precision == "tf32"
    finally:
        matmul.fp32_precision = before


@pytest.mark.parametrize("name", ["NVIDIA_TF32_OVERRIDE", "ONEDNN_DEFAULT_FPMATH_MODE"])
def test_what_a_loaded_torch_will_not_forget_is_refused_by_name(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "0" if "TF32" in name else "STRICT")
    with neutral_environment():
        pass
    monkeypatch.setenv(name, "BF16")
    with pytest.raises(UserError, match=f"{name}=BF16 .* unset it before this process"), neutral_environment():
        pass


def test_before_torch_is_loaded_the_same_is_unset() -> None:
    code = (
        "import os, sys\nfrom lmmcl.environment import neutral_environment\n"
        "with neutral_environment(): print('torch' in sys.modules, os.environ.get('ONEDNN_DEFAULT_FPMATH_MODE'))"
    )
    surrounding = {**os.environ, "ONEDNN_DEFAULT_FPMATH_MODE": "BF16"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=surrounding)
    assert done.stdout.split() == ["False", "None"]


def test_a_stage_has_the_same_weights_whatever_surrounds_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def weights(store: str) -> dict[str, torch.Tensor]:
        step, ledger = stage(max_steps=2), Ledger(str(tmp_path / store))
        compute([step], ledger, Cluster(), lambda key, shown: None)
        return load_file(tmp_path / store / step.path / "delta.safetensors")

    plain = weights("plain")
    set_all(monkeypatch, {**PLACE, "LOCAL_WORLD_SIZE": "2", **OTHERS, **NUMBERS})
    surrounded = weights("surrounded")
    assert plain.keys() == surrounded.keys()
    assert all(torch.equal(plain[name], surrounded[name]) for name in plain)


KNOWN = re.compile(
    # who logs what where
    "(MLFLOW|WANDB|COMET|CLEARML|SWANLAB|TENSORBOARD|HF_(MLFLOW|DAGSHUB|DVCLIVE)|DISABLE_(MLFLOW|KUBEFLOW)|KUBEFLOW)_?.*"
    "|BRANCH|ECS_CONTAINER_METADATA_URI|TRAINING_JOB_ARN|PYTEST_CURRENT_TEST|TRANSFORMERS_VERBOSITY"
    # devices that are not ours, and their settings of kernels and memory
    "|PT_HPU_LAZY_MODE|DEEPSPEED_USE_HPU|PJRT_DEVICE|TPU_NAME|NPU_FA2_SPARSE_MODE|HCCL_DETERMINISTIC|ASCEND_LAUNCH_BLOCKING|USE_TORCH_XLA"
    "|PYTORCH_CNDEV_BASED_MLU_CHECK|PYTORCH_ENABLE_MPS_FALLBACK|PYTORCH_NVML_BASED_CUDA_CHECK|OMP_NUM_THREADS|KMP_.*|CCL_.*|CUDA_VISIBLE_DEVICES"
    # switched on for determinism alone; where code and kernels are fetched
    "|CUDA_LAUNCH_BLOCKING|CUBLAS_WORKSPACE_CONFIG|FLASH_ATTENTION_DETERMINISTIC|USE_HUB_KERNELS|HF_MODULES_CACHE|TRUST_REMOTE_CODE"
    "|TOKENIZERS_PARALLELISM|TORCH_COMPILE_FORCE_FULLGRAPH|TRANSFORMERS_DISABLE_DEEPGEMM_LINEAR|CUDA_HOME|CUDA_PATH|TORCH_NCCL_.*|NCCL_.*|FOO|RAY_SCOPE|AWS_REGION"
)
"""Variables that accelerate and transformers read, and that change neither the place of a process nor its numbers."""


def test_every_variable_that_accelerate_and_the_trainer_read_is_known() -> None:
    accelerate, transformers = (Path(find_spec(name).origin).parent for name in ("accelerate", "transformers"))  # type: ignore[union-attr,arg-type]
    files = [*accelerate.glob("*.py"), *(accelerate / "utils").glob("*.py"), *transformers.glob("*.py")]
    files += (transformers / "integrations").glob("*.py")
    skipped = ("launch.py", "launchers.py", "tracking.py", "testing_utils.py", "conftest.py", "integration_utils.py")
    read = re.compile(
        r"(?:environ(?:\.get\(|\[)|getenv\(|_from_env\(|int_from_env\(\[)\s*(?:\w+ ?\+ ?)?\"([A-Z][A-Z0-9_]+)\""
    )
    names = {name for file in files if file.name not in skipped for name in read.findall(file.read_text("utf-8"))}
    ours = (*environment.TORCHRUN, *environment.OTHER_LAUNCHERS, *environment.NUMBERS, *environment.HARMLESS)
    source = (accelerate / "utils" / "dataclasses.py").read_text("utf-8")
    suffixes = set(re.findall(r"prefix \+ \"([A-Z0-9_]+)\"", source))  # of ACCELERATE_…, FSDP_, FP8_ and MEGATRON_LM_
    unknown = {name for name in names - suffixes if not environment._fits(name, ours) and not KNOWN.fullmatch(name)}
    assert len(names) >= 60
    assert not unknown, "new variables: do they change places or numbers?"
