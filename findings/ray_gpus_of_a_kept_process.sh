#!/usr/bin/env bash
# ray 2.60.0: the process of a task that takes a GPU ends with the task only where the GPU is asked for in the decorator
# (`@ray.remote(num_gpus=1)` sets max_calls=1). Where it is asked for by `.options(num_gpus=1)` the process is kept like one without a
# GPU, and the next task in it is handed another: CUDA_VISIBLE_DEVICES of one process goes from 0 to 1. CUDA, once it has started,
# stays with the device that it saw first, so two tasks can compute on one GPU of a node while another is idle, without any warning.
# Guessed before: both ways of asking are the same. No GPU is needed to see it: Ray counts those that it is told of.
# Seen, of three rounds of two tasks side by side and one alone:
#   options(num_gpus=1): 2 processes, 2 of them given several GPUs    decorator: 9 processes, 0 of them
# Exits with 0 while this is so, with 1 when it changed.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install -q ray==2.60.0
cd "$folder"
"$folder/venv/bin/python" - <<'P'
import collections
import os
import time

import ray

ray.init(address="local", num_cpus=2, num_gpus=2, include_dashboard=False, log_to_driver=False)


def where():
    time.sleep(0.3)
    return os.getpid(), os.environ["CUDA_VISIBLE_DEVICES"]


def seen(task):
    gpus = collections.defaultdict(set)
    for _ in range(3):
        found = [*ray.get([task.remote(), task.remote()]), ray.get(task.remote())]
        for process, gpu in found:
            gpus[process].add(gpu)
    return len(gpus), sum(len(each) > 1 for each in gpus.values())


kept, moved = seen(ray.remote(where).options(num_gpus=1, num_cpus=0))
ended, none = seen(ray.remote(num_gpus=1, num_cpus=0)(where))
print(f"options(num_gpus=1): {kept} processes, {moved} of them given several GPUs    decorator: {ended} processes, {none} of them")
raise SystemExit(0 if kept < 9 and moved and ended == 9 and not none else 1)
P
