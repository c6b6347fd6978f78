"""Draw the pictures of these pages: python docs/make_pictures.py"""

import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ivdjax.data import dataset, phantom
from ivdjax.evaluation.measure_masks import Outputs, measure_masks

HERE = Path(__file__).parent
SEED = 3
CHANNELS = {"fat": "fat", "inn": "in phase", "opp": "opposed phase", "wat": "water"}
# Case and slice, in mm from the middle: two scans of different subjects, and one of them beside the midline.
ROWS = (("01", 0), ("03", 0), ("05", 0), ("05", 22))
PANEL = 256


def channels(tree: Path) -> Image.Image:
    """Sagittal slices of the phantom, a row a slice, a column a channel."""
    cases = {case.name: dataset.load(case) for case in dataset.discover(tree)}
    sheet = Image.new("L", (PANEL * len(CHANNELS) + 2 * (len(CHANNELS) - 1), (PANEL + 2) * len(ROWS) + 18))
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for column, name in enumerate(CHANNELS.values()):
        draw.text((column * (PANEL + 2) + 4, 1), name, fill=255, font=font)
    for row, (case, off_mm) in enumerate(ROWS):
        image_ZxHxWxC, _, spacing_mm, _ = cases[case]
        z = image_ZxHxWxC.shape[0] // 2 + round(off_mm / spacing_mm[0])
        for column in range(len(CHANNELS)):
            volume_ZxHxW = image_ZxHxWxC[..., column]
            black, white = np.percentile(volume_ZxHxW, (1.0, 99.0))
            grey_HxW = (255 * np.clip((volume_ZxHxW[z] - black) / (white - black), 0, 1)).astype(np.uint8)
            sheet.paste(Image.fromarray(grey_HxW), (column * (PANEL + 2), 18 + row * (PANEL + 2)))
    return sheet


def main() -> None:
    """Draw a phantom, and from it every picture."""
    with tempfile.TemporaryDirectory() as folder:
        tree, work = Path(folder, "phantom"), Path(folder, "work")
        phantom.write_tree(tree, cases=6, seed=SEED)
        channels(tree).save(HERE / "phantom.png", optimize=True)
        case = tree / "01"
        measure_masks(case / "01_Labels.nii.gz", work / "discs.csv", images=case, outputs=Outputs(pictures=work))
        (work / "01_L5-S1.png").replace(HERE / "measured-disc.png")


if __name__ == "__main__":
    main()
