#!/usr/bin/env bash
# A sweep on Slurm: a Ray cluster over the job's nodes for as long as the job runs. Submit it again to go on after the time limit.
#   sbatch cluster/slurm.sh sweeps/quickstart.yaml --store /shared/lmmcl-store
# Idle, it costs nothing: nodes are held only while the sweep runs. Edit the marked lines.
#SBATCH --job-name=lmmcl
#SBATCH --nodes=2                       # edit
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8               # edit
#SBATCH --cpus-per-task=64              # edit
#SBATCH --time=24:00:00                 # edit
#SBATCH --signal=B:TERM@120             # two minutes to save before the limit
#SBATCH --requeue
set -euo pipefail

# edit: source /path/to/venv/bin/activate
cluster_file=$(mktemp)
trap 'rm -f "$cluster_file"' EXIT
cat > "$cluster_file" <<'YAML'
ray: {address: auto}
driver: {resources: {head: 0.001}}
training: {workers: 1, cpus_per_worker: 6, gpus_per_worker: 1, micro_batch_size: 2, gradient_checkpointing: true, save_every: 100}
evaluation: {cpus: 4, gpus: 1, batch_size: 32}
max_open_trials: 32
YAML

export RAY_USAGE_STATS_ENABLED=0
port=6379
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
address=$(srun --nodes=1 --ntasks=1 --nodelist="$head" hostname --ip-address | awk '{print $1}')

srun --nodes=1 --ntasks=1 --nodelist="$head" --overlap \
    ray start --head --node-ip-address="$address" --port="$port" --resources='{"head": 1}' --block &
sleep 15
if [ "$SLURM_JOB_NUM_NODES" -gt 1 ]; then
    srun --nodes=$((SLURM_JOB_NUM_NODES - 1)) --ntasks=$((SLURM_JOB_NUM_NODES - 1)) --exclude="$head" --overlap \
        ray start --address="$address:$port" --block &
fi

RAY_ADDRESS="$address:$port" lmmcl run "$@" --cluster "$cluster_file" &
sweep=$!
trap 'kill -TERM "$sweep"; wait "$sweep"' TERM
wait "$sweep"
