"""How well a prediction measures: sizes of its discs beside those of the reference."""

import html
import itertools
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial import KDTree

from ivdjax.evaluation import axes, challenge, charts, discs, page
from ivdjax.evaluation.charts import Pair
from ivdjax.evaluation.landmarks import disc_picture
from ivdjax.evaluation.measure import Measures, measure_disc
from ivdjax.evaluation.metrics import Spacing
from ivdjax.evaluation.record import ReportCase
from ivdjax.evaluation.statistics import bland_altman


@dataclass(frozen=True)
class MeasuredDisc:
    """A reference disc and the prediction's section for it; None for what is too small to be measured."""

    case: str
    disc: int
    reference: Measures | None
    prediction: Measures | None


@dataclass(frozen=True)
class _Quantity:
    """A measure: its field, its name, what turns it into the unit shown, and its decimals."""

    field: str
    name: str
    unit: str
    factor: float
    decimals: int


_QUANTITIES = (
    _Quantity("volume_mm3", "Volume", "cm\u00b3", 1e-3, 2),
    _Quantity("height_anterior_mm", "Anterior height", "mm", 1.0, 1),
    _Quantity("height_middle_mm", "Middle height", "mm", 1.0, 1),
    _Quantity("height_posterior_mm", "Posterior height", "mm", 1.0, 1),
    _Quantity("ap_mm", "AP diameter", "mm", 1.0, 1),
    _Quantity("transverse_mm", "Transverse diameter", "mm", 1.0, 1),
    _Quantity("wedge_deg", "Wedge", "\u00b0", 1.0, 1),
)
_PLOTTED = ("volume_mm3", "height_middle_mm")


def measure_case(case: ReportCase) -> list[MeasuredDisc]:
    """Measure each disc of a case's reference and the section of the prediction that belongs to it.

    Pieces of a section wholly over `challenge.FALSE_DISC_GAP_MM` away from the disc are false discs, and not measured.
    """
    return [
        MeasuredDisc(case.name, number, _measures(reference, case.affine), _measures(prediction, case.affine))
        for number, (reference, prediction) in enumerate(_pairs(case), start=1)
    ]


