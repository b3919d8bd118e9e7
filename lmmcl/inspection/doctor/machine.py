"""GPUs, Ray and disks of this machine."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from lmmcl.config.cluster import Cluster
from lmmcl.inspection.doctor.finding import Finding
from lmmcl.ledger import Ledger
from lmmcl.ledger.store import local_path

LITTLE = 10 * 10**9
"""Bytes of free space below which a disk is worth a warning."""
LONGEST_SOCKET = 107
"""Characters that the path of a Unix socket may have on Linux, and what Ray puts behind TMPDIR."""
RAY_SUFFIX = len("/ray/session_2026-01-01_00-00-00_000000_1000000/sockets/plasma_store")
SECONDS = 3.0


def gpu_findings(cluster: Cluster) -> Iterator[Finding]:
    """The GPUs that torch sees, and whether they are as many as one step of the cluster file takes."""
    if find_spec("torch") is None:
        return
    import torch

    needed = max(cluster.training.gpus_per_worker, cluster.evaluation.gpus)
    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            free, total = torch.cuda.mem_get_info(number)
            what = f"{torch.cuda.get_device_name(number)}, {free / 1e9:.0f} of {total / 1e9:.0f} GB free"
            yield Finding(f"GPU {number}", "ok" if free > 0.8 * total else "warning", what, _in_use(free, total))
        if not torch.cuda.is_bf16_supported():
            yield Finding(
                "GPU", "warning", "no bfloat16 arithmetic in hardware", "set precision: fp16 or fp32 in the sweep"
            )
    elif shutil.which("nvidia-smi"):
        yield Finding(
            "GPU",
            "problem",
            f"there is an NVIDIA driver, but torch {torch.__version__} sees no GPU",
            "install a build of torch for your CUDA version; `nvidia-smi` must list GPUs, and CUDA_VISIBLE_DEVICES not hide them",
        )
    else:
        state = "problem" if needed and cluster.ray.address == "local" else "ok"
        remedy = "use a cluster file without GPUs, or run where there are some" if state == "problem" else ""
        asked = f"; the cluster file asks {needed:g} for a step" if needed else ""
        yield Finding("GPU", state, f"none; {os.cpu_count()} CPUs{asked}", remedy)  # type: ignore[arg-type]


def _in_use(free: int, total: int) -> str:
    return "" if free > 0.8 * total else "other processes use it: `nvidia-smi` names them"


def ray_findings(cluster: Cluster) -> Iterator[Finding]:
    """Whether Ray can be started here, or the cluster that is named answers."""
    if find_spec("ray") is None:
        return
    address = os.environ.get("RAY_ADDRESS") or cluster.ray.address
    if address == "local":
        folder = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or tempfile.gettempdir()
        if len(folder) + RAY_SUFFIX > LONGEST_SOCKET:
            yield Finding(
                "Ray", "problem", f"TMPDIR is too long for its sockets: {folder}", "export RAY_TMPDIR=/tmp, or any short path"
            )  # fmt: skip
        else:
            yield Finding("Ray", "ok", "would be started on this machine")
        return
    host, _, port = address.rpartition("://")[2].partition("/")[0].rpartition(":")
    if not port.isdigit():
        yield Finding("Ray", "ok", f"address {address}, which only Ray can look up")
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=SECONDS).close()
    except OSError as error:
        yield Finding(
            "Ray",
            "problem",
            f"nobody answers at {address} ({error.strerror or error})",
            "start the cluster (`ray start --head`), correct RAY_ADDRESS or the cluster file, or unset it to run here",
        )
    else:
        yield Finding("Ray", "ok", f"something listens at {address}")


def disk_findings(ledger: Ledger, needed: int | None) -> Iterator[Finding]:
    """Free space where the store, the hub's cache and temporary files lie; `needed` bytes will be written to the store."""
    places: dict[str, Path] = {}
    if (store := local_path(ledger.store)) is not None:
        places["store"] = store
    places |= {"hub cache": hub_cache(), "temporary files": Path(tempfile.gettempdir())}
    for name, path in places.items():
        existing = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
        free = shutil.disk_usage(existing).free
        wanted = needed or 0 if name == "store" else 0
        text = f"{free / 1e9:,.0f} GB free for the {name} ({path})"
        if wanted > free:
            yield Finding(
                "disk", "problem", f"{text}; the sweep will write {wanted / 1e9:,.0f} GB", "free some, or name another --store"
            )  # fmt: skip
        elif free < LITTLE:
            yield Finding(
                "disk", "warning", text, "free some: `lmmcl gc SWEEP` drops weights that are no longer needed"
            )
        else:
            yield Finding("disk", "ok", text)


def hub_cache() -> Path:
    """Where huggingface_hub keeps models."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)
