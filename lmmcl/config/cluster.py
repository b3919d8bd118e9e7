"""Where and how steps run: the files in `cluster/`. None of it enters a key: the same sweep is the same experiment anywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from lmmcl.config.settings import Settings
from lmmcl.config.validation import read_yaml, validate
from lmmcl.errors import unknown

BESIDE_MLFLOW = ("tensorboard", "trackio", "wandb")
"""Trackers that `tracking` may list beside MLflow."""


class RaySettings(Settings):
    """The Ray cluster that runs the sweep."""

    address: str = Field(default="local", description="local starts one here; auto joins the running one; or host:port")
    cpus: int | None = Field(
        default=None, gt=0, description="logical CPUs of a cluster started here; default all cores"
    )
    resources: dict[str, float] = Field(default_factory=dict, description="custom resources of a cluster started here")
    dashboard: bool = Field(default=False, description="start Ray's dashboard with a cluster started here")


class TrainingPlacement(Settings):
    """One `Finetune` step."""

    workers: int = Field(
        default=0,
        ge=0,
        description="processes that train a stage together, placed by Ray Train or started by torchrun; 0 trains in the step's own "
        "process",
    )
    min_workers: int | None = Field(
        default=None,
        gt=0,
        description="ddp only: a group may start, or resume after a fault, with fewer than `workers` if resources are short, "
        "but never fewer than this; default: exactly `workers`",
    )
    cpus_per_worker: float = Field(default=1, gt=0, description="logical CPUs of a worker, and its threads")
    gpus_per_worker: float = Field(default=0, ge=0, description="GPUs of a worker")
    resources_per_worker: dict[str, float] = Field(default_factory=dict, description="custom Ray resources of a worker")
    strategy: Literal["ddp", "fsdp", "deepspeed"] = Field(
        default="ddp",
        description="how several workers share one model: ddp copies it, fsdp and deepspeed's ZeRO divide it",
    )
    zero_stage: Literal[1, 2, 3] = Field(
        default=2, description="deepspeed only: what is divided; 1 optimizer states, 2 also gradients, 3 also weights"
    )
    offload: Literal["none", "optimizer", "parameters"] = Field(
        default="none",
        description="deepspeed only: keep the optimizer (and, in stage 3, the weights) in the host's memory",
    )
    micro_batch_size: Annotated[int, Field(gt=0)] | Literal["auto"] | None = Field(
        default=None,
        description="examples per forward pass; default as many as fit the global batch; auto: as many as fit the memory",
    )
    gradient_checkpointing: bool = Field(
        default=False, description="recompute activations in the backward pass: less memory, a third slower"
    )
    attention: Literal["sdpa", "eager", "flash_attention_2"] = Field(
        default="sdpa", description="implementation of attention in transformers"
    )
    packing: bool = Field(
        default=False,
        description="put the examples of a forward pass end to end in place of padding, kept apart by positions and attention; "
        "for models that do so, and without mitigations that look at batches",
    )
    liger: bool | Literal["loss"] = Field(
        default=False,
        description="Liger kernels (`pip install lmmcl[liger]`, GPUs only); loss: head and loss in one, for every family; "
        "true: also norms, rotary positions and MLPs, for the families that Liger knows",
    )
    compile: bool = Field(default=False, description="torch.compile: slower start, faster updates")
    loader_workers: int = Field(
        default=0,
        ge=0,
        description="processes of each worker that read and encode examples ahead; 0 does so between updates",
    )
    encodings: str | None = Field(
        default=None,
        description="folder on each node that keeps encoded examples for other trials and stages; default none",
    )
    encodings_gb: float = Field(default=50.0, gt=0, description="size limit of the folder of encodings, in GB")
    features: str | None = Field(
        default=None,
        description="folder on each node that keeps image features of a frozen vision tower and projector for other trials, stages "
        "and evaluations; default none",
    )
    features_gb: float = Field(default=50.0, gt=0, description="size limit of the folder of features, in GB")
    save_every: int | None = Field(
        default=None, gt=0, description="updates between checkpoints inside a stage; default none"
    )
    max_failures: int = Field(
        default=2,
        ge=0,
        description="retries of a step, fine-tune or evaluation, after a transient error or a lost process; "
        "lost nodes and preemptions are not counted, and errors that the same input would raise again are not retried",
    )

    @property
    def fewest_workers(self) -> int:
        """What a group takes at least; 1 where there is none."""
        return max(1, self.min_workers or self.workers)

    @property
    def strategy_name(self) -> str:
        """How the workers share the model, in one word: single, ddp, fsdp, zero1, zero2 or zero3."""
        if not self.workers:
            return "single"
        return f"zero{self.zero_stage}" if self.strategy == "deepspeed" else self.strategy

    @model_validator(mode="after")
    def _fit_together(self) -> TrainingPlacement:
        """Refuse what one setting asks for and another cannot give."""
        if self.strategy != "ddp" and not self.workers:
            raise ValueError(f"strategy {self.strategy} needs workers: 1 or more (0 trains in the step's own process)")
        if self.strategy == "fsdp" and not self.gpus_per_worker:
            raise ValueError(
                "strategy: fsdp needs GPUs, but gpus_per_worker is 0 (the Trainer would use DDP instead); "
                "set gpus_per_worker: 1, or strategy: ddp"
            )
        if self.min_workers is not None and self.min_workers > self.workers:
            raise ValueError(f"min_workers must be at most workers ({self.workers}), not {self.min_workers}")
        if self.min_workers is not None and self.strategy != "ddp":
            raise ValueError(f"min_workers needs strategy: ddp; with {self.strategy} the number of workers is fixed")
        if self.offload != "none" and self.strategy != "deepspeed":
            raise ValueError(f"offload: {self.offload} needs strategy: deepspeed")
        if self.offload == "parameters" and self.zero_stage != 3:
            raise ValueError("offload: parameters needs zero_stage: 3")
        if self.liger and not self.gpus_per_worker:
            raise ValueError("liger needs gpus_per_worker: its kernels run on GPUs only")
        return self


class EvaluationPlacement(Settings):
    """One task that asks the missing benchmarks of a checkpoint."""

    cpus: float = Field(default=1, gt=0, description="logical CPUs of a task, and its threads")
    gpus: float = Field(default=0, ge=0, description="GPUs of a task")
    resources: dict[str, float] = Field(default_factory=dict, description="custom Ray resources of a task")
    batch_size: int = Field(
        default_factory=lambda values: 64 if values.get("gpus") else 128,
        gt=0,
        description="questions per batch; default 64 on a GPU, 128 on a CPU, or fewer where they are long",
    )
    engine: str = Field(
        default="transformers",
        description="engine that generates answers: transformers, or vllm (`pip install lmmcl[vllm]`, GPUs)",
    )
    features: str | None = Field(
        default=None,
        description="folder on each node that keeps image features of a frozen vision tower and projector for other trials, stages "
        "and evaluations; default none",
    )
    features_gb: float = Field(default=50.0, gt=0, description="size limit of the folder of features, in GB")
    lora_rank: int = Field(
        default=0,
        ge=0,
        description="engine vllm only: LoRA checkpoints up to this rank (the sum over their stages) answer as adapters beside the "
        "base; 0 merges them into its weights",
    )
    attention: Literal["sdpa", "eager", "flash_attention_2"] = Field(
        default="sdpa", description="implementation of attention in transformers"
    )


class DriverPlacement(Settings):
    """The drivers of trials and the actor that holds the steps; they wait and hold no GPU."""

    resources: dict[str, float] = Field(
        default_factory=dict, description="such as {head: 0.001} to stay off spot nodes"
    )


class ClaimSettings(Settings):
    """Runs that share a store say in it what they compute, so that each step is computed once."""

    enabled: bool = Field(
        default=True, description="whether to lease steps, and to wait for steps leased by other runs"
    )
    expiry_s: float = Field(
        default=120, gt=0, description="seconds after which the lease of a machine without heartbeat expires"
    )
    poll_s: float = Field(default=2, gt=0, description="seconds between two checks of what another run is computing")


class Cluster(Settings):
    """One file of `cluster/`."""

    ray: RaySettings = RaySettings()
    training: TrainingPlacement = TrainingPlacement()
    evaluation: EvaluationPlacement = EvaluationPlacement()
    driver: DriverPlacement = DriverPlacement()
    claims: ClaimSettings = ClaimSettings()
    store: str | None = Field(default=None, description="local folder or URI (s3://…, gs://…) of the ledger")
    tracking: str | list[str] | None = Field(
        default=None,
        description="MLflow tracking URI; default a sqlite database in the store. Or a list of it, `mlflow` (the default "
        "database), `tensorboard`, `trackio` and `wandb`",
    )
    pack: bool | None = Field(
        default=None,
        description="pack the records of finished trials at the end of a run (earlier versions of lmmcl cannot read packs); "
        "default: in sweeps of 50 trials and more",
    )
    gpu_memory_gb: float | None = Field(
        default=None, gt=0, description="memory of one GPU in GB; with it `plan` refuses what cannot fit"
    )
    max_open_trials: int | None = Field(
        default=None, gt=0, description="default: twice the fine-tunes that fit the cluster as it is now"
    )

    @field_validator("tracking")
    @classmethod
    def _known_trackers(cls, value: str | list[str] | None) -> str | list[str] | None:
        """A list holds names of trackers and at most one place of MLflow."""
        if not isinstance(value, list):
            return value
        places = [place for place in value if place not in BESIDE_MLFLOW]
        for place in places:
            if place not in ("mlflow", "off") and "://" not in place:
                raise ValueError(unknown("tracker", place, ("mlflow", *BESIDE_MLFLOW)) + ", or an MLflow tracking URI")
        if len(places) > 1:
            raise ValueError(f"one place of MLflow is expected, not {len(places)}: {', '.join(places)}")
        return value


def load_cluster(path: Path | None) -> Cluster:
    """The cluster file, or the laptop's defaults; raises UserError that names file and place."""
    return Cluster() if path is None else validate(Cluster, read_yaml(path), file=str(path))
