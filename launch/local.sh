#!/usr/bin/env bash
# Run a command in the project's own environment, making or renewing that environment first if need be.
#   bash launch/local.sh COMMAND...
# IVDJAX_EXTRAS (default: test) names the extras to install, e.g. IVDJAX_EXTRAS=test,cuda on a GPU machine.
# PYTHON (default: python3) is the interpreter a new environment is made with; 3.11 or newer.
set -euo pipefail

if [ $# -eq 0 ]; then
  echo "usage: bash launch/local.sh COMMAND..., for example: bash launch/local.sh pytest" >&2
  exit 2
fi

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv="$root/.venv"
extras=${IVDJAX_EXTRAS:-test}
python=${PYTHON:-python3}

# The environment is stale when what it was made from has changed; the stamp is written last, so a
# half-made environment is never mistaken for a whole one.
recipe=$(cat "$root/pyproject.toml" "$root/constraints.txt" <(echo "$extras $root") | sha256sum | cut -d' ' -f1)
stamp="$venv/.ivdjax-recipe"

if [ "$(cat "$stamp" 2>/dev/null || true)" != "$recipe" ]; then
  exec 9>"$root/.venv.lock"
  command -v flock >/dev/null && flock 9 # two first calls at once: the second waits for the first
  if [ "$(cat "$stamp" 2>/dev/null || true)" != "$recipe" ]; then
    if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "launch/local.sh: $python is not Python 3.11 or newer; name one that is: PYTHON=python3.11 bash launch/local.sh ..." >&2
      exit 2
    fi
    echo "launch/local.sh: installing ivdjax[$extras] into .venv (once; a few minutes)" >&2
    rm -f "$stamp"
    if command -v uv >/dev/null; then
      [ -x "$venv/bin/python" ] || uv venv --quiet --python "$python" "$venv"
      uv pip install --quiet --python "$venv/bin/python" -c "$root/constraints.txt" -e "${root}[$extras]" >&2
    else
      [ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
      "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
        -c "$root/constraints.txt" -e "${root}[$extras]" >&2
    fi
    echo "$recipe" >"$stamp"
  fi
  exec 9>&-
fi

export VIRTUAL_ENV="$venv" PATH="$venv/bin:$PATH"
exec "$@"
