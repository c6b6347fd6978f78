"""Whether the probabilities of a run are what they say: its expected calibration error, and how sure that is.

Of the voxels to which a well calibrated network gives a probability of 0.7, 70 % are disc. The expected calibration
error (C. Guo et al., arXiv:1706.04599) is the mean distance from that over equal bins of the probability, weighted by
their voxels. Here it is taken of the probability of disc, not of the more probable class, so bins reach from 0 to 1;
and near discs alone, within `REGION_MM` of the reference or of the predicted mask as the network gave it: elsewhere
all is air, fat and bowel that no network doubts, and would hide every error. Probabilities are not kept, so a case is
counted when it is segmented.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from ivdjax.data.instances import Spacing, instances, upwards
from ivdjax.errors import DataError
from ivdjax.evaluation import statistics
from ivdjax.files import read_json, write_json
from ivdjax.inference import confidence
from ivdjax.inference.confidence import DiscConfidence

BINS = 15
REGION_MM = 5.0

FOLDER = "calibration"


@dataclass(frozen=True)
class Bins:
    """Voxels near discs, by the probability of disc that they were given."""

    voxels_b: np.ndarray
    """How many lie in each of the `BINS` equal bins."""
    probability_b: np.ndarray
    """Sum of their probabilities."""
    disc_b: np.ndarray
    """How many of them are disc in the reference."""

    @property
    def error(self) -> float:
        """The expected calibration error, 0 to 1."""
        return float(_error(*(np.asarray(part) for part in (self.voxels_b, self.probability_b, self.disc_b))))


@dataclass(frozen=True)
class CaseCounts:
    """What is kept of a case's probabilities."""

    bins: Bins
    """Its voxels near discs."""
    discs: tuple[DiscConfidence, ...]
    """The discs of its mask, the lowest first."""
    references: tuple[int | None, ...]
    """For each of them the number of the reference disc that it overlaps most; None where it overlaps none."""


def count(
    probability_ZxHxW: np.ndarray,
    raw_ZxHxW: np.ndarray,
    mask_ZxHxW: np.ndarray,
    reference_ZxHxW: np.ndarray,
    spacing_mm: Spacing,
) -> CaseCounts:
    """Count a case.

    Args:
      probability_ZxHxW: probability of disc.
      raw_ZxHxW: the mask that follows from it.
      mask_ZxHxW: the mask that is kept, whose discs are told of.
      reference_ZxHxW: the reference mask, binary or with a value a disc, H running downwards.
      spacing_mm: voxel size along Z, H, W.
    """
    near_ZxHxW = (raw_ZxHxW != 0) | (reference_ZxHxW != 0)
    bins = bin_voxels(np.empty(0, np.float32), np.empty(0, bool))
    if near_ZxHxW.any():
        box = confidence.box_around(near_ZxHxW, spacing_mm, REGION_MM)
        region = ndimage.distance_transform_edt(~near_ZxHxW[box], sampling=spacing_mm) <= REGION_MM
        bins = bin_voxels(probability_ZxHxW[box][region], reference_ZxHxW[box][region] != 0)
    discs_ZxHxW, found = confidence.discs(mask_ZxHxW, probability_ZxHxW, spacing_mm)
    numbers = _numbers(reference_ZxHxW, spacing_mm)
    references = []
    for disc in found:
        met = np.bincount(numbers[discs_ZxHxW == disc.disc], minlength=2)[1:]
        references.append(int(met.argmax()) + 1 if met.any() else None)
    return CaseCounts(bins, tuple(found), tuple(references))


def bin_voxels(probability_V: np.ndarray, disc_V: np.ndarray) -> Bins:
    """Sort voxels into bins of their probability; each bin but the first holds its lower end."""
    bin_V = np.minimum((probability_V * BINS).astype(np.int64), BINS - 1)
    voxels_b, probability_b, disc_b = (
        np.bincount(bin_V, weights, minlength=BINS) for weights in (None, probability_V.astype(np.float64), disc_V)
    )
    return Bins(voxels_b, probability_b, disc_b)


