"""Compiled programs are kept between runs, so that what was compiled once starts at once."""

import hashlib
import os
import platform
from pathlib import Path

import jax


def keep() -> None:
    """Keep compiled programs under the user's cache folder, unless JAX_COMPILATION_CACHE_DIR names another.

    Each kind of processor has a folder of its own, since a program made for one may not run on another that shares
    the home folder. To switch it off, set JAX_ENABLE_COMPILATION_CACHE=false.
    """
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        jax.config.update("jax_compilation_cache_dir", str(caches / "ivdjax" / "programs" / _processor()))


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    features = next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())
    return f"{platform.machine()}-{hashlib.sha256(features.encode()).hexdigest()[:8]}"
