"""Words that people know from other tools, the ones that are meant here, and where each key of a file has its place."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Sequence

SWEEP, CLUSTER = "sweep file", "cluster file"

SECTIONS: dict[str, dict[str, str]] = {
    SWEEP: {
        "": "name description orders bounds benchmarks probes skills models thinking training evaluation per_skill "
        "per_stage grids search",
        "training": "learning_rate epochs max_steps examples max_length global_batch_size warmup_ratio "
        "lr_scheduler_type weight_decay max_grad_norm adam_beta1 adam_beta2 adam_epsilon precision optimizer",
        "evaluation": "limit precision updates every",
        "benchmarks": "held_out own allow_overlap lmms_eval tags wordings",
        "grids[…]": "model recipe mitigation order seed",
        "search": "stop scheduler optuna",
    },
    CLUSTER: {
        "": "ray training evaluation driver claims store tracking pack gpu_memory_gb max_open_trials",
        "ray": "address cpus resources dashboard",
        "training": "workers min_workers cpus_per_worker gpus_per_worker resources_per_worker strategy zero_stage "
        "offload micro_batch_size gradient_checkpointing attention packing liger compile loader_workers "
        "encodings encodings_gb features features_gb save_every max_failures",
        "evaluation": "cpus gpus resources batch_size engine features features_gb lora_rank attention",
        "claims": "enabled expiry_s poll_s",
    },
}
"""The keys of each section of the two files; a test compares them with the classes of settings."""
OF_MEMBERS = {
    "rank": "the setting rank of a LoRA recipe, under grids: recipe: [{lora: {rank: 8}}]",
    "alpha": "a setting of a member: recipe: [{lora: {alpha: 16}}], mitigation: [{wise_ft: {alpha: 0.5}}]",
    "dropout": "the setting dropout of a LoRA recipe, under grids: recipe: [{lora: {dropout: 0.0}}]",
    "dora": "the setting dora of a LoRA recipe, under grids: recipe: [{lora: {dora: true}}]",
    "targets": "the setting targets of a LoRA recipe, under grids: recipe: [{lora: {targets: [llm.blocks.*.attention]}}]",
    "max_pixels": "a setting of a model, for training and evaluation alike: models: {NAME: {max_pixels: 262144}} in the sweep file",
    "system": "a setting of a model: models: {NAME: {system: You are a helpful assistant.}} in the sweep file",
    "square": "a setting of a model: models: {NAME: {square: true}} in the sweep file",
    "tiles": "a setting of a model: models: {NAME: {tiles: anyres_max_9}} in the sweep file",
    "judge": "a metric of a skill or benchmark of your own: metric: {judge: {model: NAME}}",
    "metric": "a key of a skill or benchmark of your own: skills.NAME.metric or benchmarks.own.NAME.metric in the sweep file",
    "max_new_tokens": "a key of a skill or benchmark of your own: skills.NAME.max_new_tokens in the sweep file",
}
"""Settings that have their place inside a value, with an example."""
NOWHERE = {
    **dict.fromkeys(
        ("gradient_accumulation_steps", "gradient_accumulation"),
        "accumulation follows from training.global_batch_size in the sweep file (examples of an update, over all workers) and "
        "training.micro_batch_size in the cluster file (examples of a forward pass). Set global_batch_size to examples per "
        "device × accumulation steps × devices, and remove this key",
    ),
    "temperature": "answers are always decoded greedily, so there is no sampling temperature; remove it (the mitigation lwf has "
    "a temperature of its own: mitigation: [{lwf: {temperature: 2.0}}])",
}
"""Keys that people look for and that no section has, with what is to be done."""

_TARGETS: dict[str, str] = {
    # keys of training
    "learning_rate": "lr lrs peak_lr base_lr",
    "epochs": "num_train_epochs num_epochs n_epochs epoch nepochs train_epochs",
    "micro_batch_size": "per_device_train_batch_size train_micro_batch_size_per_gpu per_gpu_batch_size batch_size",
    "global_batch_size": "train_batch_size batch_size bs total_batch_size effective_batch_size",
    "max_steps": "steps num_train_steps max_train_steps num_steps max_updates updates",
    "examples": "max_train_samples max_samples num_samples n_samples train_samples buffer_size memory_size buffer",
    "limit": "max_eval_samples max_samples num_samples n_samples num_questions questions examples",
    "warmup_ratio": "warmup warmup_steps num_warmup_steps warmup_fraction",
    "lr_scheduler_type": "lr_scheduler lr_schedule schedule scheduler",
    "weight_decay": "wd decay",
    "optimizer": "optim optimiser optimizer_type optimizer_name",
    "base": "quantization quantisation quantization_bit quantization_config load_in_4bit",
    "max_grad_norm": "clip_grad_norm gradient_clipping grad_clip gradient_clip_val clip max_norm",
    "adam_beta1": "beta1 betas adam_betas",
    "adam_beta2": "beta2",
    "adam_epsilon": "eps adam_eps epsilon",
    "precision": "bf16 fp16 fp32 dtype torch_dtype mixed_precision half compute_dtype",
    "max_length": "max_seq_length max_seq_len model_max_length cutoff_len sequence_length block_size",
    # settings of models
    "max_pixels": "image_max_pixels max_image_pixels",
    "system": "system_prompt system_message default_system",
    "square": "image_aspect_ratio pad_to_square expand2square",
    "tiles": "anyres image_grid_pinpoints max_tiles",
    # axes and other keys of a sweep file
    "model": "models model_name model_name_or_path base_model checkpoint",
    "recipe": "recipes finetuning_type finetune peft trainable",
    "mitigation": "mitigations method methods cl_method",
    "order": "orders task_order tasks sequence",
    "orders": "order task_order tasks sequence",
    "seed": "seeds random_seed random_state",
    "grids": "grid axes sweep",
    "held_out": "heldout holdout hold_out eval_tasks",
    "benchmarks": "benchmark eval_datasets",
    "skills": "skill datasets dataset data",
    "evaluation": "eval",
    "probes": "probe",
    "metric": "metrics scorer metric_name",
    "max_new_tokens": "max_tokens max_length answer_tokens",
    "train": "train_file train_data train_path data path modules_to_save trainable unfreeze",
    "test": "test_file eval_file validation val eval dev",
    "images": "image_folder image_dir images_dir image_root image_path",
    "trials": "n_trials num_trials num_samples",
    "below": "min less_than lower lt",
    "above": "max greater_than upper gt",
    "reduction_factor": "eta",
    "grace_stages": "grace_period",
    # settings of recipes and mitigations
    "rank": "r lora_r lora_rank dim",
    "alpha": "lora_alpha",
    "dropout": "lora_dropout p",
    "dora": "use_dora",
    "rslora": "use_rslora",
    "targets": "target_modules target_module lora_target modules layers",
    "weight": "lambda lam lambda_ coefficient coef strength reg reg_weight ewc_lambda lwf_lambda alpha",
    "scale": "lambda lam lambda_ scaling scaling_factor",
    "temperature": "temp tau t",
    "keep": "density fraction share trim ratio sparsity",
    "drop": "drop_rate p dropout",
    "ratio": "fraction share mix mix_ratio",
    "share": "top_p fraction ratio",
    # cluster files
    "workers": "n_workers num_workers world_size nproc nproc_per_node num_processes",
    "gpus_per_worker": "gpus num_gpus use_gpu gpu n_gpus gpus_per_node",
    "cpus_per_worker": "num_cpus cpus",
    "gpus": "num_gpus gpu n_gpus use_gpu",
    "cpus": "num_cpus n_cpus",
    "strategy": "parallelism distributed backend deepspeed fsdp",
    "zero_stage": "stage zero zero_optimization",
    "key_variable": "api_key key token",
    "offload": "offload_optimizer cpu_offload",
    "gradient_checkpointing": "activation_checkpointing grad_checkpointing",
    "attention": "attn_implementation attn _attn_implementation flash_attention use_flash_attn",
    "packing": "pack_sequences sequence_packing sample_packing padding_free",
    "liger": "use_liger_kernel use_liger",
    "compile": "torch_compile use_compile",
    "loader_workers": "num_workers dataloader_num_workers data_workers preprocessing_num_workers",
    "save_every": "save_steps checkpoint_every save_interval",
    "max_failures": "retries max_retries",
    "batch_size": "per_device_eval_batch_size eval_batch_size",
    "engine": "backend",
    "store": "storage_path output_dir storage ledger",
    "tracking": "tracking_uri mlflow mlflow_tracking_uri",
    "max_open_trials": "max_concurrent_trials max_concurrent",
    "gpu_memory_gb": "gpu_memory vram",
    # names of metrics, recipes, mitigations, benchmarks, strategies
    "exact_match": "accuracy acc em exact match",
    "vqa_soft": "vqa_accuracy vqa vqa_score",
    "letter": "mcq multiple_choice option choice accuracy_mcq",
    "yes_no": "binary bool pope",
    "integer": "number numeric count counting_accuracy",
    "anls": "edit_distance levenshtein",
    "relaxed_accuracy": "relaxed",
    "contains": "substring includes in",
    "full": "all everything full_finetuning full_finetune full_ft fft ft sft",
    "lora": "dora peft adalora",
    "qlora": "4bit load_in_4bit bnb_4bit lora_4bit",
    "sa_proj": "attention attn self_attention sa self_attn qkvo",
    "mlp": "ffn feed_forward feedforward",
    "projector": "connector merger mm_projector aligner multi_modal_projector",
    "llm": "language_model text_model decoder lm",
    "vision": "vision_tower visual vision_encoder vit image_encoder",
    "head": "lm_head",
    "embeddings": "embed_tokens embedding",
    "norms": "norm layernorm layer_norm ln",
    "lwf": "distillation kd knowledge_distillation learning_without_forgetting",
    "ewc": "elastic_weight_consolidation",
    "replay": "rehearsal er experience_replay",
    "wise_ft": "weight_interpolation interpolation weight_averaging",
    "l2_sp": "l2 l2_regularization l2_regularisation",
    "model_tailor": "tailor",
    "task_arithmetic": "task_vector task_vectors",
    "data_hybrid": "data_mixing mixing joint",
    "coco_caption": "coco",
    "vqav2": "vqa vqa2",
    "bf16": "bfloat16",
    "fp16": "float16 half",
    "fp32": "float32 float full",
    "ddp": "dp data_parallel",
    "deepspeed": "zero zero1 zero2 zero3",
    "flash_attention_2": "flash flash_attn",
    "chaudhry_forgetting": "forgetting",
    "held_out_forgetting": "forgetting",
}
"""Ours, and what others call it. Of several that have a word in common, those are meant that the place allows."""

REMARKS = {
    **dict.fromkeys(
        ("per_device_train_batch_size", "train_micro_batch_size_per_gpu", "per_gpu_batch_size"),
        "it counts the examples of a forward pass; training.global_batch_size in the sweep file counts those of an update, over "
        "all workers",
    ),
    "api_key": "the name of the environment variable that holds it",
    "num_workers": "workers are processes that train, loader_workers processes that load data",
    "use_gpu": "write gpus_per_worker: 1; for evaluation, evaluation.gpus: 1",
    "warmup_steps": "a share of a stage's updates",
    "bf16": "write precision: bf16",
    "fp16": "write precision: fp16",
    "fp32": "write precision: fp32",
    "precision": "all stages of a trial have the same",
    "num_beams": "answers are always decoded greedily; remove this key",
    "do_sample": "answers are always decoded greedily; remove this key",
    **{f"zero{stage}": f"write strategy: deepspeed and zero_stage: {stage}" for stage in (1, 2, 3)},
    "dora": "write {lora: {dora: true}}",
}
"""What else is said of a word, where a name alone would mislead."""


def plain(word: str) -> str:
    """A word without case and marks: `TextVQA`, `text-vqa` and `text_vqa` are alike."""
    return re.sub(r"[^0-9a-z]", "", word.lower())


_MEANT: dict[str, list[str]] = {}
for _ours, _theirs in _TARGETS.items():
    for _word in dict.fromkeys(map(plain, _theirs.split())):
        _MEANT.setdefault(_word, []).append(_ours)
_KEYS = [
    *dict.fromkeys(key for sections in SECTIONS.values() for keys in sections.values() for key in keys.split()),
    *OF_MEMBERS,
    *NOWHERE,
]
_REMARKS = {plain(word): remark for word, remark in REMARKS.items()}


def synonyms(word: str, allowed: Collection[str]) -> list[str]:
    """Of the allowed names, those that are the same word in another spelling, else those that `word` means elsewhere."""
    spelled = [name for name in allowed if plain(name) == plain(word)]
    return spelled or [name for name in _MEANT.get(plain(word), ()) if name in allowed]


def is_key(word: str) -> bool:
    """Whether a section of one of the two files has this key."""
    return word in _KEYS


def remark(word: str) -> str:
    """What is to be known of a word of other tools; empty for most."""
    return _REMARKS.get(plain(word), "")


def place_of(word: str) -> str:
    """Where a key has its place, under its own name, the one that is meant or the nearest; empty where nothing is known of it.

    `this is training.workers in the cluster file`
    """
    near = difflib.get_close_matches(word, _KEYS, n=1, cutoff=0.8)
    for names in ([word], _MEANT.get(plain(word), []), near):
        for name in names:
            if name in NOWHERE:
                return NOWHERE[name]
        if places := [place for name in names for place in _places(name)]:
            return f"this is {_joined(places)}"
    return ""


def override_of(word: str) -> str:
    """The path that `--set` takes for a key of the sweep file; empty where a word means none, or several."""
    sections = SECTIONS[SWEEP]
    paths = [
        f"{section}.{name}" if section else name
        for name in ([word] if word in _KEYS else _MEANT.get(plain(word), []))
        for section, keys in sections.items()
        if name in keys.split() and "…" not in section
    ]
    return paths[0] if len(paths) == 1 else ""


def _joined(places: Sequence[str]) -> str:
    """`a in the cluster file`, `b in the cluster file` → `a or b in the cluster file`."""
    ends = {file: f" in the {file}" for file in SECTIONS}
    for end in ends.values():
        if all(place.endswith(end) for place in places):
            return f"{' or '.join(place.removesuffix(end) for place in places)}{end}"
    return " or ".join(places)


_AS_AXIS = {"training": " (or an axis of a grid)", "grids[…]": " (a list)"}
"""What is to be known of the sections of a sweep file whose keys may be, or are, axes."""


def _places(name: str) -> Iterable[str]:
    for file, sections in SECTIONS.items():
        for section in (section for section, keys in sections.items() if name in keys.split()):
            axis = _AS_AXIS.get(section, "") if file == SWEEP else ""
            yield f"{section}.{name}{axis} in the {file}" if section else f"{name} at the top of the {file}"
    if name in OF_MEMBERS:
        yield OF_MEMBERS[name]
