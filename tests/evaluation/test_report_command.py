"""`ivdjax report` as a user meets it: where the page is, and one line for what is theirs to mend."""

import sys

import pytest

from ivdjax import cli
from tests.evaluation.pages import make_run, spine


@pytest.fixture
def report(monkeypatch, capfd):
    """Runs the verb; gives its exit code, stdout and stderr."""

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["ivdjax", "report", *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return stop.value.code, *capfd.readouterr()

    return run


def test_two_runs_make_a_comparison(tmp_path, monkeypatch, report):
    for name, height in (("a", 6), ("b", 8)):
        make_run(tmp_path / name, {"01": spine(height=height), "02": spine()})
    monkeypatch.chdir(tmp_path)
    code, out, err = report("a", "b")
    assert (code, out, err) == (0, "Look at comparison.html.\n", "")
    assert "a and b" in (tmp_path / "comparison.html").read_text("utf-8")
    code, out, _ = report("b", "a", "--out", "deep/other.html")
    assert (code, out) == (0, "Look at deep/other.html.\n")
    assert "b and a" in (tmp_path / "deep/other.html").read_text("utf-8")


def test_what_is_no_finished_run_is_one_line(tmp_path, report):
    make_run(tmp_path / "a", {"01": spine()})
    make_run(tmp_path / "b", {"01": spine()})
    (tmp_path / "b/scores.csv").unlink()
    for folder, words in (
        ("b", "scores.csv"),
        ("none", "no such folder"),
        ("a/log.jsonl", "is a file"),
        ("", "config.json"),
    ):
        code, _, err = report(tmp_path / "a", tmp_path / folder)
        assert (code, err.count("\n")) == (1, 1), err
        assert err.startswith("ivdjax: ")
        assert words in err
    for words in ((), (tmp_path / "a", tmp_path / "a")):
        code, _, err = report(*words)
        assert (code, err.count("\n")) == (2, 1), err