def interval(cases: Sequence[Bins], subjects: Sequence[str]) -> tuple[float, float] | None:
    """The 95 % bootstrap interval of the error of all cases together, over subjects; None for a single subject."""
    names, group = np.unique(subjects, return_inverse=True)
    if len(names) < 2:
        return None
    parts_3xSxB = np.zeros((3, len(names), BINS))
    for bins, subject in zip(cases, group, strict=True):
        parts_3xSxB[:, subject] += np.stack([bins.voxels_b, bins.probability_b, bins.disc_b])
    drawn = statistics.draws(len(names))
    return statistics.ends(_error(*(drawn @ part_SxB for part_SxB in parts_3xSxB)))


def add(cases: Sequence[Bins]) -> Bins:
    """The voxels of all cases."""
    return Bins(*(np.sum([getattr(bins, name) for bins in cases], axis=0) for name in _PARTS))


def case_path(run_dir: Path, case: str) -> Path:
    """Where the counts of a case are."""
    return run_dir / FOLDER / f"{case}.json"


def write_case(path: Path, counts: CaseCounts) -> None:
    """Write the counts of a case."""
    discs = [
        {"disc": d.disc, "confidence": d.confidence, "volume_mm3": d.volume_mm3, "reference": reference}
        for d, reference in zip(counts.discs, counts.references, strict=True)
    ]
    bins = {name.removesuffix("_b"): getattr(counts.bins, name).tolist() for name in _PARTS}
    write_json(path, {"bins": bins, "discs": discs})


def read_case(path: Path) -> CaseCounts:
    """Read the counts of a case.

    Raises:
      DataError: the file is missing or damaged.
    """
    content = read_json(path)
    try:
        bins = Bins(*(np.array(content["bins"][name.removesuffix("_b")], np.float64) for name in _PARTS))
        if any(getattr(bins, name).shape != (BINS,) for name in _PARTS):
            raise ValueError(f"not {BINS} bins")
        discs = [
            DiscConfidence(int(d["disc"]), float(d["confidence"]), float(d["volume_mm3"])) for d in content["discs"]
        ]
        references = [None if d["reference"] is None else int(d["reference"]) for d in content["discs"]]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: holds no counts of a case ({error}); remove it and start the run again") from error
    return CaseCounts(bins, tuple(discs), tuple(references))


def to_json(bins: Bins, limits: tuple[float, float] | None) -> Mapping[str, Any]:
    """What is told of the calibration, in plain JSON values."""
    low, high = limits or (None, None)
    return {
        "error": bins.error,
        "low": low,
        "high": high,
        "bins": [
            {
                "from": b / BINS,
                "to": (b + 1) / BINS,
                "voxels": int(voxels),
                "probability": float(chance / voxels) if voxels else None,
                "disc": float(disc / voxels) if voxels else None,
            }
            for b, (voxels, chance, disc) in enumerate(zip(bins.voxels_b, bins.probability_b, bins.disc_b, strict=True))
        ],
    }


_PARTS = ("voxels_b", "probability_b", "disc_b")


def _error(voxels_B: np.ndarray, probability_B: np.ndarray, disc_B: np.ndarray) -> np.ndarray:
    # A bin's weight, its share of the voxels, cancels the division of both sums by its voxels.
    return np.abs(probability_B - disc_B).sum(-1) / np.maximum(voxels_B.sum(-1), 1)


def _numbers(reference_ZxHxW: np.ndarray, spacing_mm: Spacing) -> np.ndarray:
    """The number of each voxel's reference disc, as the scores count them: 1 = lowest, upwards."""
    discs_ZxHxW = instances(reference_ZxHxW, spacing_mm)
    number = np.zeros(256, np.uint8)
    labels = upwards(discs_ZxHxW, np.unique(discs_ZxHxW[discs_ZxHxW != 0]))
    number[labels] = np.arange(1, len(labels) + 1)
    return number[discs_ZxHxW]
