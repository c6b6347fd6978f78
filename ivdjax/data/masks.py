"""Which masks a path holds: any tool's, in a tree of cases, in a flat folder, or one file."""

from collections.abc import Collection
from pathlib import Path

from ivdjax import files
from ivdjax.data import dataset, nifti, paths
from ivdjax.errors import DataError

# What `inference` writes of a case beside its mask, as <case>_<kind>; never a mask.
MAPS = ("probability", "uncertainty", "disagreement")


def find(path: Path, cases: Collection[str] = ()) -> dict[str, Path]:
    """The masks of a tree, a flat folder or one file, by case, in natural order.

    `<case>_Labels` always is a mask. `<case>` is one where it bears the name of one of `cases`, or where the folder
    has neither label nor image, and so must be a flat one. Maps that were predicted beside masks are passed over.

    Raises:
      DataError: no mask is there, a case has two, or as `data.dataset.survey`.
    """
    if not path.exists():
        raise DataError(f"{path}: no such file or folder{files.near(path)}; pass a mask, or a folder of masks or cases")
    if path.is_file():
        if not path.name.endswith(nifti.SUFFIXES):
            raise DataError(f"{path}: not named .nii or .nii.gz; pass a mask, or a folder of masks or cases")
        paths.check_name(case_name(path), path)
        return {case_name(path): path}
    survey = dataset.survey(path)
    found = [(case, file) for case in survey.names() for file in survey.labels.get(case, [])]
    flat = not found and not survey.images
    plain = [(case_name(file), file, kind in MAPS) for _, kind, file in survey.others]
    # A case may be called as if it were an image of another.
    images = [file for by_channel in survey.images.values() for there in by_channel.values() for file in there]
    plain += [(case_name(file), file, True) for file in images]
    found += [(case, file) for case, file, other in plain if case in cases or (flat and not other)]
    masks: dict[str, Path] = {}
    for case, file in found:
        if case in masks:
            raise DataError(f"{file}: case {case} has its mask twice (also {masks[case]}); remove one")
        masks[case] = file
    if not masks:
        raise DataError(f"{path}: no masks in it; looked for <case>_Labels.nii[.gz] and <case>.nii[.gz]")
    return masks


def case_name(path: Path) -> str:
    """The case that a mask of this name is of."""
    name = path.name.removesuffix(".gz").removesuffix(".nii")
    return next((name.removesuffix(f"_{kind}") for kind in dataset.LABELS if name.endswith(f"_{kind}")), name)
