#!/usr/bin/env bash
# A job of SLURM that trains for longer than its time allows: shortly before the end SLURM sends SIGUSR1, the run writes
# its state and queues the job again, and the job that starts next goes on with the run in the same folder.
#   sbatch scripts/slurm.sh -c configs/cifar10.yaml --name cifar10     arguments go to `vit-attn fit`
# For several GPUs raise --gpus-per-node and --ntasks-per-node alike, and add --trainer.devices; see docs/scale.md.
#SBATCH --job-name=vit_attn
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --time=04:00:00
#SBATCH --signal=USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%j.out
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:-$(dirname "$0")/..}"
exec srun "${VIT_ATTN:-.venv/bin/vit-attn}" fit "$@"
