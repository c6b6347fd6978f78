import dataclasses
import importlib
import json
import pkgutil
from pathlib import Path

import pytest

import experiments
from experiments import ablation_bases
from ivdjax import config, models
from ivdjax.errors import DataError

MODULES = [module.name for module in pkgutil.iter_modules(experiments.__path__)]


def default(name):
    return importlib.import_module(f"experiments.{name}").experiment()


def through_json(experiment):
    fields = json.loads(json.dumps(config.to_dict(experiment)))
    network = fields["model"]
    fields["model"] = config.from_dict(getattr(models, network.pop("network")), network, "model")
    return config.from_dict(config.Experiment, fields, "config.json")


def experiments_of(name):
    """What a module defines: an experiment, the variants of an ablation, or what those are made from."""
    module = importlib.import_module(f"experiments.{name}")
    if hasattr(module, "experiment"):
        return [module.experiment()]
    return [*(module.variants(ablation_bases.small()) if hasattr(module, "variants") else module.bases()).values()]


@pytest.mark.parametrize("name", MODULES)
def test_every_experiment_comes_back_from_json_as_it_was(name):
    for experiment in experiments_of(name):
        placed = dataclasses.replace(experiment, run_dir=Path("somewhere"))
        assert through_json(placed) == placed


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": "many"}, "train: steps: 'many'"),
        ({"steps": True}, "train: steps: True"),
        ({"stps": 3}, "unknown field stps"),
    ],
)
def test_a_config_that_does_not_fit_names_the_field(change, message):
    fields = config.to_dict(default("t2").train) | change
    with pytest.raises(DataError, match=message):
        config.from_dict(config.Train, fields, "config.json: train")


def test_differences_are_named_with_both_values():
    a, b = {"x": {"y": 1, "z": 2}}, {"x": {"y": 1, "z": 3}, "w": 0}
    assert config.differences(a, b) == ["x.z was 2, now 3", "w was None, now 0"]
