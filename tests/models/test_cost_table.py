"""The table of docs/networks.md is what the code says."""

from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from ivdjax import models
from ivdjax.bench import floor

PAGE = (Path(__file__).parents[2] / "docs" / "networks.md").read_text(encoding="utf-8")
ROWS = [[cell.strip() for cell in line.split("|")[1:-1]] for line in PAGE.splitlines() if line.startswith("| `")]


def test_every_network_has_its_row():
    kinds = {name for name in dir(models) if isinstance(getattr(models, name), type)}
    assert {row[0].split("`")[1] for row in ROWS} == kinds


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_parameters_and_work_are_those_of_the_table(row):
    name, _, _, parameters, work = row
    network = getattr(models, name.split("`")[1])()
    K = 1 if "K = 1" in name else 5
    stack = jax.ShapeDtypeStruct((1, K, 256, 256, 4), jnp.float32)
    params = jax.eval_shape(network.init, jax.random.key(0), stack)["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == int(parameters.replace(" ", ""))
    flops = sum(layer.flops for layer in floor.layers(network.apply, {"params": params}, stack))
    assert f"{flops / 1e9:.1f}" == work
