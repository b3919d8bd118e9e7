#!/usr/bin/env bash
# A sweep on Slurm: a Ray cluster over the job's nodes for as long as the job runs. Submit it again to continue after the time limit.
#   sbatch cluster/slurm.sh sweeps/quickstart.yaml --store /shared/lmmcl-store
#   sbatch cluster/slurm.sh SWEEP --store /shared/lmmcl-store --cluster FILE      (a file with `ray: {address: auto}`, instead of the one below)
# Idle, it costs nothing: nodes are held only while the sweep runs. Edit the marked lines.
#SBATCH --job-name=lmmcl
#SBATCH --nodes=2                       # edit
#SBATCH --exclusive
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8               # edit
#SBATCH --cpus-per-task=64              # edit
#SBATCH --time=24:00:00                 # edit
#SBATCH --signal=B:TERM@120             # two minutes to save before the limit
#SBATCH --requeue
set -euo pipefail

# edit: source /path/to/venv/bin/activate
cluster_file=$(mktemp)
trap 'rm -f "$cluster_file"; jobs -p | xargs -r kill 2> /dev/null || true' EXIT
cat > "$cluster_file" <<'YAML'
ray: {address: auto}
driver: {resources: {head: 0.001}}
training: {workers: 1, cpus_per_worker: 6, gpus_per_worker: 1, micro_batch_size: 2, gradient_checkpointing: true, save_every: 100}
evaluation: {cpus: 4, gpus: 1, batch_size: 32}
YAML

# Without a token, whoever reaches the head's ports could run programs as you.
export RAY_USAGE_STATS_ENABLED=0 RAY_AUTH_MODE=token RAY_AUTH_TOKEN
RAY_AUTH_TOKEN=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
port=${RAY_PORT:-6379}
address=$(hostname --ip-address | awk '{print $1}')

# This script runs on the first node: its head. Ray would count the cores of the whole node, and `srun` takes no
# --cpus-per-task from the job by itself.
ray start --head --node-ip-address="$address" --port="$port" --dashboard-port=$((port + 1)) \
    --num-cpus="$SLURM_CPUS_PER_TASK" --resources='{"head": 1}'
if [ "$SLURM_JOB_NUM_NODES" -gt 1 ]; then
    srun --nodes=$((SLURM_JOB_NUM_NODES - 1)) --ntasks-per-node=1 --cpus-per-task="$SLURM_CPUS_PER_TASK" \
        --exclude="$SLURMD_NODENAME" --overlap \
        ray start --address="$address:$port" --num-cpus="$SLURM_CPUS_PER_TASK" --block &
fi

RAY_ADDRESS="$address:$port" lmmcl run --cluster "$cluster_file" "$@" &
sweep=$!
trap 'kill -TERM "$sweep"' TERM
code=0
wait "$sweep" || code=$?
if kill -0 "$sweep" 2> /dev/null; then # TERM ended the waiting; the sweep still saves
    code=0
    wait "$sweep" || code=$?
fi
exit "$code"
