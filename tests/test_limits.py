from dataclasses import fields, replace

import pytest

from experiments import ablate_fusion, baseline, phantom_pretrain, quickstart, t2
from ivdjax import limits
from ivdjax.config import Experiment, Postprocess, Predict
from ivdjax.errors import UsageError
from ivdjax.inference import predict
from ivdjax.models import ResidualUNet, SliceAttentionUNet, UNet

BASE = Experiment(name="base", model=UNet())


def of(**settings):
    """The base with other settings, dotted names with __ for the dots."""
    experiment = BASE
    for name, value in settings.items():
        part, _, field = name.rpartition("__")
        inner = replace(getattr(experiment, part), **{field: value}) if part else value
        experiment = replace(experiment, **{part or field: inner})
    return experiment


def test_every_experiment_keeps_to_them():
    for module in (baseline, phantom_pretrain, quickstart, t2):
        limits.check(module.experiment())
    for variant in ablate_fusion.variants(baseline.experiment()).values():
        limits.check(variant)


def test_each_is_of_a_setting_that_there_is():
    known = {name for name, _ in limits._settings(BASE)}
    assert set(limits.LIMITS) <= known
    # Whatever else is a number must be in the table, too.
    numbers = {name for name, value in limits._settings(BASE) if type(value) in (int, float)}
    assert numbers <= set(limits.LIMITS)


def test_there_are_as_many_shifts_as_are_allowed():
    assert limits.LIMITS["predict.shifts"] == (0, len(predict.SHIFTS))


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"data__slices": 4}, "--data.slices 4: choose an odd number"),
        ({"data__slices": -1}, "--data.slices -1: may be 1 to 999"),
        ({"data__window": (0, 32)}, "--data.window 0 32: may be 1 to 4096"),
        ({"data__clip_percentiles": (99.0, 1.0)}, "--data.clip-percentiles 99 1: the first is the smaller"),
        ({"data__clip_percentiles": (float("nan"), 1.0)}, "--data.clip-percentiles nan 1: may be 0 to 100"),
        ({"augment__flip": 1.5}, "--augment.flip 1.5: may be 0 to 1"),
        ({"augment__noise": -0.1}, "--augment.noise -0.1: may be 0 or more"),
        ({"optimizer__learning_rate": 0.0}, "--optimizer.learning-rate 0: may be more than 0"),
        ({"optimizer__learning_rate": float("inf")}, "--optimizer.learning-rate inf: may be more than 0"),
        ({"train__steps": 0}, "--train.steps 0: may be 1 or more"),
        ({"seed": -1}, "--seed -1: may be 0 to 4294967295"),
        ({"predict": Predict(shifts=9)}, "--predict.shifts 9: may be 0 to 8"),
        ({"predict": Predict(postprocess=Postprocess(-1.0))}, "--predict.postprocess.specks-mm3 -1: may be 0 or more"),
        ({"model": UNet(features=())}, "--model.features without numbers: may be 1 or more"),
        ({"model": UNet(features=(8, 0))}, "--model.features 8 0: may be 1 or more"),
        ({"model": UNet(classes=1)}, "--model.classes 1: may be 2 or more"),
        ({"model": ResidualUNet(blocks=(1,))}, "--model.blocks: has 1 numbers, --model.features 5"),
        ({"model": SliceAttentionUNet(heads=5)}, "--model.heads 5: does not divide each"),
    ],
)
def test_what_cannot_be_is_named(settings, line):
    with pytest.raises(UsageError) as refused:
        limits.check(of(**settings))
    assert str(refused.value).startswith(line)


def test_a_phantom_that_no_memory_holds_is_refused():
    with pytest.raises(UsageError, match=r"--data\.phantom\.shape 4000 4000 4000: is over 67108864 voxels"):
        limits.check_phantom(replace(BASE.data.phantom, shape=(4000, 4000, 4000)))
    assert {field.name for field in fields(BASE.data.phantom)} == {"cases", "seed", "shape", "spacing_mm"}
