#!/usr/bin/env bash
# An experiment on a Slurm cluster, over any number of nodes; submit it from the repository's folder:
#   sbatch [OPTIONS OF SBATCH] launch/slurm.sh EXPERIMENT [ARGUMENTS...]
#   bash launch/slurm.sh --dry-run EXPERIMENT [ARGUMENTS...]     prints what would run, anywhere
# EXPERIMENT is the name of a module in experiments/. Options given to sbatch win over those below.
# IVDJAX_PYTHON: the interpreter of the tasks, words of a command allowed ("apptainer exec --nv ivdjax.sif python"). By
# default the project's own environment, made by launch/local.sh with the extras IVDJAX_EXTRAS (default: cuda).
#
# One task a GPU: jax takes the GPU with the number of the task on its node.
#SBATCH --job-name=ivdjax
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --time=04:00:00
#SBATCH --output=slurm-%j.out
#
# A job that is taken off its nodes, or runs into its time limit, goes on where it was: every task is told two minutes
# before the limit, saves, and exits with 75.
#SBATCH --requeue
#SBATCH --signal=TERM@120
#SBATCH --open-mode=append
set -euo pipefail

again=75 # EX_TEMPFAIL: the same command goes on

fail() {
  echo "launch/slurm.sh: $1" >&2
  exit 2
}

dry=
if [ "${1:-}" = --dry-run ]; then
  dry=1
  shift
fi
[ $# -ge 1 ] || fail "name an experiment: sbatch launch/slurm.sh EXPERIMENT [ARGUMENTS...]"

# Slurm runs a copy of this file, from a folder of its own.
root=${SLURM_SUBMIT_DIR:-$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)}
cd "$root"
[ -f launch/local.sh ] || fail "$root: is not the repository's folder; submit from there"
experiment=$1
shift
[ -f "experiments/$experiment.py" ] || fail "no experiments/$experiment.py; name a module in experiments/"

export IVDJAX_EXTRAS=${IVDJAX_EXTRAS:-cuda}
prepare=()
if [ -n "${IVDJAX_PYTHON:-}" ]; then
  read -ra python <<<"$IVDJAX_PYTHON"
else
  prepare=(bash launch/local.sh true) # once, before the tasks would all do it
  python=("$root/.venv/bin/python")
fi
# A task that ends must not end the others: they may still be saving. jax ends those that wait for a lost one.
step=(srun --kill-on-bad-exit=0 --wait=0)
command=("${python[@]}" -m "experiments.$experiment" "$@" --distributed auto)

show() { printf '%q ' "$@" && echo; }
if [ -n "$dry" ]; then
  mapfile -t options < <(sed -n 's/^#SBATCH //p' "$root/launch/slurm.sh")
  show sbatch "${options[@]}" launch/slurm.sh "$experiment" "$@"
  echo "which runs, on the nodes it is given:"
  [ ${#prepare[@]} -eq 0 ] || show IVDJAX_EXTRAS="$IVDJAX_EXTRAS" "${prepare[@]}"
  show "${step[@]}" "${command[@]}"
  echo "and, where that ends with $again: scontrol requeue JOB"
  exit 0
fi

[ -n "${SLURM_JOB_ID:-}" ] || fail "this is no Slurm job; submit it with sbatch, or look with --dry-run"
[ -z "${SLURM_GPUS_PER_TASK:-}" ] || fail "--gpus-per-task hides from a task the GPU it takes; pass --gpus-per-node"
[ ${#prepare[@]} -eq 0 ] || "${prepare[@]}"
# Since 22.05 Slurm does not pass this on to a step by itself.
export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1}

# Where the job itself is told to stop, what its tasks do about it is waited for.
trap : TERM
code=0
"${step[@]}" "${command[@]}" || code=$?

if [ "$code" -eq "$again" ]; then
  # A cancelled job stays so, and one that Slurm is requeueing needs no help.
  state=$(squeue --noheader --jobs "$SLURM_JOB_ID" --format %T)
  if [ "$state" = RUNNING ]; then
    echo "launch/slurm.sh: stopped early, with everything saved; requeueing job $SLURM_JOB_ID" >&2
    scontrol requeue "$SLURM_JOB_ID"
  fi
fi
exit "$code"