def _pairs(case: ReportCase) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Each reference disc, the lowest first, and what is measured of the prediction for it; True inside."""
    discs_ZxHxW = discs.instances(case.reference_ZxHxW, case.spacing_mm)
    sections_ZxHxW = challenge.sections(case.prediction_ZxHxW, discs_ZxHxW, case.spacing_mm)
    for label in discs.upwards(discs_ZxHxW, np.unique(discs_ZxHxW[discs_ZxHxW != 0])):
        reference = discs_ZxHxW == label
        yield reference, _near(sections_ZxHxW == label, reference, case.spacing_mm)


def _near(section_ZxHxW: np.ndarray, disc_ZxHxW: np.ndarray, spacing_mm: Spacing) -> np.ndarray:
    """The pieces of a section that are not wholly farther from the disc than a false disc is."""
    voxel_Vx3 = np.argwhere(section_ZxHxW)
    if not len(voxel_Vx3):
        return section_ZxHxW
    gap_mm, _ = KDTree(np.argwhere(disc_ZxHxW) * spacing_mm).query(
        voxel_Vx3 * spacing_mm, distance_upper_bound=challenge.FALSE_DISC_GAP_MM
    )
    pieces_ZxHxW, _ = discs.components(section_ZxHxW, spacing_mm)
    near = np.unique(pieces_ZxHxW[tuple(voxel_Vx3[np.isfinite(gap_mm)].T)])
    return np.isin(pieces_ZxHxW, near[near > 0])


def _measures(disc_ZxHxW: np.ndarray, affine: np.ndarray) -> Measures | None:
    try:
        return measure_disc(disc_ZxHxW, affine)
    except ValueError:
        return None


def plots(measured: Sequence[MeasuredDisc], found: Mapping[tuple[str, int], bool], subjects: Mapping[str, str]) -> str:
    """Bland and Altman's plots of the discs that were found and could be measured.

    Args:
      measured: the discs.
      found: whether a disc was found, by case and disc.
      subjects: the subject of each case.
    """
    both = [d for d in measured if d.reference is not None and d.prediction is not None and found[d.case, d.disc]]
    if not both:
        return ""
    legend = [(page.level_class(disc), page.level(disc)) for disc in sorted({d.disc for d in both})]
    drawn = []
    for quantity in (q for q in _QUANTITIES if q.field in _PLOTTED):
        pairs = [_pair(d, quantity) for d in both]
        agreement = bland_altman(
            [pair.measured for pair in pairs], [pair.reference for pair in pairs], [subjects[d.case] for d in both]
        )
        drawn.append(charts.bland_altman(quantity.name, quantity.unit, pairs, agreement, legend))
    return "".join(drawn)


def _pair(disc: MeasuredDisc, quantity: _Quantity) -> Pair:
    measured, reference = (getattr(m, quantity.field) * quantity.factor for m in (disc.prediction, disc.reference))
    tooltip = (
        f"{disc.case}, {page.level(disc.disc)}: prediction {measured:.{quantity.decimals}f}, reference "
        f"{reference:.{quantity.decimals}f} {quantity.unit}"
    )
    return Pair(measured, reference, page.level_class(disc.disc), tooltip)


def pictures(measured: Sequence[MeasuredDisc], cases: Sequence[ReportCase]) -> str:
    """The disc whose middle heights differ most, as it was measured in the reference and in the prediction."""
    both = [(d.reference, d.prediction, d) for d in measured if d.reference is not None and d.prediction is not None]
    if not both:
        return ""
    *measures_of, disc = max(both, key=lambda both: abs(both[1].height_middle_mm - both[0].height_middle_mm))
    case = next(case for case in cases if case.name == disc.case)
    masks = next(itertools.islice(_pairs(case), disc.disc - 1, None))
    figures = []
    for kind, mask_ZxHxW, measures in zip(("reference", "prediction"), masks, measures_of, strict=True):
        jpeg = disc_picture(case.image_ZxHxW, case.affine, mask_ZxHxW, measures, "jpeg")
        text = (
            f"{html.escape(disc.case)}, {page.level(disc.disc)}, {measures.height_middle_mm:.1f} mm high in the middle"
        )
        source = f"data:image/jpeg;base64,{b64encode(jpeg).decode('ascii')}"
        figures.append(
            f'<figure class="chart"><figcaption><b>{kind.capitalize()}</b> {text}</figcaption>'
            f'<img alt="{kind}, {text}" src="{source}"></figure>'
        )
    return (
        '<p class="note">The disc whose middle heights differ most, cut along its own axes and seen from the side and '
        f'from above, with what was measured where.</p><div class="charts wide">{"".join(figures)}</div>'
    )


def measures_table(measured: Sequence[MeasuredDisc]) -> str:
    """What was measured of each disc: in the prediction and, below it, in the reference."""
    rows = []
    for i, disc in enumerate(measured):
        first = i == 0 or measured[i - 1].case != disc.case
        cells = "".join(_cell(disc, quantity) for quantity in _QUANTITIES)
        case = f"<th>{html.escape(disc.case) if first else ''}</th>"
        rows.append(f'<tr class="{"first" if first else ""}">{case}<th>{page.level(disc.disc)}</th>{cells}</tr>')
    return page.table(["Case", "Disc", *(f"{q.name}, {q.unit}" for q in _QUANTITIES)], rows, "measures")


def _cell(disc: MeasuredDisc, quantity: _Quantity) -> str:
    prediction, reference = (
        "&ndash;" if m is None else axes.number(getattr(m, quantity.field) * quantity.factor, f".{quantity.decimals}f")
        for m in (disc.prediction, disc.reference)
    )
    return f"<td>{prediction}<small>{reference}</small></td>"


def note(measured: Sequence[MeasuredDisc]) -> str:
    """What a reader must know of the plots and the table, as HTML."""
    told = (
        "Each point is a disc that was found: how much larger the prediction measures than the reference, with the "
        "mean difference (bias; the shade is its 95&nbsp;% bootstrap interval over subjects) and the limits of "
        "agreement, 1.96 standard deviations around it (Bland and Altman, 1986). False discs are not measured."
    )
    cut = sum(d.reference is not None and d.reference.cut_off for d in measured)
    if cut:
        told += (
            f" {cut} of {len(measured)} reference discs reach the edge of the scan: their measures are of the part "
            "that it shows."
        )
    return told
