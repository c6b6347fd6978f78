"""A pickle that would run, put in the place of every file that is loaded: nothing runs."""

import contextlib
import gc
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

from ivdjax import config, files, trained
from ivdjax.config import Data, Experiment
from ivdjax.data import cache, dataset
from ivdjax.errors import DataError
from ivdjax.inference import weights
from ivdjax.models import UNet
from ivdjax.training.checkpoint import Checkpoints
from tests.trust import fuzz_reading


class Bomb:
    """Unpickled, it makes a file."""

    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return Path.touch, (self.canary,)


@pytest.fixture
def canary(tmp_path):
    """A file that is there once a pickle ran; first it is shown that one would."""
    path = tmp_path / "canary"
    pickle.loads(pickle.dumps(Bomb(path)))
    assert path.exists()
    path.unlink()
    return path


def payloads(canary):
    """A pickle, and NumPy's file of an array that holds one."""
    yield pickle.dumps(Bomb(canary))
    array = canary.with_name("array.npy")
    np.save(array, np.array([Bomb(canary)], dtype=object), allow_pickle=True)
    yield array.read_bytes()


class Position:
    """What is asked of the data's iterator."""

    def get_state(self):
        return {"next": 3}

    def set_state(self, state):
        self.state = state


# What Orbax was doing when it gave up is ended where it is collected.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_no_file_of_a_checkpoint_runs(tmp_path, canary):
    state = {"step": np.int32([7]), "params": {"kernel": np.ones((3, 2), np.float32)}}
    book = Checkpoints(tmp_path / "checkpoints")
    book.save(7, state, Position(), 0.5)
    book.close()
    blank = {"step": np.zeros(1, np.int32), "params": {"kernel": np.zeros((3, 2), np.float32)}}

    def restore(folder):
        book, position = Checkpoints(folder, read_only=True), Position()
        try:
            return book.latest, book.best, book.networks(7), book.restore(7, blank, position), position.state
        finally:
            book.close()

    latest, best, _, restored, position = restore(tmp_path / "checkpoints")
    assert (latest, best, position) == (7, 7, {"next": 3})
    np.testing.assert_array_equal(restored["params"]["kernel"], state["params"]["kernel"])
    names = [path for path in sorted((tmp_path / "checkpoints").rglob("*")) if path.is_file()]
    assert len(names) > 5
    for i, path in enumerate(names):
        for payload in payloads(canary):
            copy = shutil.copytree(tmp_path / "checkpoints", tmp_path / f"copy{i}", dirs_exist_ok=True)
            (copy / path.relative_to(tmp_path / "checkpoints")).write_bytes(payload)
            with contextlib.suppress(Exception):  # whichever; what is looked at here is whether anything ran
                restore(copy)
            assert not canary.exists(), path
    gc.collect()


def test_no_released_weights_and_no_settings_run(tmp_path, canary):
    experiment = Experiment("tiny", UNet(features=(4, 8)), data=Data(channels=("t2",)))
    for name in ("config.json", weights.FILE):
        for payload in payloads(canary):
            files.write_json(tmp_path / "network" / "config.json", config.to_dict(experiment))
            weights.write(tmp_path / "network" / weights.FILE, {"a": np.ones(2)})
            (tmp_path / "network" / name).write_bytes(payload)
            with pytest.raises(DataError, match=name):
                trained.load(tmp_path / "network")
            assert not canary.exists()


def test_no_array_of_a_cache_runs_and_it_is_made_anew(tmp_path, canary):
    fuzz_reading.sound_files(tmp_path)
    case = dataset.Case("01", (tmp_path / "image.nii.gz",), tmp_path / "label.nii.gz", "01")
    data, home = Data(channels=("t2",)), tmp_path / "cache"
    (sound,) = cache.build([case], data, home)
    expected = np.array(sound.image_ZxHxWxC)
    for name in ("image.npy", "label.npy", "case.json"):
        (path,) = home.glob(f"01/*/{name}")
        for payload in payloads(canary):
            path.write_bytes(payload)
            (again,) = cache.build([case], data, home)
            np.testing.assert_array_equal(again.image_ZxHxWxC, expected)
            assert payload not in path.read_bytes()
            assert not canary.exists()


def test_a_network_of_other_sizes_than_the_weights_is_refused(tmp_path):
    trained_weights = weights.read(weights.find("default") / weights.FILE)
    settings = files.read_json(weights.find("default") / "config.json")
    settings["model"]["features"][0] *= 2
    files.write_json(tmp_path / "config.json", settings)
    weights.write(tmp_path / weights.FILE, trained_weights)
    with pytest.raises(DataError, match=r"params\.safetensors: is not of the network in config\.json"):
        trained.load(tmp_path)
