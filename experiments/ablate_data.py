"""How many subjects must one have labelled?

    python -m experiments.ablate_data
    python -m experiments.ablate_data baseline --data.root IVDM3Seg

A learning curve: one subject is held out a fold, and of the seven others of IVDM3Seg, or of the phantom, one to six are
learnt from; all of them are the base. A smaller set is part of each larger one. Every network makes as many steps,
however few scans it has.
"""

from dataclasses import replace

from experiments import ablation_bases
from ivdjax import command_line
from ivdjax.config import Experiment

_MOST = 6  # of eight subjects one is held out, and all of the others are the base


def variants(base: Experiment) -> dict[str, Experiment]:
    """The base, and the base with fewer subjects to learn from."""
    fewer = {
        f"subjects_{number}": replace(base, data=replace(base.data, learn_subjects=number))
        for number in range(1, _MOST + 1)
    }
    return {**fewer, "all": base}


def bases() -> dict[str, Experiment]:
    """Those of the other ablations, with one subject held out a fold."""
    return {word: replace(base, data=replace(base.data, folds=0)) for word, base in ablation_bases.bases().items()}


if __name__ == "__main__":
    command_line.ablation("ablate_data", variants, bases(), __doc__)
