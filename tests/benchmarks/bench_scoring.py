"""CPU seconds that scoring a case takes on one core, beside plain `surface-distance` on the same masks.

    python -m tests.benchmarks.bench_scoring [--repeats 7] [--json FILE]

What is timed starts with both masks in memory and ends with every score of the case. The table and what it says are
in README.md beside this file.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scipy
from scipy import ndimage
from surface_distance import metrics as plain

from ivdjax.evaluation.challenge import score_case

SHAPE = (36, 256, 256)
SPACING_MM = (2.0, 1.25, 1.25)
DISCS = 7
LIMIT_S = 0.5
LIMIT_LOAD = 1.0

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


def main() -> None:
    """Measure, print a table, and write it where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7, help="timed runs of each; their median is given")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args()
    _use_one_core()
    # The release on PyPI takes names of NumPy that version 2 dropped, wherever a mask is empty.
    vars(np).update(Inf=np.inf, NaN=np.nan)
    warnings.simplefilter("ignore")  # it also takes names of SciPy that are on their way out
    result = {"machine": _machine(), "shape": SHAPE, "spacing_mm": SPACING_MM, "repeats": arguments.repeats}
    result["cases"] = [_measure(name, *masks, arguments.repeats) for name, masks in _cases().items()]
    _print(result)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def _use_one_core() -> None:
    """Start again on one core, before any library has started threads of its own."""
    pins = hasattr(os, "sched_setaffinity")
    if ONE_THREAD.items() <= os.environ.items() and not (pins and len(os.sched_getaffinity(0)) > 1):
        return
    if pins:
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    os.execve(sys.executable, sys.orig_argv, {**os.environ, **ONE_THREAD})


def _machine() -> dict[str, Any]:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": models[0] if models else platform.processor(),
        "cores": os.cpu_count(),
        "cores_used": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "load_average": os.getloadavg()[0],
    }


def _cases() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Binary predictions that differ in what else lies in them, each with the numbered discs of the reference."""
    depth_mm, number = _spine()
    numbers = np.where(depth_mm > 0, number, 0).astype(np.uint8)
    rng = np.random.default_rng(0)
    rough = ndimage.gaussian_filter(rng.normal(size=SHAPE), 2.0)
    prediction = (depth_mm + rough / rough.std() > 0.2).astype(np.uint8)  # an outline about 1 mm off
    corner, corners, scattered, missed = (prediction.copy() for _ in range(4))
    corner[:4, :8, -8:] = 1
    corners[0, 0, 0] = corners[-1, -1, -1] = 1
    scattered[tuple(rng.integers(0, n, 200) for n in SHAPE)] = 1
    missed[number == 4] = 0
    predictions = {
        "outline about 1 mm off": prediction,
        "and a false disc in a far corner": corner,
        "and specks in opposite corners": corners,
        "and 200 specks scattered": scattered,
        "and one disc of seven missed": missed,
    }
    return {name: (mask, numbers) for name, mask in predictions.items()}


def _spine() -> tuple[np.ndarray, np.ndarray]:
    """How deep in its disc a voxel lies in mm (negative outside), and the number of the disc nearest in height.

    Tilted elliptic cylinders with rounded rims, 46 x 34 x 10 mm, 37 mm apart.
    """
    z, h, w = (axis * s for axis, s in zip(np.indices(SHAPE), SPACING_MM, strict=True))
    depth_mm, number = np.full(SHAPE, -np.inf), np.zeros(SHAPE, np.uint8)
    for k in range(DISCS):
        center_h, center_w, tilt = 285 - 37 * k, 150 + 20 * np.sin(k / 2), np.radians(30 - 8 * k)
        along = (w - center_w) * np.cos(tilt) + (h - center_h) * np.sin(tilt)
        across = (h - center_h) * np.cos(tilt) - (w - center_w) * np.sin(tilt)
        rim = 1 - np.sqrt(((z - 36) / 23) ** 2 + (along / 17) ** 2)
        depth = np.minimum(17 * rim, 5 - np.abs(across))
        number[depth > depth_mm] = k + 1
        depth_mm = np.maximum(depth, depth_mm)
    return depth_mm, number


def _measure(name: str, prediction: np.ndarray, numbers: np.ndarray, repeats: int) -> dict[str, Any]:
    reference = (numbers > 0).astype(np.uint8)
    ours_s = _seconds(lambda: score_case(name, prediction, reference, SPACING_MM), repeats)
    discs_s = _seconds(lambda: _plain_per_disc(prediction, numbers), repeats)
    whole_s = _seconds(lambda: _plain(prediction > 0, reference > 0), repeats)
    return {
        "prediction": name,
        "ivdjax_s": ours_s,
        "surface_distance_per_disc_s": discs_s,
        "surface_distance_whole_mask_s": whole_s,
        "ratio_per_disc": discs_s / ours_s,
    }


def _plain_per_disc(prediction: np.ndarray, numbers: np.ndarray) -> list[tuple[Any, ...]]:
    """The same by `surface-distance` on whole volumes, from a reference whose discs are told apart already."""
    nearest = ndimage.distance_transform_edt(
        numbers == 0, sampling=SPACING_MM, return_distances=False, return_indices=True
    )
    sections = np.where(prediction > 0, numbers[tuple(nearest)], 0)
    return [_plain(sections == k, numbers == k) for k in range(1, DISCS + 1)]


def _plain(prediction: np.ndarray, reference: np.ndarray) -> tuple[Any, ...]:
    """What `score_case` says of a disc, but for the distance of the centres."""
    surfaces = plain.compute_surface_distances(reference, prediction, SPACING_MM)
    return (
        plain.compute_average_surface_distance(surfaces),
        plain.compute_robust_hausdorff(surfaces, 95),
        plain.compute_surface_dice_at_tolerance(surfaces, 1.0),
        plain.compute_dice_coefficient(reference, prediction),
    )


def _seconds(call: Callable[[], Any], repeats: int) -> float:
    """Median CPU seconds of a call after one that does not count; on an idle core, what a clock on the wall says."""
    call()
    taken = []
    for _ in range(repeats):
        start = time.process_time()
        call()
        taken.append(time.process_time() - start)
    return statistics.median(taken)


def _print(result: dict[str, Any]) -> None:
    machine, voxels = result["machine"], " x ".join(map(str, SHAPE))
    load = machine["load_average"]
    print(f"{machine['cpu']}, {machine['cores_used']} of {machine['cores']} cores used, load average {load:.1f}")
    print(f"Python {machine['python']}, NumPy {machine['numpy']}, SciPy {machine['scipy']}")
    if load > LIMIT_LOAD:
        print("Other work shared the caches: the figures are on the high side.")
    print(f"CPU seconds a case of {voxels} voxels with {DISCS} discs, median of {result['repeats']}\n")
    print(f"{'prediction':34} {'ivdjax':>7} {'surface-distance':>18} {'ratio':>6} {'whole mask once':>16}")
    for case in result["cases"]:
        over = "" if case["ivdjax_s"] <= LIMIT_S else f"  over {LIMIT_S} s"
        print(
            f"{case['prediction']:34} {case['ivdjax_s']:7.3f} {case['surface_distance_per_disc_s']:18.3f} "
            f"{case['ratio_per_disc']:6.1f} {case['surface_distance_whole_mask_s']:16.3f}{over}"
        )


if __name__ == "__main__":
    main()
