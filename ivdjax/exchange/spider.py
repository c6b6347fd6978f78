"""From SPIDER's folders to a tree of ours.

SPIDER (doi 10.1038/s41597-024-03090-w; Zenodo 10159290) holds `images/N_t1.mha`, `N_t2.mha` and `N_t2_SPACE.mha`, and
masks of the same names in `masks/`, in which 201 is L5/S1 and each disc above has the next value; vertebrae and the
spinal canal have others. The scans of a patient lie on grids of their own, so a tree takes one of them.
"""

from collections.abc import Callable
from pathlib import Path

from ivdjax import files
from ivdjax.data import dataset, nifti, paths
from ivdjax.errors import DataError
from ivdjax.evaluation import discs
from ivdjax.exchange import itk


def to_tree(
    source: Path,
    out: Path,
    channel: str = "t2",
    *,
    label_grid: str = "refuse",
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Write the scans of one kind as OUT/N/N_<channel>.nii.gz, with their discs as OUT/N/N_Labels.nii.gz.

    Discs are numbered 1 (L5/S1) upwards; all else becomes 0. The scans' voxels stay as they are and are not resampled.

    Args:
      source: the folder with `images` and `masks`.
      out: folder to make.
      channel: which scans, as the end of their files' names says: t1, t2 or t2_SPACE.
      label_grid: for a mask that lies elsewhere than its scan, as `data.dataset.load`.
      progress: called after each case with the number of cases done and of all.

    Returns:
      The number of cases.

    Raises:
      DataError: there is no scan of that kind, or a file is missing or cannot be used.
      UsageError: `out` is no new folder, or SimpleITK is not installed.
    """
    images = _images(source, channel)
    with files.making(out) as partial:
        for done, name in enumerate(sorted(images, key=dataset.natural), start=1):
            image, mask = images[name], source / "masks" / images[name].name
            paths.check_name(name, image)
            for path in (image, mask):
                paths.check_link(path, source)
            folder = partial / name
            folder.mkdir()
            label_ZxHxW = dataset.load_label(mask, itk.read_grid(image), label_grid, itk)
            try:
                level_ZxHxW = discs.from_scheme(label_ZxHxW, discs.Scheme.SPIDER)
            except ValueError as error:
                raise DataError(f"{mask}: {error}; is it a mask of SPIDER's?") from error
            itk.to_nifti(image, folder / f"{name}_{channel}.nii.gz")
            nifti.write_mask(level_ZxHxW, folder / f"{name}_{channel}.nii.gz", folder / f"{name}_Labels.nii.gz")
            if progress:
                progress(done, len(images))
    return len(images)


def _images(source: Path, channel: str) -> dict[str, Path]:
    """The scans of one kind, by case."""
    every = sorted((source / "images").glob("*.mha"))
    if not every:
        raise DataError(f"{source}: no images/*.mha in it; pass the folder that holds SPIDER's images and masks")
    images = {path.stem.removesuffix(f"_{channel}"): path for path in every if path.stem.endswith(f"_{channel}")}
    if not images:
        kinds = sorted({path.stem.partition("_")[2] for path in every} - {""})
        raise DataError(f"{source}: no images/*_{channel}.mha in it; pass --channel with one of {', '.join(kinds)}")
    return images
