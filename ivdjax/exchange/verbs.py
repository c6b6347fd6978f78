"""What `ivdjax convert` takes: one frozen dataclass a direction, whose call does it and says what was done."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ivdjax import progress
from ivdjax.config import Data


@dataclass(frozen=True)
class FromSpider:
    """SPIDER's folder to a tree: discs are numbered 1 = L5/S1 upwards. Takes SimpleITK (the extra `convert`)."""

    source: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")]
    """Folder with SPIDER's `images` and `masks`."""
    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """Tree to make."""
    channel: str = "t2"
    """Which scans: t1, t2 or t2_SPACE. Those of one patient lie on different grids, so each kind is a tree."""
    label_grid: Literal["refuse", "voxels", "header"] = "refuse"
    """A mask whose header disagrees with its image: refuse it, trust its voxels, or resample it by its header."""

    def __call__(self) -> int:
        """Do it and return the exit code."""
        from ivdjax.exchange import spider

        with progress.bar("converting") as advance:
            cases = spider.to_tree(self.source, self.out, self.channel, label_grid=self.label_grid, progress=advance)
        print(f"{self.out}: {cases} cases, channel {self.channel}; train with --data.subjects single", file=sys.stderr)
        return 0


@dataclass(frozen=True)
class FromNnunet:
    """An nnU-Net raw folder (v2) to a tree."""

    source: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")]
    """Folder Dataset123_NAME."""
    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """Tree to make."""
    part: Literal["train", "test"] = "train"
    """Which cases: imagesTr with labelsTr, or imagesTs, with labelsTs if that is there."""
    channels: tuple[str, ...] = ()
    """Names for the channels, in nnU-Net's order; those in dataset.json by default."""
    discs: tuple[str, ...] = ()
    """Labels in dataset.json that are discs, the lowest first; may be left out where there is but one, or where they
    are called disc_1, disc_2 ... Several are numbered from 1, in this order; every other label becomes background."""
    label_grid: Literal["refuse", "voxels", "header"] = "refuse"
    """A mask whose header disagrees with its image: refuse it, trust its voxels, or resample it by its header."""

    def __call__(self) -> int:
        """Do it and return the exit code."""
        from ivdjax.exchange import nnunet

        with progress.bar("converting") as advance:
            told = nnunet.to_tree(
                self.source,
                self.out,
                part=self.part,
                channels=self.channels,
                disc_names=self.discs,
                label_grid=self.label_grid,
                progress=advance,
            )
        print("\n".join(told), file=sys.stderr)
        return 0


@dataclass(frozen=True)
class ToNnunet:
    """A tree to an nnU-Net raw folder (v2), with our folds in splits_final.json. Cases without labels go to imagesTs.

    Masks that nnU-Net predicts are named after our cases: `ivdjax evaluate PREDICTIONS TREE` scores them.
    """

    source: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")]
    """Tree of cases."""
    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """Folder to make, named as nnU-Net wants it: nnUNet_raw/Dataset123_NAME."""
    channels: tuple[str, ...] = Data.channels
    """Names of the images of a case, as in NAME_<channel>.nii.gz."""
    binary: bool = False
    """Write numbered discs as one label, `disc`, rather than as disc_1, disc_2 ..."""
    subjects: Literal["pairs", "single", "table"] = Data.subjects
    """Whose scans the cases are, for the folds: consecutive pairs (IVDM3Seg), one scan a subject, or a table."""
    subject_table: Path | None = None
    """CSV file with the columns case,subject; read where subjects is table."""
    folds: int = Data.folds
    """Folds of the cross-validation, grouped by subject; 0 leaves one subject out a fold."""
    fold_table: Path | None = None
    """CSV file with the columns case,fold that deals the cases to folds 0, 1, 2 ... itself."""
    hold_out: tuple[str, ...] = ()
    """Names of the cases to hold out instead, in a single fold."""
    label_grid: Literal["refuse", "voxels", "header"] = "refuse"
    """A mask whose header disagrees with its image: refuse it, trust its voxels, or resample it by its header."""

    def __call__(self) -> int:
        """Do it and return the exit code."""
        from ivdjax.exchange import nnunet

        data = Data(
            root=self.source,
            channels=self.channels,
            subjects=self.subjects,
            subject_table=self.subject_table,
            folds=self.folds,
            fold_table=self.fold_table,
            hold_out=self.hold_out,
            label_grid=self.label_grid,
        )
        with progress.bar("converting") as advance:
            told = nnunet.from_tree(data, self.out, binary=self.binary, progress=advance)
        print("\n".join(told), file=sys.stderr)
        return 0
