"""Draw the pictures of these pages.

    python docs/make_pictures.py [RUN]

RUN is the folder of a finished quickstart, for the picture of what it found.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

from ivdjax.data import dataset, phantom
from ivdjax.evaluation import record
from ivdjax.evaluation.measure_masks import Outputs, measure_masks

HERE = Path(__file__).parent
SEED = 3
CHANNELS = {"fat": "fat", "inn": "in phase", "opp": "opposed phase", "wat": "water"}
# Case and slice, in mm from the middle: two scans of different subjects, and one of them beside the midline.
ROWS = (("01", 0), ("03", 0), ("05", 0), ("05", 22))
PANEL = 256
# Colours as in reports; what was found lies on the reference, which is wider.
OUTLINES = {"reference": ("#2fb4f5", 3.0), "found": ("#ffb020", 1.2)}


def channels(tree: Path) -> Image.Image:
    """Sagittal slices of the phantom, a row a slice, a column a channel."""
    cases = {case.name: dataset.load(case) for case in dataset.discover(tree)}
    sheet = Image.new("L", (PANEL * len(CHANNELS) + 2 * (len(CHANNELS) - 1), (PANEL + 2) * len(ROWS) + 18))
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for column, name in enumerate(CHANNELS.values()):
        draw.text((column * (PANEL + 2) + 4, 1), name, fill=255, font=font)
    for row, (case, off_mm) in enumerate(ROWS):
        image_ZxHxWxC, _, grid = cases[case]
        z = image_ZxHxWxC.shape[0] // 2 + round(off_mm / grid.spacing_mm[0])
        for column in range(len(CHANNELS)):
            grey_HxW = grey(image_ZxHxWxC[..., column])[z]
            sheet.paste(Image.fromarray(grey_HxW), (column * (PANEL + 2), 18 + row * (PANEL + 2)))
    return sheet


def grey(volume_ZxHxW: np.ndarray) -> np.ndarray:
    """A volume as grey values of 0 to 255."""
    black, white = np.percentile(volume_ZxHxW, (1.0, 99.0))
    return (255 * np.clip((volume_ZxHxW - black) / (white - black), 0, 1)).astype(np.uint8)


def result(run: Path) -> Figure:
    """Three slices of a run's first held-out case, with the outlines of its reference and of what was found."""
    case = record.load_cases(record.read(run))[0]
    depth, height, width = case.spacing_mm
    middle, aside = len(case.image_ZxHxW) // 2, round(9 / depth)
    figure = Figure(figsize=(9, 4.6), dpi=110, facecolor="black", layout="constrained")
    for axes, z in zip(figure.subplots(1, 3), (middle - aside, middle, middle + aside), strict=True):
        axes.imshow(grey(case.image_ZxHxW)[z], cmap="gray", aspect=height / width, interpolation="bilinear")
        masks = (case.reference_ZxHxW, case.prediction_ZxHxW)
        for mask_ZxHxW, (color, width) in zip(masks, OUTLINES.values(), strict=True):
            axes.contour(mask_ZxHxW[z] > 0, [0.5], colors=color, linewidths=width)
        axes.set_axis_off()
    return figure


def main() -> None:
    """Draw a phantom, and from it every picture."""
    for run in sys.argv[1:]:
        result(Path(run)).savefig(HERE / "result.png")
    with tempfile.TemporaryDirectory() as folder:
        tree, work = Path(folder, "phantom"), Path(folder, "work")
        phantom.write_tree(tree, cases=6, seed=SEED)
        channels(tree).save(HERE / "phantom.png", optimize=True)
        case = tree / "01"
        measure_masks(case / "01_Labels.nii.gz", work / "discs.csv", images=case, outputs=Outputs(pictures=work))
        (work / "01_L5-S1.png").replace(HERE / "measured-disc.png")


if __name__ == "__main__":
    main()
