import dataclasses

import pytest

from ivdjax.bench import startup
from ivdjax.errors import DataError


def test_a_first_step_is_made_with_and_without_a_compiled_program(tiny):
    seconds = startup.measure(tiny)
    assert set(seconds) == {"cold", "cached"}
    assert all(0.1 < each < 300 for each in seconds.values())


def test_a_process_that_ends_too_soon_is_told_of(tiny):
    wrong = dataclasses.replace(tiny.experiment, model=tiny.experiment.model.clone(classes=-1))
    with pytest.raises(DataError, match="before its first step"):
        startup.measure(dataclasses.replace(tiny, experiment=wrong))
