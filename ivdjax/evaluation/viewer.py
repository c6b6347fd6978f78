"""A case in the page: a strip of its slices with the outlines of masks, and one of them large under a slider.

All slices are one picture in the page. Everything that shows a slice is a window on that picture, in mm, so that
proportions are the patient's; outlines are drawn over it, thin at every size. Without JavaScript the strip and the
mid-sagittal slice are there; the slider appears where the script runs.
"""

import base64
import html
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ivdjax.evaluation import discs, page, pictures
from ivdjax.evaluation.metrics import Spacing, bounding_box, dice
from ivdjax.evaluation.pictures import Frame, Sheet
from ivdjax.evaluation.record import ReportCase

# With these, a page of sixteen cases, in base64 and with outlines, has less than 8 MB; more cases share what they have.
PICTURE_BYTES, FULL_CASES = 300_000, 16

MARGIN_MM, STRIP_MARGIN_MM = 25.0, 10.0
# The strip is given the columns with which its slices are large in the place beside the large slice.
_STRIP_WIDTH, _STRIP_HEIGHT = 850, 540
# So small an area of disagreement does not fill the height of the bars.
_FULL_BAR_MM2 = 60.0
_LABEL_GAP_MM = 2.5
_LETTERS = 48  # of the names' size fit into a slice's height
_LETTER_RATIO = 0.62  # of a letter's width to its height


NOTE = (
    "The worst case first. The small slices are those in which a mask has a disc; each of them, the bars and the "
    "slider (with the arrow keys, too) choose the large one. Bars are the area of a slice where masks disagree. Left "
    "and right are the patient's, by the header."
)


@dataclass(frozen=True)
class Prediction:
    """A mask to outline beside the reference: the class that colours it, its name, and itself."""

    kind: str
    name: str
    mask_ZxHxW: np.ndarray


@dataclass(frozen=True)
class _Scene:
    """What the parts of a case are drawn from, cut to the part of the slices that is shown."""

    anchor: str
    name: str
    sheet: Sheet
    spacing_mm: Spacing
    reference_ZxHxW: np.ndarray
    predictions: Sequence[Prediction]
    numbered_ZxHxW: np.ndarray
    missed: Collection[int]
    strip: Frame
    middle: int

    @property
    def whole(self) -> Frame:
        rows, columns = self.sheet.slice_px
        return slice(0, rows), slice(0, columns)

    def corner_mm(self, z: int) -> tuple[float, float]:
        """Place along H and W at which a slice's first voxel begins on the sheet."""
        row, column = self.sheet.corner_px(z)
        return row * self.spacing_mm[1], column * self.spacing_mm[2]

    def size_mm(self, frame: Frame) -> tuple[float, float]:
        """Height and width of a part of the slices."""
        return tuple((s.stop - s.start) * mm for s, mm in zip(frame, self.spacing_mm[1:], strict=True))

    def window(self, z: int, frame: Frame) -> str:
        """The view box that shows a part of a slice."""
        top, left = self.corner_mm(z)
        height, width = self.size_mm(frame)
        y, x = top + frame[0].start * self.spacing_mm[1], left + frame[1].start * self.spacing_mm[2]
        return f"{x:.3f} {y:.3f} {width:.3f} {height:.3f}"


