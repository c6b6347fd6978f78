"""The measures in the page: of the discs that were found, false ones left out, in the units it names."""

import numpy as np
import pytest

from ivdjax.evaluation import agreement
from ivdjax.evaluation.record import ReportCase
from tests.evaluation.pages import AFFINE, HOSTILE, SPACING_MM, Page, ramp, spine

VOXEL_MM3 = 2.0 * 1.25 * 1.25
DISC_VOXELS = 6 * 6 * 24


def case(prediction, name="01"):
    return ReportCase(name, ramp(), SPACING_MM, AFFINE, spine(), prediction)


def test_each_disc_is_measured_in_both_masks():
    prediction = spine(height=8)
    prediction[2:8, 18:26, 16:40] = 0  # the uppermost disc is missed
    measured = agreement.measure_case(case(prediction))
    assert [(d.case, d.disc) for d in measured] == [("01", 1), ("01", 2), ("01", 3)]
    assert [d.reference.volume_mm3 for d in measured] == pytest.approx([DISC_VOXELS * VOXEL_MM3] * 3)
    assert [d.prediction.volume_mm3 for d in measured[:2]] == pytest.approx([DISC_VOXELS * 8 / 6 * VOXEL_MM3] * 2)
    grown_mm = [d.prediction.height_middle_mm - d.reference.height_middle_mm for d in measured[:2]]
    assert grown_mm == pytest.approx([2.5, 2.5], abs=0.15)
    assert measured[2].prediction is None


def test_a_false_disc_is_not_measured():
    prediction = spine()
    prediction[3:7, 60:64, 50:60] = 1  # 12 mm off the nearest disc
    prediction[3:7, 80:82, 20:24] = 1  # adjoins the lowest disc
    lowest, *others = agreement.measure_case(case(prediction))
    assert lowest.prediction.volume_mm3 == pytest.approx((DISC_VOXELS + 4 * 2 * 4) * VOXEL_MM3)
    assert [d.prediction.volume_mm3 for d in others] == pytest.approx([DISC_VOXELS * VOXEL_MM3] * 2)


def test_labelled_predictions_are_measured_label_by_label():
    reference = spine([0]) * 3 + spine([1]) * 5
    swapped = spine([0], height=8) * 5 + spine([1]) * 3
    measured = agreement.measure_case(ReportCase("01", ramp(), SPACING_MM, AFFINE, reference, swapped))
    # Nothing of a label lies near the disc that has it in the reference.
    assert [d.prediction for d in measured] == [None, None]
    measured = agreement.measure_case(ReportCase("01", ramp(), SPACING_MM, AFFINE, reference, reference))
    assert [d.prediction.volume_mm3 for d in measured] == pytest.approx([DISC_VOXELS * VOXEL_MM3] * 2)


def test_plots_hold_the_found_discs():
    cases = [case(spine(height=8), "01"), case(spine([1, 2], height=7), HOSTILE)]
    measured = [disc for c in cases for disc in agreement.measure_case(c)]
    found = {(d.case, d.disc): d.prediction is not None for d in measured}
    found["01", 3] = False  # measured, but by its score not found
    page = Page(agreement.plots(measured, found, {"01": "s", HOSTILE: "s"}))
    assert page.open == []
    assert "Volume, prediction minus reference, cm\u00b3; n = 4" in page.text
    assert "Middle height, prediction minus reference, mm; n = 4" in page.text
    volume_cm3 = DISC_VOXELS * VOXEL_MM3 / 1000
    grown_cm3 = np.mean([2 / 6, 2 / 6, 1 / 6, 1 / 6]) * volume_cm3
    assert f"bias +{grown_cm3:.2f}" in page.text
    assert f"01, L5/S1: prediction {volume_cm3 * 8 / 6:.2f}, reference {volume_cm3:.2f} cm\u00b3" in page.text
    assert page.text.count(f"{HOSTILE}, L4/L5: prediction") == 2
    # The one subject's interval of the bias does not exist.
    assert not page.all("rect", "band")
    assert agreement.plots(measured, dict.fromkeys(found, False), {"01": "s", HOSTILE: "s"}) == ""


def test_the_table_has_every_disc_and_dashes_for_what_is_missing():
    measured = agreement.measure_case(case(spine([1, 2]), HOSTILE))
    page = Page(agreement.measures_table(measured))
    assert page.open == []
    assert page.text.count(HOSTILE) == 1
    assert page.text.count("\u2013") == 7
    assert page.text.count(f"{DISC_VOXELS * VOXEL_MM3 / 1000:.2f}") == 3 + 2
    assert "cut" not in agreement.note(measured)


def test_the_note_counts_discs_that_the_scan_cuts():
    reference = spine()
    reference[:2, 18:24, 16:40] = 1
    measured = agreement.measure_case(ReportCase("01", ramp(), SPACING_MM, AFFINE, reference, reference))
    assert "1 of 3 reference discs reach the edge of the scan" in agreement.note(measured)


def test_the_disc_that_differs_most_is_pictured_as_it_was_measured():
    prediction = spine()
    prediction[2:8, 44:48, 16:40] = spine()[2:8, 46:47, 16:40]  # the middle disc is higher
    cases = [case(spine(), "01"), case(prediction, HOSTILE)]
    measured = [disc for c in cases for disc in agreement.measure_case(c)]
    page = Page(agreement.pictures(measured, cases))
    assert page.open == []
    assert page.tags.count("img") == 2
    assert all(address.startswith("data:image/jpeg;base64,") for address in page.addresses)
    other = max(measured, key=lambda d: d.prediction.height_middle_mm)
    assert (other.case, other.disc) == (HOSTILE, 2)
    for kind, measures in (("Reference", other.reference), ("Prediction", other.prediction)):
        assert f"{kind} {HOSTILE}, L4/L5, {measures.height_middle_mm:.1f} mm high" in page.text
    assert agreement.pictures([], cases) == ""
