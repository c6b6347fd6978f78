#!/usr/bin/env bash
# What every node of a SkyPilot task runs (sky-gpu.yaml, sky-tpu.yaml):
#   bash launch/sky.sh EXPERIMENT [ARGUMENTS...]
# RUNS (default: /runs): where runs outlive the machines. On one node it may be a bucket: the run works on the node's
# disk and is copied there (mirrored.sh). Several nodes work in RUNS itself, which must then be a file system that all
# of them share, such as a SkyPilot volume.
# RUN (default: EXPERIMENT): name of the run's folder.
set -euo pipefail

fail() {
  echo "launch/sky.sh: $1" >&2
  exit 2
}
[ $# -ge 1 ] || fail "name an experiment: bash launch/sky.sh EXPERIMENT [ARGUMENTS...]"

cd "$(dirname "${BASH_SOURCE[0]}")/.."
experiment=$1
shift
[ -f "experiments/$experiment.py" ] || fail "no experiments/$experiment.py; name a module in experiments/"
runs=${RUNS:-/runs}
run=${RUN:-$experiment}
command=(bash launch/local.sh python -m "experiments.$experiment" "$@")

if [ "${SKYPILOT_NUM_NODES:-1}" -gt 1 ]; then
  mapfile -t nodes <<<"$SKYPILOT_NODE_IPS"
  exec "${command[@]}" --run-dir "$runs/$run" \
    --distributed "${nodes[0]}:${PORT:-8476}" --processes "$SKYPILOT_NUM_NODES" --process "$SKYPILOT_NODE_RANK"
fi
# The cache is made again where it is missing: it need not be copied.
exec bash launch/mirrored.sh "$HOME/runs/$run" "$runs/$run" \
  "${command[@]}" --run-dir "$HOME/runs/$run" --data.cache "$HOME/cache/$run"
