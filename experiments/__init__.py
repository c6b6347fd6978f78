"""Experiments and ablations, a module each: `python -m experiments.NAME`."""

import importlib.util
import sys

# Whoever forgets to activate the environment meets this rather than a traceback.
if importlib.util.find_spec("jax") is None:
    print(
        f"ivdjax: {sys.executable} has no jax, so it is not the Python that ivdjax was installed for; activate that "
        "environment (source .venv/bin/activate), or install ivdjax here (pip install -e .)",
        file=sys.stderr,
    )
    sys.exit(2)
