"""The table of bad input (`bad_input.txt`): each row is run, and must end in one clear line and leave all as it was.

A part of the rows runs always, all of them with IVDJAX_ALL_ROWS=1, as `python -m tests.trust` sets it.
"""

import contextlib
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.trust import verbs, world
from tests.trust.ways import WAYS

ROOT = Path(__file__).parents[2]
ALL = os.environ.get("IVDJAX_ALL_ROWS") == "1"
# Of every so many rows one runs, where not all do; the verbs then take turns.
EVERY = 5
NOBODY = 65534


@dataclass(frozen=True)
class Row:
    """A row of the table."""

    way: str
    verb: str
    """A verb, or a command after a dollar."""
    code: int
    words: str
    """What the line must hold."""

    def __str__(self) -> str:
        return f"{self.way}: {self.verb}"


def table() -> list[Row]:
    """Read the table."""
    rows, way = [], ""
    for line in Path(__file__).with_name("bad_input.txt").read_text("utf-8").splitlines():
        if line.startswith("== "):
            way = line[3:]
        elif line and not line.startswith("#"):
            head, _, words = line.partition(" | ")
            code, _, told = head.partition(" ")
            for verb in [told] if told.startswith("$ ") else told.split():
                rows.append(Row(way, verb, int(code), words))
    return rows


ROWS = table()


@pytest.fixture(scope="module")
def sound() -> Iterator[Path]:
    """A sound world, and beside it a copy; where nobody, too, may look."""
    folder = Path(os.path.realpath(tempfile.mkdtemp(prefix="ivdjax-world-")))
    folder.chmod(0o755)
    (folder / "world").mkdir()
    with contextlib.redirect_stdout(sys.stderr):
        world.build(folder / "world")
    shutil.copytree(folder / "world", folder / "copy", symlinks=True)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def out(sound) -> Iterator[Path]:
    """An empty folder for what a verb writes."""
    folder = sound / "out"
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)


class Spoilt:
    """Which way the world is spoilt at the moment; rows of one way follow each other."""

    way = ""


def spoil(sound: Path, way: str) -> world.World:
    if Spoilt.way != way:
        shutil.rmtree(sound / "world")
        shutil.copytree(sound / "copy", sound / "world", symlinks=True)
        WAYS[way](world.World(sound / "world"))
        Spoilt.way = way
    return world.World(sound / "world")


def check(row: Row, outcome: verbs.Outcome, out: Path, where: world.World) -> None:
    """One line, the right code, no traceback, no warning, nothing written."""
    if outcome.crash is not None:
        raise AssertionError(f"{row} ended in a traceback") from outcome.crash
    assert outcome.code == row.code, outcome.err
    assert outcome.warned == ()
    said, err = (text.replace(f"{where.root}/", "").replace(str(out), "OUT") for text in (outcome.out, outcome.err))
    if row.verb in ("check", "$ check") and not outcome.err:  # lists all that is wrong, a line each
        assert row.words in said
        assert {path.name for path in out.iterdir()} <= {"check.json"}
        return
    lines = outcome.err.splitlines()
    if row.code:
        assert len(lines) == 1, outcome.err
        assert lines[0].startswith("ivdjax: ")
        assert lines[0].isprintable()
        assert list(out.rglob("*")) == [] or row.verb == "ablate"
        assert not list(out.rglob("report.html"))
    assert row.words in err


@pytest.mark.parametrize("row", ROWS if ALL else ROWS[::EVERY], ids=str)
def test_each_row_is_one_line_and_leaves_all_as_it_was(row, sound, out):
    if row.verb == "spider" and not row.way.startswith("spider is"):
        pytest.importorskip("SimpleITK")
    where = spoil(sound, row.way)
    before = world.state(where.root)
    words = shlex.split(row.verb[2:]) if row.verb.startswith("$ ") else verbs.words(row.verb, out)
    outcome = verbs.call([word.replace("OUT", str(out)) for word in words], where.root)
    after = world.state(where.root)
    if before != after:
        Spoilt.way = ""
    check(row, outcome, out, where)
    if row.code:  # what was made of sound files may stay in a cache, where it has a name of its own
        assert {name: what for name, what in after.items() if "/cache/" not in name or name in before} == before


def test_the_table_has_every_way_for_every_verb_that_reads_what_is_spoilt():
    assert {row.way for row in ROWS} <= set(WAYS)
    assert len({(row.way, row.verb) for row in ROWS}) == len(ROWS)
    missing = [way for way in WAYS if way not in {row.way for row in ROWS}]
    assert missing == []
    told = {row.verb for row in ROWS} | {row.verb.split()[1] for row in ROWS if row.verb.startswith("$ ")}
    assert set(verbs.COMMANDS) - {"start"} <= told


@pytest.mark.parametrize(
    "verb", ["check", "predict", "run", "evaluate", "measure", "nnunet", "to-nnunet", "release", "export"]
)
def test_a_sound_world_is_no_bad_input(verb, sound, out):
    where = spoil(sound, "nothing is wrong")
    before = world.state(where.root)
    outcome = verbs.call(verbs.words(verb, out), where.root)
    assert (outcome.code, outcome.crash, outcome.warned) == (0, None, ())
    assert list(out.rglob("*"))
    assert world.state(where.root) == before


