"""The challenge's container, without the container: its folders in, its mask out, with the weights in the package."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from ivdjax import trained
from ivdjax.data import dataset, phantom
from ivdjax.inference import weights

SCRIPT = Path(__file__).parents[2] / "launch" / "challenge-run"
CHANNELS = ("fat", "inn", "opp", "wat")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """One phantom scan, coarse, laid out as IVDM3Seg. Its size is that of the phantom's own tests: compiled once."""
    tree = tmp_path_factory.mktemp("phantom") / "tree"
    phantom.write_tree(tree, cases=1, seed=5, shape=(36, 128, 128), spacing_mm=(2.0, 2.5, 2.5))
    return tree / "01"


@pytest.fixture
def case(drawn, tmp_path):
    """Its middle as the container gets it, on a grid that is oblique and whose axes are stored in another order."""
    (tmp_path / "input").mkdir()
    (tmp_path / "output").mkdir()
    turn = nib.affines.from_matvec(nib.eulerangles.euler2mat(0.1, 0.2, -0.15))
    for n, channel in enumerate(CHANNELS):
        image = nib.load(drawn / f"01_{channel}.nii.gz").slicer[15:21]
        affine = turn @ image.affine[:, [2, 0, 1, 3]]
        turned = nib.Nifti1Image(np.asarray(image.dataobj).transpose(2, 0, 1), affine)
        nib.save(turned, tmp_path / "input" / f"{channel}.nii{'.gz' if n % 2 else ''}")
    return tmp_path / "input"


def start(*words, **environment):
    bin_folder = Path(sys.executable).parent
    return subprocess.Popen(
        [SCRIPT, *words],
        env={**os.environ, "PATH": f"{bin_folder}:{os.environ['PATH']}", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def challenge(*words, **environment):
    process = start(*words, **environment)
    out, errors = process.communicate(timeout=240)
    return process.returncode, out, errors


def test_a_case_in_a_mask_on_its_grid_out(case, tmp_path):
    code, out, errors = challenge(case, tmp_path / "output")
    assert (code, out) == (0, ""), errors
    assert errors == f"{tmp_path}/output/result.nii.gz, from fat, inn, opp, wat\n"
    assert [path.name for path in (tmp_path / "output").iterdir()] == ["result.nii.gz"]

    image, mask = nib.load(case / "fat.nii"), nib.load(tmp_path / "output" / "result.nii.gz")
    assert mask.shape == image.shape
    np.testing.assert_array_equal(mask.affine, image.affine)
    assert mask.get_data_dtype() == np.uint8
    network = trained.load(weights.find("default"))
    network.predict(*dataset.discover(case), tmp_path / "same.nii.gz")
    np.testing.assert_array_equal(mask.dataobj, nib.load(tmp_path / "same.nii.gz").dataobj)
    assert set(np.unique(mask.dataobj)) == {0, 1}


def test_what_cannot_be_segmented_is_one_line_and_leaves_no_mask(case, tmp_path):
    output = tmp_path / "output"
    (output / "result.nii.gz").write_text("of another case")
    code, _, errors = challenge(tmp_path / "nowhere", output)
    assert (code, errors.count("\n")) == (1, 1)
    assert "nowhere: no such folder" in errors
    code, _, errors = challenge(case, tmp_path / "nowhere")
    assert (code, errors.count("\n")) == (1, 1)

    (case / "wat.nii.gz").unlink()
    code, _, errors = challenge(case, output)
    assert (code, errors.count("\n")) == (1, 1)
    assert "misses wat" in errors
    assert list(output.iterdir()) == []


def test_weights_that_are_none_are_named(case, tmp_path):
    code, _, errors = challenge(case, tmp_path / "output", IVDJAX_WEIGHTS=str(tmp_path / "none"))
    assert (code, errors.count("\n")) == (1, 1)
    assert str(tmp_path / "none") in errors


def test_a_container_that_is_stopped_leaves_nothing_half_written(case, tmp_path):
    output = tmp_path / "output"
    process = start(case, output)
    while process.poll() is None and not list(output.iterdir()):
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 143
    assert list(output.iterdir()) == []
