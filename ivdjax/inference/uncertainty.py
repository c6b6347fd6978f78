"""What the members of an ensemble say together: their mean, and how sure they are of it.

Members are the views of a volume by each of one or more networks. The uncertainty of a voxel is the predictive entropy
of the mean. The part of it that comes from members who disagree is the entropy of the mean less the mean of the
entropies (N. Houlsby et al., arXiv:1112.5745). Both are divided by the logarithm of the number of classes: 0 is sure, 1
is undecided.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Consensus:
    """What members say together."""

    probability_ZxHxWxN: np.ndarray
    """Mean probability of each class, float32."""
    members: int
    """How many they were."""
    entropy_ZxHxW: np.ndarray | None = None
    """Entropy of the mean, 0 to 1; None where it was not asked for."""
    disagreement_ZxHxW: np.ndarray | None = None
    """The part of it that comes from disagreement, 0 to 1; None where it was not asked for or there is one member."""

    @property
    def foreground_ZxHxW(self) -> np.ndarray:
        """Probability of any class but the first."""
        return 1 - self.probability_ZxHxWxN[..., 0]


def consensus(members: Iterable[np.ndarray], measured: bool = False) -> Consensus:
    """Put together the probabilities (Z,H,W,N) of members, of which never more than sums are kept.

    Args:
        members: one or more.
        measured: also measure how sure they are.
    """
    total_ZxHxWxN, entropies_ZxHxW, count = np.zeros((), np.float32), np.zeros((), np.float32), 0
    for member_ZxHxWxN in members:
        total_ZxHxWxN, count = total_ZxHxWxN + member_ZxHxWxN, count + 1
        if measured:
            entropies_ZxHxW = entropies_ZxHxW + _entropy(member_ZxHxWxN)
    mean_ZxHxWxN = np.asarray(total_ZxHxWxN / np.float32(count))
    if not measured:
        return Consensus(mean_ZxHxWxN, count)
    entropy_ZxHxW = _entropy(mean_ZxHxWxN)
    # Entropy is concave, so only rounding makes a difference negative.
    disagreement_ZxHxW = np.maximum(entropy_ZxHxW - entropies_ZxHxW / np.float32(count), 0) if count > 1 else None
    return Consensus(mean_ZxHxWxN, count, entropy_ZxHxW, disagreement_ZxHxW)


def _entropy(probability_ZxHxWxN: np.ndarray) -> np.ndarray:
    bounded_ZxHxWxN = np.maximum(probability_ZxHxWxN, np.finfo(np.float32).tiny)
    return -(probability_ZxHxWxN * np.log(bounded_ZxHxWxN)).sum(-1) / np.float32(np.log(probability_ZxHxWxN.shape[-1]))
