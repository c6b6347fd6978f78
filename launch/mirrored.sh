#!/usr/bin/env bash
# Run a command that works in a folder on this machine's disk, and keep copies of the folder in another place, such as a
# mounted bucket, from which the next machine goes on.
#   bash launch/mirrored.sh FOLDER COPIES COMMAND...
# Buckets have neither renames that happen at once nor files that grow, on which whole checkpoints and logs rest. So
# every IVDJAX_MIRROR_SECONDS (default: 60), and when the command ends, the folder, if it has changed, is copied to
# COPIES/a and COPIES/b in turn, and only then numbered in a.complete or b.complete: one of the two is always whole.
# Exits as the command does. SIGTERM goes on to the command; its end is waited for and copied, too.
set -euo pipefail

if [ $# -lt 3 ]; then
  echo "usage: bash launch/mirrored.sh FOLDER COPIES COMMAND..." >&2
  exit 2
fi
folder=$1 copies=$2
shift 2

files() { find "$1" -type f -printf '%P %s %T@\n' 2>/dev/null | sort; }

# The number of the newest whole copy, and its name; 0 where there is none.
newest() {
  local slot number best=0 name=
  for slot in a b; do
    number=$(cat "$copies/$slot.complete" 2>/dev/null || true)
    if [ "${number:-0}" -gt "$best" ]; then best=$number name=$slot; fi
  done
  echo "$best $name"
}

copied=
mirror() {
  local now saved slot number name
  now=$(files "$folder") || true
  [ -n "$now" ] && [ "$now" != "$copied" ] || return 0
  read -r number name < <(newest)
  slot=a
  [ "$name" != a ] || slot=b
  rm -f "$copies/$slot.complete" && rm -rf "${copies:?}/$slot" && mkdir -p "$copies/$slot" || return 1
  # A log may tell of a step that no checkpoint has, but not lack one that a checkpoint has.
  saved=$(files "$folder/checkpoints") || true
  [ -z "$saved" ] || cp -R "$folder/checkpoints" "$copies/$slot" 2>/dev/null || return 1
  # One that was just being deleted may have been copied in part.
  [ "$(files "$folder/checkpoints" || true)" = "$saved" ] || return 1
  find "$folder" -mindepth 1 -maxdepth 1 ! -name checkpoints -exec cp -R -t "$copies/$slot" {} + 2>/dev/null || return 1
  echo "$((number + 1))" >"$copies/$slot.complete" || return 1
  copied=$now
}

mkdir -p "$copies" "$(dirname "$folder")"
read -r number name < <(newest)
if [ ! -e "$folder" ] && [ "$number" -gt 0 ]; then
  echo "launch/mirrored.sh: going on from $copies/$name" >&2
  rm -rf "$folder.partial"
  cp -R "$copies/$name" "$folder.partial"
  mv "$folder.partial" "$folder"
fi

"$@" &
child=$!
trap 'kill -TERM "$child" 2>/dev/null || true' TERM INT
code=
while [ -z "$code" ]; do
  sleep "${IVDJAX_MIRROR_SECONDS:-60}" &
  pause=$!
  # Whichever ends first: the command, the pause, or, by a signal, the waiting itself.
  wait -n "$child" "$pause" || true
  if ! kill -0 "$child" 2>/dev/null; then
    code=0
    wait "$child" || code=$?
  fi
  kill "$pause" 2>/dev/null || true
  mirror || true # files come and go while a run goes on: the next round has a whole copy
done

mirror || {
  echo "launch/mirrored.sh: $copies: could not be written to; the run is in $folder, on this machine only" >&2
  [ "$code" -ne 0 ] || code=1
}
exit "$code"
