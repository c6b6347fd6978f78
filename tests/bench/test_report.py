import dataclasses
import json

import pytest

from experiments import baseline
from ivdjax import cli
from ivdjax.bench import report, sizes, startup

KEYS = {
    "machine",
    "step_over_pytorch",
    "pipeline_resident",
    "pipeline_host",
    "pipeline_over_memcpy",
    "augmentation_share",
    "inference_s",
    "first_step_s",
    "step_over_floor",
}


def test_every_figure_is_measured_and_printed(tiny, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(cli.sys, "argv", ["ivdjax", "bench", "--json", str(tmp_path / "bench.json")])
    whole = report.run
    monkeypatch.setattr(report, "run", lambda: whole(tiny))
    # Processes are started in a test of their own.
    monkeypatch.setattr(startup, "measure", lambda sizes: {"cold": 2.0, "cached": 1.0})
    with pytest.raises(SystemExit, match="0"):
        cli.main()
    result = json.loads((tmp_path / "bench.json").read_text())
    assert set(result) == KEYS
    assert result["step_over_floor"] is None
    assert (result["step_over_pytorch"] is None) == (not _torch_is_whole())
    for name in ("pipeline_resident", "pipeline_host", "pipeline_over_memcpy"):
        assert 0 < result[name] < 10, name
    assert 0 < result["augmentation_share"] < 2
    assert 0 < result["inference_s"] < 60
    assert result["first_step_s"] == {"cold": 2.0, "cached": 1.0}
    assert result["machine"]["cores"] >= 1
    printed = capsys.readouterr().out
    assert result["machine"]["jax"] in printed
    assert "step over floor" in printed


def test_an_accelerator_is_measured_with_the_baseline():
    ours, theirs = sizes.ACCELERATOR.experiment, baseline.experiment()
    assert ours.model == theirs.model
    assert ours.train.batch_size == theirs.train.batch_size
    same = dataclasses.replace(ours.data, foreground_share=theirs.data.foreground_share)
    assert same == theirs.data


def test_without_augmentation_nothing_is_changed(tiny):
    assert not any(dataclasses.astuple(sizes.without_augmentation(tiny.experiment).augment))


def _torch_is_whole():
    try:
        import torch  # noqa: F401
    except ModuleNotFoundError:
        return False
    return True
