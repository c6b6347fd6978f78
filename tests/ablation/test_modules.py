"""The ablations in `experiments`: what they vary, and that nothing else changes."""

import dataclasses
import importlib
import re
from pathlib import Path

import pytest

from experiments import ablation_bases
from ivdjax import run
from ivdjax.ablation.plan import plan
from ivdjax.errors import UsageError

MODULES = sorted(path.stem for path in (Path(__file__).parents[2] / "experiments").glob("ablate_*.py"))
# The fields that the variants of a module may differ in.
VARIED = {
    "ablate_augmentation": {"augment."},
    "ablate_channels": {"data.channels"},
    "ablate_context": {"data.slices", "model", "train.batch_size"},
    "ablate_data": {"data.learn_subjects"},
    "ablate_fusion": {"model"},
    "ablate_loss": {"loss."},
}


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("word", ablation_bases.bases())
def test_variants_differ_from_their_base_in_what_the_module_is_about(name, word, tmp_path):
    module = importlib.import_module(f"experiments.{name}")
    bases = getattr(module, "bases", ablation_bases.bases)()
    if (name, word) == ("ablate_channels", "t2"):
        with pytest.raises(UsageError, match="nothing to compare"):
            plan(name, module.variants, bases[word])
        return
    laid = plan(name, module.variants, dataclasses.replace(bases[word], run_dir=tmp_path, name=name))
    assert len(laid.variants) > 1
    for variant in laid.variants:
        assert all(change.startswith(tuple(VARIED[name])) for change in variant.changes)
        assert variant.folder == tmp_path / variant.name
        if variant.experiment.data.root is None and word != "t2":
            run.check(variant.experiment)
    assert len({variant.changes for variant in laid.variants}) == len(laid.variants)


def test_variants_that_take_the_same_arrays_share_their_cache(tmp_path):
    context = importlib.import_module("experiments.ablate_context")
    channels = importlib.import_module("experiments.ablate_channels")
    base = dataclasses.replace(ablation_bases.small(), run_dir=tmp_path)
    assert len({v.experiment.data.cache for v in plan("context", context.variants, base).variants}) == 1
    assert len({v.experiment.data.cache for v in plan("channels", channels.variants, base).variants}) == 9


def test_a_patch_in_three_dimensions_costs_as_many_labels_as_stacks_do():
    context = importlib.import_module("experiments.ablate_context")
    three = context.variants(ablation_bases.bases()["baseline"])["3d"]
    assert three.train.batch_size * three.data.slices == pytest.approx(16, abs=4)


def test_the_module_that_the_docs_write_is_one(tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "ablations.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names = {"__name__": "ablate_width"}
    exec(compile(code, "ablations.md", "exec"), names)
    base = dataclasses.replace(ablation_bases.small(), run_dir=tmp_path)
    laid = plan("ablate_width", names["variants"], base)
    assert [v.changes for v in laid.variants] == [("model.features 4 8 16 24",), (), ("model.features 16 32 64 96",)]


def test_the_docs_list_every_module():
    page = (Path(__file__).parents[2] / "docs" / "ablations.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `(\w+)`", page, re.MULTILINE)) == set(MODULES)