def viewer(
    case: ReportCase,
    anchor: str,
    heading: str,
    *,
    missed: Collection[int] = (),
    predictions: Sequence[Prediction] | None = None,
    cases: int = 1,
) -> str:
    """Show a case.

    Args:
      case: what to show.
      anchor: word that names the case's parts in the page, unlike any other's there.
      heading: what to tell above the slices, as HTML.
      missed: numbers of the reference discs, 1 the lowest, that were not found.
      predictions: the masks to outline; by default the case's prediction.
      cases: number of cases in the page, for the quality of the picture.

    Raises:
      ValueError: image and masks differ in shape.
    """
    if predictions is None:
        predictions = [Prediction("prediction", "prediction", case.prediction_ZxHxW)]
    masks = [case.reference_ZxHxW != 0, *(prediction.mask_ZxHxW != 0 for prediction in predictions)]
    shapes = {case.image_ZxHxW.shape, *(mask.shape for mask in masks)}
    if len(shapes) > 1:
        raise ValueError(f"{case.name}: image, reference and prediction are of different shapes: {sorted(shapes)}")
    inside_ZxHxW = np.any(masks, axis=0)
    shown = (slice(None), *pictures.frame(inside_ZxHxW, case.spacing_mm, MARGIN_MM))
    scene = _Scene(
        anchor=anchor,
        name=html.escape(case.name),
        sheet=pictures.sheet(case.image_ZxHxW[shown], PICTURE_BYTES * FULL_CASES // max(cases, FULL_CASES)),
        spacing_mm=case.spacing_mm,
        reference_ZxHxW=masks[0][shown],
        predictions=[Prediction(p.kind, p.name, m[shown]) for p, m in zip(predictions, masks[1:], strict=True)],
        numbered_ZxHxW=_numbered(case)[shown],
        missed=missed,
        strip=pictures.frame(inside_ZxHxW[shown], case.spacing_mm, STRIP_MARGIN_MM),
        middle=pictures.mid_sagittal(masks[0]),
    )
    told = [_told(scene, z) for z in range(len(inside_ZxHxW))]
    marks = {z: _marks(scene, z) for z in range(len(told)) if inside_ZxHxW[z].any() or z == scene.middle}
    height, width = scene.size_mm(scene.whole)
    return (
        f'<article class="viewer" style="--ratio:{width / height:.4f}">{_picture(scene)}'
        f'<div class="large"><svg class="slice" viewBox="{scene.window(scene.middle, scene.whole)}" role="img" '
        f'aria-label="Case {scene.name}, a sagittal slice with outlines"><use href="#{anchor}"/>'
        f'<use class="marks" href="#{anchor}-{scene.middle + 1}"/></svg>'
        f'<p class="where">{told[scene.middle]}</p></div>'
        f'<div class="beside">{heading}{_scrubber(scene, told)}{_strip(scene, told, marks)}</div></article>'
    )


def tools(outlines: Sequence[tuple[str, str]]) -> str:
    """Boxes that switch outlines, given as (class, name), and the names of the levels on and off."""
    boxes = [(kind, f'<span class="key {kind}">{html.escape(name)}</span>') for kind, name in outlines]
    labels = "".join(
        f'<label><input type="checkbox" id="{kind}" checked autocomplete="off">{shown}</label>'
        for kind, shown in [*boxes, ("levels", "levels")]
    )
    return f'<div class="tools">{labels}</div>'


def _numbered(case: ReportCase) -> np.ndarray:
    """The discs of a reference by their numbers, 1 the lowest, whatever the values of its labels."""
    discs_ZxHxW = discs.instances(case.reference_ZxHxW, case.spacing_mm)
    labels = discs.upwards(discs_ZxHxW, np.unique(discs_ZxHxW[discs_ZxHxW != 0]))
    number = np.zeros(256, np.uint8)
    number[labels] = np.arange(1, len(labels) + 1)
    return number[discs_ZxHxW]


def _areas_mm2(scene: _Scene, z: int) -> list[tuple[float, float]]:
    """For each prediction the area of a slice that it missed, and that it has too much."""
    voxel_mm2 = scene.spacing_mm[1] * scene.spacing_mm[2]
    reference = scene.reference_ZxHxW[z]
    return [
        (
            np.count_nonzero(reference & ~p.mask_ZxHxW[z]) * voxel_mm2,
            np.count_nonzero(p.mask_ZxHxW[z] & ~reference) * voxel_mm2,
        )
        for p in scene.predictions
    ]


def _told(scene: _Scene, z: int) -> str:
    """Which slice it is and how much masks agree in it, as HTML without tags."""
    off_mm = (z - scene.middle) * scene.spacing_mm[0]
    # Z runs to the patient's right.
    place = f"{abs(off_mm):.1f} mm {'right' if off_mm > 0 else 'left'}" if off_mm else "mid-sagittal"
    told = [f"Slice {z + 1} of {len(scene.reference_ZxHxW)}, {place}"]
    for prediction, (missed_mm2, extra_mm2) in zip(scene.predictions, _areas_mm2(scene, z), strict=True):
        name = f"{html.escape(prediction.name)}: " if len(scene.predictions) > 1 else ""
        if scene.reference_ZxHxW[z].any() or prediction.mask_ZxHxW[z].any():
            overlap = page.share(dice(prediction.mask_ZxHxW[z], scene.reference_ZxHxW[z]))
            told.append(f"{name}Dice {overlap}, {missed_mm2:.0f} mm\u00b2 missed, {extra_mm2:.0f} mm\u00b2 too much")
        else:
            told.append(f"{name}no disc")
    return "; ".join(told)


def _picture(scene: _Scene) -> str:
    height, width = scene.sheet.height_px * scene.spacing_mm[1], scene.sheet.width_px * scene.spacing_mm[2]
    data = base64.b64encode(scene.sheet.jpeg).decode("ascii")
    return (
        f'<svg class="store" width="0" height="0" aria-hidden="true"><defs><image id="{scene.anchor}" '
        f'width="{width:.3f}" height="{height:.3f}" preserveAspectRatio="none" '
        f'href="data:image/jpeg;base64,{data}"/></defs></svg>'
    )


def _marks(scene: _Scene, z: int) -> str:
    """The outlines and names in a slice, at the slice's place on the sheet."""
    top, left = scene.corner_mm(z)
    half_h, half_w = scene.spacing_mm[1] / 2, scene.spacing_mm[2] / 2
    # The reference is the thicker line and below, so that where masks agree both are seen.
    masks = [("reference", scene.reference_ZxHxW), *((p.kind, p.mask_ZxHxW) for p in scene.predictions)]
    lines = "".join(f'<path class="{kind}" d="{path}"/>' for kind, mask in masks if (path := pictures.outline(mask[z])))
    height, _ = scene.size_mm(scene.whole)
    letter_mm = height / _LETTERS
    names = []
    for disc in np.unique(scene.numbered_ZxHxW[z][scene.numbered_ZxHxW[z] != 0]):
        h, w = bounding_box(scene.numbered_ZxHxW[z] == disc)
        before, after = 2 * w.start * half_w - _LABEL_GAP_MM, 2 * w.stop * half_w + _LABEL_GAP_MM
        lost, words = disc in scene.missed, page.level(disc)
        if lost and _LETTER_RATIO * letter_mm * len(f"{words} missed") < before:
            words += " missed"
        kind = "level lost" if lost else "level"
        kind, x = (f"{kind} behind", after) if _LETTER_RATIO * letter_mm * len(words) > before else (kind, before)
        y = top + max((h.start + h.stop) * half_h + letter_mm / 3, 1.2 * letter_mm)
        names.append(f'<text class="{kind}" x="{left + x:.1f}" y="{y:.1f}">{words}</text>')
    return (
        f'<g id="{scene.anchor}-{z + 1}" font-size="{letter_mm:.2f}"><g transform="translate({left:.3f} {top:.3f}) '
        f'scale({half_w:.4f} {half_h:.4f})">{lines}</g>{"".join(names)}</g>'
    )


def _scrubber(scene: _Scene, told: Sequence[str]) -> str:
    """The slider, and above it the bars of each slice: up what is missed, down what is too much.

    Of several predictions each has a bar of its own, up, for both together.
    """
    areas_mm2 = [_areas_mm2(scene, z) for z in range(len(told))]
    alone = len(scene.predictions) == 1
    largest_mm2 = max(max(pair) if alone else sum(pair) for pairs in areas_mm2 for pair in pairs)
    full_mm2 = max(_FULL_BAR_MM2, largest_mm2)
    bars = []
    for z, pairs in enumerate(areas_mm2):
        if alone:
            missed, extra = (area / full_mm2 for area in pairs[0])
            drawn = _bar("missed", z + 0.75, 0.5, -missed, missed) + _bar("extra", z + 0.75, 0.5, 0, extra)
        else:
            width = 0.6 / len(pairs)
            drawn = "".join(
                _bar(prediction.kind, z + 0.7 + i * width, width, -sum(pair) / full_mm2, sum(pair) / full_mm2)
                for i, (prediction, pair) in enumerate(zip(scene.predictions, pairs, strict=True))
            )
        bars.append(
            f'<g class="bars" data-slice="{z + 1}" data-window="{scene.window(z, scene.whole)}" '
            f'data-marks="#{scene.anchor}-{z + 1}"><title>{told[z]}</title>'
            f"{_bar('reach', z + 0.5, 1, -1, 2 if alone else 1)}{drawn}</g>"
        )
    legend = '<i class="missed">missed</i> above, <i class="extra">too much</i> below'
    if not alone:
        legend = ", ".join(f'<i class="{p.kind}">{html.escape(p.name)}</i>' for p in scene.predictions)
        legend = f"missed and too much: {legend}"
    # The bars' centres lie where the slider's thumb stops: the first and the last bar reach out by half their width.
    return (
        f'<div class="scrubber" hidden><div class="track"><svg preserveAspectRatio="none" '
        f'viewBox="1 -1 {max(len(told) - 1, 1)} {2 if alone else 1}">{"".join(bars)}</svg></div>'
        f'<input type="range" min="1" max="{len(told)}" value="{scene.middle + 1}" step="1" autocomplete="off" '
        f'aria-label="Slice of case {scene.name}"><p class="scale"><span>left</span><span>{legend}; the scale ends at '
        f"{full_mm2:.0f} mm\u00b2</span><span>right</span></p></div>"
    )


def _bar(kind: str, x: float, width: float, y: float, height: float) -> str:
    if height == 0:
        return ""
    return f'<rect class="{kind}" x="{x:.3f}" y="{y:.3f}" width="{width:.3f}" height="{height:.3f}"/>'


def _strip(scene: _Scene, told: Sequence[str], marks: Mapping[int, str]) -> str:
    """Small slices side by side: those in which a mask has a disc."""
    thumbs = "".join(
        f'<svg class="thumb" data-slice="{z + 1}" viewBox="{scene.window(z, scene.strip)}"><title>{told[z]}</title>'
        f'<use href="#{scene.anchor}"/>{drawn}</svg>'
        for z, drawn in marks.items()
    )
    height, width = scene.size_mm(scene.strip)
    return f'<div class="strip" style="--columns:{_columns(len(marks), width / height)}">{thumbs}</div>'


def _columns(n: int, ratio: float) -> int:
    """The columns in which `n` slices of a ratio of width to height are large and leave few places empty."""
    best = {}
    for rows in range(1, n + 1):
        fitting = math.ceil(rows * _STRIP_WIDTH / ratio / _STRIP_HEIGHT)
        columns = max(math.ceil(n / rows), fitting)
        best[columns] = n / (math.ceil(n / columns) * columns**2)
    return max(best, key=best.__getitem__)
