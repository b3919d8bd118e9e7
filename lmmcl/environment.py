"""The environment is not the experiment: variables that would move a process to another place, or its numbers, are left out.

Launchers (torchrun, mpirun, an operator, a notebook) leave variables behind by which torch, accelerate, DeepSpeed, transformers
and Ray Train find their place among other processes, and `accelerate launch` leaves some that change precision, accumulation
or compilation. None of that is in a sweep or a cluster file, so none of it may decide what a key stands for, or whether a
stage waits for processes that do not exist. What libraries read when they are used is unset for the time of a computation;
what was read when torch was loaded is set right where it can be, and refused by name where it cannot.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from lmmcl.errors import UserError

TORCHRUN = (
    "RANK",
    "WORLD_SIZE",
    "LOCAL_RANK",
    "LOCAL_WORLD_SIZE",
    "NODE_RANK",
    "GROUP_RANK",
    "GROUP_WORLD_SIZE",
    "ROLE_NAME",
    "ROLE_RANK",
    "ROLE_WORLD_SIZE",
    "MASTER_ADDR",
    "MASTER_PORT",
    "TORCHELASTIC_*",
    "ACCELERATE_TORCH_DEVICE",
)
"""How a launcher that speaks torch's language (torchrun, Ray Train) tells a process its place."""
OTHER_LAUNCHERS = (
    "OMPI_COMM_WORLD_*",
    "PMI_RANK",
    "PMI_SIZE",
    "MV2_COMM_WORLD_*",
    "LOCAL_SIZE",
    "NPROC",
    "FORK_LAUNCHED",
    "SM_FRAMEWORK_*",
    "SM_HP_MP_PARAMETERS",
    "SM_TRAINING_ENV",
    "SMDATAPARALLEL_*",
    "AZUREML_EXPERIMENT_ID",
    "AZ_BATCH*",
    "DLTS_JOB_ID",
    "DLWS_JOB_ID",
)
"""Others that accelerate, transformers or DeepSpeed take for a process group: MPI, SageMaker, Azure."""
NUMBERS = (
    "ACCELERATE_*",
    "FSDP_*",
    "FP8_*",
    "MEGATRON_LM_*",
    "PARALLELISM_CONFIG_*",
    "XLA_USE_BF16",
    "XLA_DOWNCAST_BF16",
    "TRANSFORMERS_SDPA_FORCE_GQA",
)
"""Precision, accumulation, clipping, compilation, sharding: what a sweep or a cluster file says, in the words of libraries."""
HARMLESS = ("ACCELERATE_LOG_LEVEL", "ACCELERATE_ENABLE_RICH", "ACCELERATE_DISABLE_RICH", "ACCELERATE_CPU_AFFINITY")
"""Of those, what changes neither place nor numbers."""
TF32 = "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE"
"""Read when torch is loaded, and it can be set right afterwards; NVIDIA's containers set it."""
LOADED_WITH_TORCH = (
    TF32,
    "NVIDIA_TF32_OVERRIDE",
    "HIPBLASLT_ALLOW_TF32",
    "ONEDNN_DEFAULT_FPMATH_MODE",
    "DNNL_DEFAULT_FPMATH_MODE",
    "CUBLAS_EMULATE_SINGLE_PRECISION",
    "CUBLAS_EMULATION_STRATEGY",
    "MKL_BLAS_COMPUTE_MODE",
)
"""fp32 that is not fp32: read by native libraries once, when they begin."""
EXACT = ("", "0", "no", "off", "false", "strict", "standard", "default")
"""Values of those that ask for nothing."""

log = logging.getLogger("lmmcl")

_reported: set[str] = set()


@contextmanager
def neutral_environment(*, launched: bool = False) -> Iterator[None]:
    """Inside the `with`, this process computes as if nobody had set any of these variables; afterwards they are back.

    With `launched` the place that torchrun or Ray Train gave the process is kept: that is for whoever was started by one on
    purpose. What is left out is named once, in a warning. Raises UserError for what was read already and cannot be undone.
    """
    patterns = (*OTHER_LAUNCHERS, *NUMBERS) if launched else (*TORCHRUN, *OTHER_LAUNCHERS, *NUMBERS)
    kept = (*HARMLESS, *(TORCHRUN if launched else ()))
    loaded = _loaded_with_torch(os.environ)
    before = {name: os.environ[name] for name in [*_matching(os.environ, patterns, kept), *loaded]}
    _warn_once(before)
    for name in before:
        del os.environ[name]
    try:
        with _fp32_matmul(TF32 in loaded):
            yield
    finally:
        for name in _matching(os.environ, patterns, kept):  # libraries leave some behind for the next stage, too
            del os.environ[name]
        os.environ.update(before)


def is_torchrun_worker(workers: int) -> bool:
    """Whether torchrun started this process on purpose: as one of as many as the cluster file asks for."""
    return "TORCHELASTIC_RUN_ID" in os.environ and workers > 0 and os.environ.get("WORLD_SIZE") == str(workers)


def _matching(environment: Iterable[str], patterns: Iterable[str], kept: Iterable[str]) -> list[str]:
    return sorted(name for name in environment if _fits(name, patterns) and not _fits(name, kept))


def _fits(name: str, patterns: Iterable[str]) -> bool:
    return any(name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern for pattern in patterns)


def _loaded_with_torch(environment: Mapping[str, str]) -> list[str]:
    """Those that are set to change numbers; raises UserError for what a torch that is loaded will not forget."""
    variables = [name for name in LOADED_WITH_TORCH if environment.get(name, "").strip().lower() not in EXACT]
    late = [f"{name}={environment[name]}" for name in variables if name != TF32 and "torch" in sys.modules]
    if late:
        raise UserError(
            f"{', '.join(late)} makes fp32 arithmetic less exact than the sweep's precision says, and torch has read it already; "
            "unset it before this process (on a Ray cluster: before the node's `ray start`) begins",
            place="environment",
        )
    return variables


def _warn_once(names: Iterable[str]) -> None:
    new = [name for name in names if name not in _reported]
    if new:
        _reported.update(new)
        log.warning(
            "ignoring environment variables %s: precision and settings come from the sweep file, processes and devices from "
            "the cluster file",
            ", ".join(new),
        )


@contextmanager
def _fp32_matmul(was_lowered: bool) -> Iterator[None]:
    """Undo what TF32 did to a torch that is loaded already."""
    torch = sys.modules.get("torch")
    if not was_lowered or torch is None:
        yield
        return
    before = torch.backends.cuda.matmul.fp32_precision
    torch.backends.cuda.matmul.fp32_precision = "ieee"
    try:
        yield
    finally:
        torch.backends.cuda.matmul.fp32_precision = before