def test_masks_of_scans_that_were_learnt_from_are_told_of(sound, out):
    where = spoil(sound, "nothing is wrong")
    err = verbs.call(verbs.words("run", out), where.root).err
    assert "the network learnt from 02, 03: scores of these masks say nothing of new scans\n" in err
    shutil.rmtree(out / "masks")
    for path in (where.root / "tree").glob("0[23]"):
        shutil.rmtree(path)
    assert "learnt" not in verbs.call(verbs.words("run", out), where.root).err
    Spoilt.way = ""


@contextlib.contextmanager
def as_nobody() -> Iterator[None]:
    """Without the rights of root, which no permission stops."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


WRITING = ("predict", "evaluate", "measure", "nnunet", "to-nnunet", "release", "export", "report", "compare")


@pytest.mark.parametrize("verb", WRITING)
def test_an_output_folder_that_may_not_be_written_to_is_refused(verb, sound, out):
    where = spoil(sound, "nothing is wrong")
    verbs.call(verbs.words(verb, out), where.root)  # imports all that it needs, while it may
    shutil.rmtree(out)
    out.mkdir()
    out.chmod(0o555)
    before = world.state(where.root)
    with as_nobody():
        outcome = verbs.call(verbs.words(verb, out), where.root)
    assert (outcome.code, outcome.crash, outcome.err.count("\n")) == (1, None, 1), outcome.err
    assert "may not be written to; choose another place" in outcome.err
    assert list(out.iterdir()) == []
    assert world.state(where.root) == before


@pytest.mark.parametrize("verb", ["check", "predict", "evaluate", "measure", "to-nnunet"])
def test_a_file_that_may_not_be_read_is_named(verb, sound, out):
    where = spoil(sound, "nothing is wrong")
    verbs.call(verbs.words(verb, out), where.root)
    shutil.rmtree(out)
    out.mkdir(0o777)
    out.chmod(0o777)
    path = where.images[0] if verb in ("check", "predict", "measure", "to-nnunet") else where.masks[0]
    path.chmod(0)
    try:
        with as_nobody():
            outcome = verbs.call(verbs.words(verb, out), where.root)
    finally:
        path.chmod(0o644)
    assert (outcome.code, outcome.crash) == (1, None)
    assert f"{path.name}: unreadable: Permission denied" in outcome.err + outcome.out
    assert {file.name for file in out.rglob("*")} <= {"check.json"}


@pytest.fixture
def full_disk(tmp_path) -> Iterator[Path]:
    """A disk of 16 KiB with nothing left on it."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "none", disk], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    with contextlib.suppress(OSError):
        (disk / "filled").write_bytes(bytes(2**16))
    yield disk
    subprocess.run(["umount", disk], check=True)


FILLING = ("check", *WRITING, "phantom")
FILLING_FEW = ("check", "predict", "measure", "report")


@pytest.mark.parametrize("verb", FILLING if ALL else FILLING_FEW)
def test_a_full_disk_is_told_and_nothing_half_written_stays(verb, sound, full_disk):
    where = spoil(sound, "nothing is wrong")
    before, left = world.state(where.root), world.state(full_disk)
    outcome = verbs.call(verbs.words(verb, full_disk), where.root)
    assert (outcome.code, outcome.crash, outcome.err.count("\n")) == (1, None, 1), outcome.err
    assert "No space left on device" in outcome.err
    after = world.state(full_disk)
    assert {name for name, what in after.items() if not what.startswith("folder")} == {"filled"}
    assert after["filled"] == left["filled"]
    assert world.state(where.root) == before


def process(*words: object, **environment: str) -> subprocess.CompletedProcess:
    code = "import sys; from ivdjax.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, words)],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_threads_that_read_a_damaged_checkpoint_say_nothing_of_it(sound, out):
    """They outlive the command, and Python would print what they meet."""
    where = spoil(sound, "run's checkpoint has arrays cut in half")
    done = process("export", where.root / "run", out / "network")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1), done.stderr
    assert f"{where.root / 'run/checkpoints/2'}: is damaged" in done.stderr


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_without_an_output_or_a_place_for_errors_the_work_is_done(sound, out, closed):
    tree = spoil(sound, "nothing is wrong").root / "tree"
    command = (
        f"{shlex.quote(sys.executable)} -m ivdjax check {tree} --channels fat wat --json {out}/check.json {closed}"
    )
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert (out / "check.json").exists()


@pytest.mark.parametrize("device", ["cuda", "tpu", "abacus"] if ALL else ["cuda"])
def test_a_device_that_is_not_there_is_wrong_use(device, tmp_path):
    import jax

    if any(found.platform in (device, "gpu") for found in jax.devices()):
        pytest.skip(f"{device} is there")
    done = process("phantom", tmp_path / "p", JAX_PLATFORMS=device)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    assert done.stderr.startswith(f"ivdjax: JAX_PLATFORMS={device}: there is no such device that jax can use")
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_nobody_reads_or_that_is_full_is_no_traceback(sound):
    tree = spoil(sound, "nothing is wrong").root / "tree"
    command = f"{shlex.quote(sys.executable)} -c 'from ivdjax.cli import main; main()' check {tree} --channels fat wat"
    for end, codes in (("| true", (1, 141)), ("> /dev/full", (1,))):
        script = f"set -o pipefail; {command} {end}"
        done = subprocess.run(["bash", "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode in codes
        assert done.stderr.count("\n") == (end == "> /dev/full"), done.stderr
