import dataclasses

import numpy as np
import pytest

from ivdjax.config import Data
from ivdjax.data import pipeline

DATA = Data(channels=("t2",), slices=3, window=(24, 20), foreground_share=0.5, threads=2)


def take(iterator, n):
    return [next(iterator) for _ in range(n)]


def same(a, b):
    return all(np.array_equal(a[name], b[name]) for name in ("stack", "label", "weight"))


def test_shapes_and_types(made_cases):
    batch = next(pipeline.batches(made_cases, DATA, 4, seed=0))
    assert batch["stack"].shape == (4, 3, 24, 20, 1)
    assert batch["stack"].dtype == np.float16
    assert batch["label"].shape == (4, 24, 20)


def test_a_saved_position_gives_the_batches_that_would_have_come(made_cases):
    iterator = pipeline.batches(made_cases, DATA, 4, seed=0)
    take(iterator, 5)
    position = iterator.get_state()
    expected = take(iterator, 6)
    other = pipeline.batches(made_cases, DATA, 4, seed=0)
    other.set_state(position)
    assert all(same(a, b) for a, b in zip(expected, take(other, 6), strict=True))


def test_seeds_differ(made_cases):
    assert not same(*(next(pipeline.batches(made_cases, DATA, 4, seed=s)) for s in (0, 1)))


def test_processes_share_out_the_very_batch_of_one(made_cases):
    whole = take(pipeline.batches(made_cases, DATA, 4, seed=0), 5)
    shares = [take(pipeline.batches(made_cases, DATA, 4, 0, p, 2), 5) for p in range(2)]
    for batch, *parts in zip(whole, *shares, strict=True):
        assert same(batch, {name: np.concatenate([part[name] for part in parts]) for name in batch})


def test_every_slice_comes_once_an_epoch_where_no_sample_is_moved(made_cases):
    data = dataclasses.replace(DATA, foreground_share=0.0, slices=1, window=(40, 36))
    marked = [
        dataclasses.replace(
            case, image_ZxHxWxC=np.broadcast_to((10 * i + np.arange(5))[:, None, None, None], (5, 42, 36, 1))
        )
        for i, case in enumerate(made_cases)
    ]
    seen = np.concatenate([b["stack"][:, 0, 0, 0, 0] for b in take(pipeline.batches(marked, data, 5, 0), 3)])
    assert sorted(seen) == [10 * i + z for i in range(3) for z in range(5)]


@pytest.mark.parametrize(("share", "low", "high"), [(0.0, 0.0, 0.9), (1.0, 1.0, 1.0)])
def test_foreground_share_moves_samples_onto_discs(made_cases, share, low, high):
    data = dataclasses.replace(DATA, foreground_share=share)
    batches = take(pipeline.batches(made_cases, data, 8, 0), 10)
    with_disc = np.mean([label.any() for batch in batches for label in batch["label"]])
    assert low <= with_disc <= high


def test_a_window_larger_than_the_slice_repeats_the_border(made_cases):
    data = dataclasses.replace(DATA, window=(64, 64))
    assert next(pipeline.batches(made_cases, data, 2, 0))["stack"].shape == (2, 3, 64, 64, 1)
