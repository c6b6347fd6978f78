"""The column of discs in a mask: which of its pieces, told by centre and volume, can be discs of one spine.

Pieces are in upward order; centres are in mm along Z, H, W, H running downwards.
"""

import numpy as np

# Degrees by which the way from a disc to the next may leave the vertical, and may turn from one step to the next. In 24
# patients, some with scoliosis or a slipped vertebra, these were at most 37 and 29.
LARGEST_SLANT, LARGEST_BEND = 60.0, 45.0
# Steps between discs lay between 0.70 and 1.22 of a patient's median step, so a step past one disc that was missed is
# below 2.6 of it; and no disc, even if cut by the edge of the scan, had less than 0.27 of the next one's volume.
SHORTEST, LONGEST = 0.6, 2.6
LEAST_SHARE = 0.2
# Those patients' steps were 18 to 40 mm long.
SHORTEST_MM, LONGEST_MM = 14.0, 100.0
# Fewer discs than these make no column by which others could be judged.
LEAST_DISCS = 3


def through(center_Nx3: np.ndarray, volume_mm3_N: np.ndarray, allowed_NxN: np.ndarray | None = None) -> list[int]:
    """The pieces that a column can pass through: the way through the most volume of discs.

    Args:
      center_Nx3: centres of the pieces.
      volume_mm3_N: their volumes.
      allowed_NxN: which piece (column) may follow which (row) by other measures; None allows any.
    """
    way_NxNx3, _ = _steps(center_Nx3)
    steep_NxN = -way_NxNx3[..., 1] > np.cos(np.radians(LARGEST_SLANT))
    if allowed_NxN is not None:
        steep_NxN &= allowed_NxN
    straight = np.cos(np.radians(LARGEST_BEND))
    # The best ways that end with a step from i to j, by j and i, found from below.
    best: list[dict[int | None, tuple[float, list[int]]]] = []
    for j in range(len(center_Nx3)):
        best.append({None: (volume_mm3_N[j], [j])})
        for i in np.flatnonzero(steep_NxN[:j, j]).tolist():
            before = [
                found for h, found in best[i].items() if h is None or way_NxNx3[h, i] @ way_NxNx3[i, j] > straight
            ]
            volume, way = max(before)
            best[j][i] = (volume + volume_mm3_N[j], [*way, j])
    return max(found for ways in best for found in ways.values())[1] if best else []


def plausible(center_Nx3: np.ndarray, volume_mm3_N: np.ndarray) -> list[int]:
    """As `through`, of pieces among which many may be false: steps and volumes are a spine's, too.

    A step has a length that discs have, in mm and beside the column's median step, and its two discs are of volumes
    that neighbours have. A piece larger than the typical one counts no more than that, lest one large false piece
    outweigh discs. Fewer than `LEAST_DISCS` discs, or discs with less than half of the pieces' volume, are no column
    to judge by: then it is empty.
    """
    if len(center_Nx3) < LEAST_DISCS:
        return []
    _, length_NxN = _steps(center_Nx3)
    share_NxN = volume_mm3_N[:, None] / volume_mm3_N
    allowed_NxN = np.minimum(share_NxN, share_NxN.T) >= LEAST_SHARE
    counted_N = np.minimum(volume_mm3_N, np.median(volume_mm3_N[volume_mm3_N >= volume_mm3_N.max() / 4]))
    found = through(center_Nx3, counted_N, allowed_NxN & _within(length_NxN, SHORTEST_MM, LONGEST_MM))
    if len(found) >= LEAST_DISCS:
        step_mm = np.median(length_NxN[found[:-1], found[1:]])
        found = through(center_Nx3, counted_N, allowed_NxN & _within(length_NxN, SHORTEST * step_mm, LONGEST * step_mm))
    whole = len(found) >= LEAST_DISCS and volume_mm3_N[found].sum() >= volume_mm3_N.sum() / 2
    return found if whole else []


def _steps(center_Nx3: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Direction and length of the step from each piece (row) to each other (column)."""
    step_NxNx3 = center_Nx3[None] - center_Nx3[:, None]
    length_NxN = np.maximum(np.linalg.norm(step_NxNx3, axis=-1), 1e-6)
    return step_NxNx3 / length_NxN[..., None], length_NxN


def _within(value: np.ndarray, low: float, high: float) -> np.ndarray:
    return (value >= low) & (value <= high)
