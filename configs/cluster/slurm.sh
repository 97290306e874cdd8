#!/usr/bin/env bash
# Trains on a SLURM cluster; takes the options of `seq2seq fit`, and sbatch's before its own name:
# sbatch --nodes=2 --ntasks-per-node=4 --gpus-per-node=4 configs/cluster/slurm.sh \
#     --config configs/translation/multi30k_en_de.yaml --data.root MULTI30K
# A job that is preempted, moved or out of time saves `last.ckpt` and goes on from there. Submit it
# where `seq2seq` runs, with a run_dir and data that every machine sees.
#SBATCH --job-name=seq2seq
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=2
#SBATCH --time=4:00:00
#SBATCH --requeue
# To the processes of srun; with `B:` in front it would go to this script instead, and to no other.
#SBATCH --signal=SIGUSR1@120
#SBATCH --output=seq2seq-%j.log
#SBATCH --open-mode=append
set -uo pipefail

# Since SLURM 22.05 srun no longer takes --cpus-per-task over from sbatch.
export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$SRUN_CPUS_PER_TASK}

status=0
# Where one process fails, the others would wait for it until the time is up.
srun --kill-on-bad-exit=1 seq2seq fit "$@" \
    --trainer.num_nodes "$SLURM_JOB_NUM_NODES" --trainer.devices "$SLURM_NTASKS_PER_NODE" \
    --trainer.strategy ddp --ckpt_path last || status=$?

# 143: it was asked to end, and has saved where it was. `scancel` has ended this script before.
# 138: SIGUSR1 (128 + 10) came before the training began, when Python does not listen yet and there
# is nothing to save.
if [[ $status == 143 || $status == 138 ]]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
