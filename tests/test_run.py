"""What a run needs before it begins."""

import dataclasses

import pytest

from ivdjax import config, files, run
from ivdjax.config import Phantom
from ivdjax.data import dataset
from ivdjax.errors import UsageError


def test_a_phantom_of_other_settings_is_not_taken_for_the_one_asked_for(tmp_path):
    size = Phantom(cases=4, shape=(8, 16, 16))
    files.write_json(tmp_path / dataset.PHANTOM_MARK, config.to_dict(size))
    run.draw_phantom(tmp_path, size)
    assert [path.name for path in tmp_path.iterdir()] == [dataset.PHANTOM_MARK]
    with pytest.raises(UsageError, match=r"another phantom \(seed was 0, now 1"):
        run.draw_phantom(tmp_path, dataclasses.replace(size, seed=1))


def test_what_a_killed_run_left_half_drawn_is_taken_away(tmp_path):
    (tmp_path / ".partial-phantom-abc" / "01").mkdir(parents=True)
    run.draw_phantom(tmp_path / "phantom", Phantom(cases=1, shape=(4, 40, 40), spacing_mm=(12.0, 8.0, 4.0)))
    assert sorted(path.name for path in tmp_path.iterdir()) == [".phantom.lock", "phantom"]
    assert sorted(path.name for path in (tmp_path / "phantom").iterdir()) == ["01", "phantom.json"]
