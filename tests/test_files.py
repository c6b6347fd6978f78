import pytest

from ivdjax import files
from ivdjax.errors import DataError, UsageError


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "scores.json"
    files.write_text(path, "old")

    def fail_halfway():
        with files.replacing(path) as partial:
            partial.write_text("half")
            raise OSError("disk full")

    with pytest.raises(DataError, match=r"scores\.json: cannot be written: disk full"):
        fail_halfway()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_json_without_a_number_is_refused(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(tmp_path / "x.json", {"dice": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(DataError, match=r"config\.json: is not JSON"):
        files.read_json(tmp_path / "config.json")


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    def fill(broken):
        with files.making(tmp_path / "in" / "new") as folder:
            (folder / "file").touch()
            if broken:
                raise DataError("broken")

    with pytest.raises(DataError, match="broken"):
        fill(broken=True)
    assert list((tmp_path / "in").iterdir()) == []
    (tmp_path / "in" / "new").mkdir()  # an empty one is no hindrance
    fill(broken=False)
    assert [path.name for path in (tmp_path / "in").rglob("*")] == ["new", "file"]
    with pytest.raises(UsageError, match="not an empty folder"):
        fill(broken=False)
    (tmp_path / "in" / "file").touch()
    with pytest.raises(DataError, match="is a file where a folder"), files.making(tmp_path / "in" / "file" / "new"):
        pass
