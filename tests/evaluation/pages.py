"""Toy runs for the tests of the pages about runs, and the pages taken apart."""

import json
from html.parser import HTMLParser

import nibabel as nib
import numpy as np

from ivdjax.evaluation.challenge import score_case
from ivdjax.evaluation.evaluate import summarise, to_csv, to_json
from ivdjax.evaluation.record import ReportCase

SPACING_MM = (2.0, 1.25, 1.25)
SHAPE = (10, 96, 64)
# Canonical axes: Z to the right, H downwards, W backwards.
AFFINE = np.array([[2.0, 0, 0, 0], [0, 0, -1.25, 0], [0, -1.25, 0, 0], [0, 0, 0, 1]])
HOSTILE = '<script>alert("1")</script>&$title'
VOID = {"meta", "img", "input", "br"}


def spine(discs=(0, 1, 2), height=6):
    """Boxes for discs, 35 mm apart, the lowest first; 6 x 6 x 24 voxels of 3.125 mm3."""
    mask = np.zeros(SHAPE, np.uint8)
    for k in discs:
        mask[2:8, 74 - 28 * k : 74 + height - 28 * k, 16:40] = 1
    return mask


def make_run(folder, predictions, *, name="unet", root="IVDM3Seg", log=True, subjects=None, reference=None, **config):
    """Write a run's folder for predictions by case, and return the cases to show."""
    reference = spine() if reference is None else reference
    scores = [score_case(case, mask, reference, SPACING_MM) for case, mask in predictions.items()]
    summary = summarise(scores, subjects, [f"{list(predictions)[-1]}: a warning"])
    folder.mkdir(parents=True)
    data = {"root": root, "channels": ["t2"], "label_grid": "refuse", "phantom": {"shape": [36, 256, 256]}}
    settings = {"name": name, "seed": 0, "model": {"network": "UNet"}, "data": data, **config}
    (folder / "config.json").write_text(json.dumps(settings))
    (folder / "scores.csv").write_text(to_csv(scores))
    (folder / "scores.json").write_text(json.dumps(to_json(summary)))
    if log:
        train = {"kind": "train", "loss": 0.5, "dice_loss": 0.3, "cross_entropy": 0.2, "learning_rate": 1e-3}
        rows = [{**train, "step": step, "time_s": step / 2, "stacks_per_s": 40.0} for step in (20, 40, 60)]
        rows.append({"kind": "validation", "step": 60, "time_s": 31.0, "dice": 0.8})
        (folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"kind": "tra')
    return [ReportCase(case, ramp(), SPACING_MM, AFFINE, reference, mask) for case, mask in predictions.items()]


def ramp():
    """An image whose slices can be told by their grey: noise about a level that rises with Z."""
    noise = np.random.default_rng(0).normal(0, 0.01, SHAPE)
    return noise + np.linspace(0, 1, SHAPE[0])[:, None, None]


def write_scans(root, run_dirs, cases):
    """Write images and labels to a tree, and masks to each run's folder."""
    for case in cases:
        home = root / case.name
        home.mkdir(parents=True)
        nib.save(nib.Nifti1Image(case.image_ZxHxW.astype(np.float32), AFFINE), home / f"{case.name}_t2.nii.gz")
        nib.save(nib.Nifti1Image(case.reference_ZxHxW, AFFINE), home / f"{case.name}_Labels.nii.gz")
        for run_dir in run_dirs:
            (run_dir / "predictions").mkdir(exist_ok=True)
            nib.save(nib.Nifti1Image(case.prediction_ZxHxW, AFFINE), run_dir / "predictions" / f"{case.name}.nii.gz")


class Page(HTMLParser):
    """What a page holds: its tags, its visible text, and every address it names."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts, self.addresses, self.open, self.handlers = [], [], [], [], []
        self.elements = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.elements.append((tag, dict(attrs)))
        self.addresses += [value for name, value in attrs if name in ("src", "href", "srcset", "action", "data")]
        self.handlers += [name for name, _ in attrs if name.startswith("on")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("script", "style"):
            self.texts.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())

    def all(self, tag, kind=None):
        """The attributes of every element of a tag and, if one is given, a class."""
        return [a for t, a in self.elements if t == tag and (kind is None or kind in a.get("class", "").split())]
