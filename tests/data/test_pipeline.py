import dataclasses

import jax
import numpy as np
import pytest

from ivdjax.config import Data
from ivdjax.data import pipeline, stacks
from ivdjax.data.splits import Member

DATA = Data(channels=("t2",), slices=3, window=(24, 20), foreground_share=0.5, threads=2)
ALL = Member((0, 1, 2), (), 0)


def gathered(cases, data=DATA, batch_size=4, members=(ALL,), share=pipeline.WHOLE):
    return pipeline.gathered(pipeline.places(cases, members, data, batch_size), cases, data, share=share)


def take(iterator, n):
    return [next(iterator) for _ in range(n)]


def same(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def test_shapes_and_types(made_cases):
    batch = next(gathered(made_cases))
    assert batch["stack"].shape == (1, 4, 3, 24, 20, 1)
    assert batch["stack"].dtype == np.float16
    assert batch["label"].shape == (1, 4, 1, 24, 20)
    assert batch["sample"].tolist() == [[0, 1, 2, 3]]


@pytest.mark.parametrize("window", [(24, 20), (64, 64), (41, 30)])
def test_volumes_on_the_device_give_the_very_batches_of_the_host(made_cases, window):
    data = dataclasses.replace(DATA, window=window)
    members = [Member((0, 1), (2,), 0), Member((1, 2), (0,), 3)]
    places = pipeline.places(made_cases, members, data, 4)
    images, labels = zip(*((case.image_ZxHxWxC, case.label_ZxHxW) for case in made_cases), strict=True)
    volumes = stacks.pack(images, labels, data.slices, data.window)
    cut = jax.jit(jax.vmap(jax.vmap(lambda place: stacks.take(volumes, place, data.slices, data.window))))
    host, device = pipeline.gathered(places, made_cases, data), pipeline.resident(places)
    for theirs, ours in zip(take(host, 6), take(device, 6), strict=True):
        stack, label = cut(ours.pop("place"))
        assert same(theirs, {"stack": np.asarray(stack), "label": np.asarray(label), **ours})


def test_a_network_has_the_batches_it_would_have_alone(made_cases):
    members = [Member((0, 1), (2,), 0), Member((1, 2), (0,), 3)]
    both = take(pipeline.resident(pipeline.places(made_cases, members, DATA, 4)), 5)
    for i, member in enumerate(members):
        alone = take(pipeline.resident(pipeline.places(made_cases, [member], DATA, 4)), 5)
        for ours, theirs in zip(both, alone, strict=True):
            np.testing.assert_array_equal(ours["place"][i], theirs["place"][0])
        assert set(np.unique([batch["place"][i, :, 0] for batch in both])) == set(member.learn)


def test_a_saved_position_gives_the_batches_that_would_have_come(made_cases):
    for start in (lambda: gathered(made_cases), lambda: pipeline.counted(1, 4)):
        iterator = start()
        take(iterator, 5)
        position = iterator.get_state()
        assert position == {"next_index": 5}
        expected = take(iterator, 6)
        other = start()
        other.set_state(position)
        assert all(same(a, b) for a, b in zip(expected, take(other, 6), strict=True))


def test_seeds_differ(made_cases):
    assert not same(*(next(gathered(made_cases, members=[Member((0, 1, 2), (), seed)])) for seed in (0, 1)))


def test_processes_share_out_the_very_batch_of_one(made_cases):
    members = [ALL, Member((0, 1), (2,), 1)]
    whole = take(gathered(made_cases, members=members), 5)
    shares = [[(slice(f, f + 1), slice(b, b + 2)) for b in (0, 2)] for f in (0, 1)]
    parts = [[take(gathered(made_cases, members=members, share=share), 5) for share in row] for row in shares]
    for t, batch in enumerate(whole):
        for name, expected in batch.items():
            rows = [np.concatenate([part[t][name] for part in row], axis=1) for row in parts]
            np.testing.assert_array_equal(np.concatenate(rows), expected)


def test_every_slice_comes_once_an_epoch_where_no_sample_is_moved(made_cases):
    data = dataclasses.replace(DATA, foreground_share=0.0)
    places = pipeline.places(made_cases, [ALL], data, 5)
    for epoch in range(2):
        seen = np.concatenate([places[3 * epoch + step][0, :, :2] for step in range(3)])
        assert sorted(seen.tolist()) == [[case, z] for case in range(3) for z in range(5)]
    assert not np.array_equal(places[0], places[3])


@pytest.mark.parametrize(("share", "low", "high"), [(0.0, 0.0, 0.9), (1.0, 1.0, 1.0)])
def test_foreground_share_moves_samples_onto_discs(made_cases, share, low, high):
    data = dataclasses.replace(DATA, foreground_share=share)
    batches = take(gathered(made_cases, data, 8), 10)
    with_disc = np.mean([label.any() for batch in batches for label in batch["label"][0]])
    assert low <= with_disc <= high


def test_a_window_larger_than_the_slice_repeats_the_border(made_cases):
    data = dataclasses.replace(DATA, window=(64, 64))
    assert next(gathered(made_cases, data, 2))["stack"].shape == (1, 2, 3, 64, 64, 1)
