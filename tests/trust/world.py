"""A small world that every verb is content with, for tests that then spoil it: trees, masks, runs, weights, tables."""

import gzip
import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import nibabel as nib
import numpy as np

from experiments import t2
from ivdjax import run, trained
from ivdjax.config import Augment, Data, Experiment, Train
from ivdjax.exchange import nnunet
from ivdjax.models import UNet

CHANNELS = ("fat", "wat")
CASES = ("01", "02", "03")
# The case that is spoilt, which the run holds out.
CASE = "01"
AFFINE = np.diag([2.0, -1.25, -1.25, 1.0])[[0, 2, 1, 3]]

# https://itk.org/Wiki/ITK/MetaIO/Documentation
METAIMAGE = """ObjectType = Image
NDims = 3
BinaryData = True
BinaryDataByteOrderMSB = False
CompressedData = False
TransformMatrix = 1 0 0 0 1 0 0 0 1
Offset = 0 0 0
CenterOfRotation = 0 0 0
ElementSpacing = 1.25 1.25 2
DimSize = 32 32 6
ElementType = MET_{kind}
ElementDataFile = LOCAL
"""


@dataclass(frozen=True)
class World:
    """Where things are."""

    root: Path

    @property
    def images(self) -> list[Path]:
        """The image that each verb's input is spoilt in."""
        return [
            self.root / "tree" / CASE / f"{CASE}_wat.nii.gz",
            self.root / "spider/images/1_t2.mha",
            self.root / f"Dataset001_Boxes/imagesTr/{CASE}_0001.nii.gz",
        ]

    @property
    def labels(self) -> list[Path]:
        """The label map that each verb's input is spoilt in."""
        return [
            self.root / "tree" / CASE / f"{CASE}_Labels.nii.gz",
            self.root / "spider/masks/1_t2.mha",
            self.root / f"Dataset001_Boxes/labelsTr/{CASE}.nii.gz",
        ]

    @property
    def masks(self) -> list[Path]:
        """The predicted mask that is spoilt."""
        return [self.root / f"masks/{CASE}.nii.gz", self.root / f"run/predictions/{CASE}.nii.gz"]

    @property
    def checkpoint(self) -> Path:
        """The run's only checkpoint."""
        return self.root / "run/checkpoints/2"


def experiment(root: Path) -> Experiment:
    """A network that compiles in a moment, on a tree's two channels."""
    off = dict.fromkeys(
        ("rotation_degrees", "flip", "mix", "swap", "decay", "bias", "blur_voxels", "blur_through", "log_gamma"), 0.0
    )
    return Experiment(
        name="tiny",
        model=UNet(features=(4, 8), depth=1),
        run_dir=Path("run"),
        data=Data(
            root=root / "tree",
            channels=CHANNELS,
            subjects="single",
            hold_out=(CASE,),
            slices=1,
            window=(16, 16),
        ),
        augment=Augment(**off),
        train=Train(steps=2, batch_size=2, log_every=1, validate_every=0, checkpoint_every=2),
        predict=replace(t2.experiment().predict, flip=False),
    )


def build(root: Path) -> World:
    """Make it all; the run is trained for two steps."""
    tree(root / "tree")
    masks(root / "tree", root / "masks")
    spider(root / "spider")
    tiny = experiment(root)
    nnunet.from_tree(replace(tiny.data, folds=3, hold_out=()), root / "Dataset001_Boxes")
    run.run(replace(tiny, run_dir=root / "run"))
    shutil.copytree(root / "run", root / "other")
    # As if it was stopped after the last step.
    half = ("report.html", "predictions", "scores.*", "calibration*", "confidence.csv")
    shutil.copytree(root / "run", root / "half", ignore=shutil.ignore_patterns(*half))
    trained.release(root / "run", root / "weights")
    (root / "subjects.csv").write_text("case,subject\n01,a\n02,b\n03,c\n")
    (root / "folds.csv").write_text("case,fold\n01,0\n02,1\n03,1\n")
    return World(root)


def tree(root: Path, channels: Sequence[str] = CHANNELS, cases: Sequence[str] = CASES) -> None:
    """Scans of noise with two bright boxes for discs."""
    rng = np.random.default_rng(0)
    for name in cases:
        label = np.zeros((6, 32, 32), np.uint8)
        label[1:5, 4:12, 8:24] = label[1:5, 18:26, 8:24] = 1
        (root / name).mkdir(parents=True)
        for channel in channels:
            image = (100 + 300 * label.astype(int) + rng.normal(0, 50, label.shape)).clip(0).astype(np.int16)
            nib.save(nib.Nifti1Image(image, AFFINE), root / name / f"{name}_{channel}.nii.gz")
        nib.save(nib.Nifti1Image(label, AFFINE), root / name / f"{name}_Labels.nii.gz")


def masks(root: Path, out: Path, cases: Sequence[str] = CASES) -> None:
    """Perfect masks of a tree, in a flat folder."""
    out.mkdir()
    for name in cases:
        shutil.copyfile(root / name / f"{name}_Labels.nii.gz", out / f"{name}.nii.gz")


def spider(root: Path) -> None:
    """One scan and its mask as SPIDER's."""
    label = np.zeros((6, 32, 32), np.uint8)
    label[1:5, 18:26, 8:24], label[1:5, 4:12, 8:24] = 201, 202
    for folder, array, kind in (("images", label.astype("<i2"), "SHORT"), ("masks", label, "UCHAR")):
        (root / folder).mkdir(parents=True)
        (root / folder / "1_t2.mha").write_bytes(METAIMAGE.format(kind=kind).encode() + array.tobytes())


def rewrite(path: Path, change) -> None:
    """Change a NIfTI file's header and voxels: `change(header, array)` gives the new bytes after the header."""
    content = gzip.decompress(path.read_bytes())
    header = nib.Nifti1Header(content[:348], check=False)
    array = np.frombuffer(content[352:], header.get_data_dtype()).reshape(header.get_data_shape(), order="F").copy()
    array = change(header, array)
    voxels = array if isinstance(array, bytes) else array.tobytes(order="F")
    path.write_bytes(gzip.compress(header.binaryblock + bytes(4) + voxels))


def edit_json(path: Path, change) -> None:
    """Change what a JSON file holds in place."""
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def state(root: Path) -> dict[str, str]:
    """Every file below a folder with a hash of its content, every folder and every link with where it leads."""
    found = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if path.is_symlink():
            found[name] = f"link to {path.readlink()}"
        elif path.is_dir():
            found[name] = f"folder {path.stat().st_mode:o}"
        elif not path.is_file():
            found[name] = "no plain file"
        else:
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found
