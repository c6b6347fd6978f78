"""The other files that users pass along, broken on purpose: settings, scores, logs, tables, weights, lists."""

import copy
import csv
import io
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ivdjax import config, files, trained
from ivdjax.ablation import results, table
from ivdjax.ablation.plan import Plan, Variant
from ivdjax.config import Data, Experiment
from ivdjax.data import cache, dataset, grouping, splits
from ivdjax.evaluation import calibration, compare, report
from ivdjax.exchange import nnunet
from ivdjax.inference import weights
from ivdjax.models import UNet
from ivdjax.training import loop
from tests.evaluation import pages
from tests.trust import fuzz_reading

WORDS = (
    "",
    "x",
    "../../escape",
    "/",
    "\0",
    "\n",
    "\ud800",
    "<script>alert(1)</script>",
    "=1+1",
    "é" * 300,
    "1e999",
    "nan",
)
NUMBERS = (0, -1, 1, 2, 1.5, -0.0, 1e308, 1e-320, float("nan"), float("inf"), 10**40, 10**400, -(2**63))
DEEP = 200_000


@dataclass(frozen=True)
class Table:
    """A kind of file: where it lies beside sound ones, and what reads it."""

    folder: str
    """Of the sound files."""
    name: str
    """Of the file, in it; a pattern, where its folder is named after what the file is made of."""
    read: Callable[[Path, Path], object]
    """Takes the folder with the file and an empty one to write to."""

    def path(self, home: Path) -> Path:
        """Where the file is, among the sound ones or in a copy of them."""
        (path,) = (home / self.folder).glob(self.name)
        return path


def sound_files(folder: Path) -> None:
    """Write a run, a released network, tables and a raw folder of nnU-Net, all sound."""
    for name in ("run", "other"):
        pages.make_run(folder / name, {"01": pages.spine(), "02": pages.spine((0, 2))}, subjects={"01": "a", "02": "b"})
        counts = calibration.CaseCounts(calibration.bin_voxels(np.array([0.1, 0.9]), np.array([0, 1])), (), ())
        calibration.write_case(calibration.case_path(folder / name, "01"), counts)
        summary = {"calibration": calibration.to_json(counts.bins, None), "ranking": None, "conventions": {}}
        files.write_json(folder / name / "calibration.json", summary)
        files.write_text(folder / name / "splits.json", json.dumps([{"learn_subjects": 5, "held_out": ["01", "02"]}]))
        (folder / name / "confidence.csv").write_text(
            "case,disc,confidence,volume_mm3,reference,dice\n01,1,0.9,50,1,0.8\n"
        )
    experiment = Experiment("tiny", UNet(features=(4, 8)), data=Data(channels=("t2",)))
    files.write_json(folder / "network" / "config.json", config.to_dict(experiment))
    state = jax.eval_shape(lambda: loop.initial_state(experiment, [0]))
    weights.write(folder / "network" / weights.FILE, jax.tree.map(lambda leaf: np.ones(leaf.shape[1:]), state.params))
    (folder / "tables").mkdir()
    (folder / "tables" / "subjects.csv").write_text("case,subject\n01,a\n02,a\n03,b\n")
    (folder / "tables" / "folds.csv").write_text("case,fold\n01,0\n02,0\n03,1\n")
    raw = folder / "Dataset007_Spine"
    for part in ("imagesTr", "labelsTr"):
        (raw / part).mkdir(parents=True)
    fuzz_reading.sound_files(raw)
    (raw / "image.nii.gz").rename(raw / "imagesTr" / "s_0000.nii.gz")
    (raw / "label.nii.gz").rename(raw / "labelsTr" / "s.nii.gz")
    said = {"channel_names": {"0": "T2"}, "labels": {"background": 0, "disc": 1}, "numTraining": 1}
    (raw / "dataset.json").write_text(json.dumps({**said, "file_ending": ".nii.gz"}))
    tree = folder / "cached" / "tree" / "01"
    tree.mkdir(parents=True)
    fuzz_reading.sound_files(tree)
    (tree / "image.nii.gz").rename(tree / "01_t2.nii.gz")
    (tree / "label.nii.gz").rename(tree / "01_Labels.nii.gz")
    _cache(folder / "cached", folder)


def _report(folder: Path, out: Path) -> None:
    """The page of a run, in a copy, since that is where it is written."""
    shutil.copytree(folder, out / "run")
    try:
        report.write_report(out / "run", [])
        text = (out / "run" / "report.html").read_text("utf-8")
        page = pages.Page(text)
        assert page.tags.count("script") == 1, "a name became a tag"
        assert not page.handlers
    except BaseException:
        shutil.rmtree(out / "run")
        raise


def _compare(folder: Path, out: Path) -> None:
    compare.write_comparison([folder.parent / "other", folder], out / "comparison.html")
    page = pages.Page((out / "comparison.html").read_text("utf-8"))
    assert page.tags.count("script") == 1, "a name became a tag"
    assert not page.handlers


def _network(folder: Path, out: Path) -> None:
    """Weights with their settings, as `predict` loads them and `release` passes them on."""
    network = trained.load(folder)
    files.write_json(out / "config.json", config.to_dict(network.experiment))
    weights.write(out / weights.FILE, network.only())
    for array in jax.tree.leaves(network.only()):
        assert array.dtype == np.float32


def _subjects(folder: Path, out: Path) -> None:
    grouping.assign_subjects(_cases(), "table", folder / "subjects.csv")


def _folds(folder: Path, out: Path) -> None:
    folds = splits.folds(_cases(), Data(fold_table=folder / "folds.csv", subjects="single"))
    assert sorted(name for fold in folds for name in fold) == ["01", "02", "03"]


def _cases() -> list[dataset.Case]:
    return [dataset.Case(name, (), None, name) for name in ("01", "02", "03")]


def _nnunet(folder: Path, out: Path) -> None:
    nnunet.to_tree(folder, out / "tree", disc_names=())


def _cache(folder: Path, out: Path) -> None:
    """A case through its cache, which is trusted only as far as its stamp fits."""
    home = folder / "cache"
    (read,) = cache.build(dataset.discover(folder / "tree", ("t2",)), Data(channels=("t2",)), home)
    assert read.image_ZxHxWxC.shape[:3] == read.label_ZxHxW.shape
    assert len(read.spacing_mm) == 3


def _ablation(folder: Path, out: Path) -> None:
    """The table, the CSV file and the picture of an ablation of two variants."""
    base = Experiment("made", UNet(features=(4, 8)), run_dir=folder.parent, data=Data(root=folder, channels=("t2",)))
    variants = [
        Variant(path.name, replace(base, run_dir=path), ("a 1",) * (path != folder))
        for path in (folder, folder.parent / "other")
    ]
    found = results.collect(Plan("made", base, tuple(variants)), variants)
    table.write(found, out / "table.md")
    results.write_csv(found, out / "table.csv")


# Stale or damaged caches are made anew, so that reading may change them.
MENDED = ("case.json", "image.npy")

TABLES: dict[str, Table] = {
    "config.json": Table("network", "config.json", _network),
    "config.json of a run": Table("run", "config.json", _report),
    "scores.json": Table("run", "scores.json", _report),
    "scores.json, compared": Table("run", "scores.json", _compare),
    "scores.csv": Table("run", "scores.csv", _report),
    "log.jsonl": Table("run", "log.jsonl", _report),
    "calibration.json": Table("run", "calibration.json", _report),
    "confidence.csv": Table("run", "confidence.csv", _report),
    "weights": Table("network", weights.FILE, _network),
    "subjects.csv": Table("tables", "subjects.csv", _subjects),
    "folds.csv": Table("tables", "folds.csv", _folds),
    "dataset.json": Table("Dataset007_Spine", "dataset.json", _nnunet),
    "splits.json": Table("run", "splits.json", _ablation),
    "scores.json of a variant": Table("run", "scores.json", _ablation),
    "case.json": Table("cached", "cache/01/*/case.json", _cache),
    "image.npy": Table("cached", "cache/01/*/image.npy", _cache),
}


def broken(content: bytes, name: str, rng: np.random.Generator) -> bytes:
    """The content of a file, broken in a way that suits it or as bytes."""
    if rng.random() < 0.3:
        return _bytes(content, rng)
    if name.endswith(".json"):
        return _dumped(_values(json.loads(content), rng), rng)
    if name.endswith(".jsonl"):
        lines = content.decode().splitlines()
        chosen = int(rng.integers(len(lines) - 1))
        lines[chosen] = _dumped(_values(json.loads(lines[chosen]), rng), rng).decode("utf-8", "surrogatepass")
        return "\n".join(lines).encode("utf-8", "surrogatepass")
    if name.endswith(".csv"):
        return _cells(content.decode(), rng)
    if name.endswith(".safetensors"):
        return _tensors(content, rng)
    return _bytes(content, rng)


def _bytes(content: bytes, rng: np.random.Generator) -> bytes:
    place = int(rng.integers(len(content) + 1))
    flipped = bytearray(content)
    for _ in range(2 ** rng.integers(6)):
        flipped[rng.integers(len(content))] ^= 1 << rng.integers(8)
    text = content.decode("latin-1")
    ways = [
        content[:place],
        bytes(flipped),
        content[:place] + rng.bytes(8) + content[place:],
        content[:place] + b"\xff\xfe\0" + content[place:],
        b"\xef\xbb\xbf" + content,
        text.encode("utf-16"),
        bytes(len(content)),
        b"",
        b"[" * DEEP,
        b'{"a":' * DEEP,
        content + content,
        content.replace(b"\n", b"\r"),
        content.replace(b'"', b"'"),
        rng.bytes(200),
    ]
    return ways[rng.integers(len(ways))]


def _values(value: Any, rng: np.random.Generator) -> Any:
    """One to three places of a JSON value become something else."""
    value = copy.deepcopy(value)
    for _ in range(rng.integers(1, 4)):
        places = list(_places(value))
        if not places:
            return value
        home, key = places[rng.integers(len(places))]
        what = rng.integers(6)
        if what == 0:
            del home[key]
        elif what == 1 and isinstance(home, dict):
            home[str(WORDS[rng.integers(len(WORDS))])] = home[key]
        else:
            home[key] = _odd(home[key], rng)
    return value


def _places(value: Any) -> Any:
    """Every place in a JSON value, as what holds it and its key there."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in list(items):
        yield value, key
        yield from _places(inner)


def _odd(old: Any, rng: np.random.Generator) -> Any:
    if isinstance(old, int | float) and rng.random() < 0.6:
        return NUMBERS[rng.integers(len(NUMBERS))]
    if isinstance(old, str) and rng.random() < 0.6:
        return WORDS[rng.integers(len(WORDS))]
    odd = [None, True, [], {}, [[]], [old], {"a": old}, str(old), *WORDS[:6], *NUMBERS[:6], [old] * 3]
    return odd[rng.integers(len(odd))]


def _dumped(value: Any, rng: np.random.Generator) -> bytes:
    text = json.dumps(value, ensure_ascii=bool(rng.random() < 0.7), indent=2)
    if rng.random() < 0.1 and isinstance(value, dict) and value:
        key = list(value)[rng.integers(len(value))]
        text = text.rstrip()[:-1] + f", {json.dumps(key)}: {json.dumps(_odd(value[key], rng))}}}"
    if rng.random() < 0.1:
        text = text.replace("1", "1" * 5000, 1)
    return text.encode("utf-8", "surrogatepass")


def _cells(text: str, rng: np.random.Generator) -> bytes:
    rows = list(csv.reader(io.StringIO(text)))
    for _ in range(rng.integers(1, 4)):
        row = rows[rng.integers(len(rows))]
        what = rng.integers(7)
        odd = [*WORDS, *map(str, NUMBERS), "٣", "²", "x" * 140_000, " 01 ", "-1", "1" * 5000, "1_0"]
        if what == 0 and row:
            row.pop(int(rng.integers(len(row))))
        elif what == 1:
            row.append(odd[rng.integers(len(odd))])
        elif what == 2:
            rows.append(list(row))
        elif what == 3 and len(rows) > 1:
            rows.remove(row)
        elif row:
            row[rng.integers(len(row))] = odd[rng.integers(len(odd))]
    out = io.StringIO()
    # A writer that quotes nothing leaves line breaks, quotes and commas to do what they do.
    if rng.random() < 0.7:
        csv.writer(out, lineterminator=str(rng.choice(["\n", "\r\n", "\r"]))).writerows(rows)
    else:
        out.write("\n".join(str(rng.choice([",", ";", "\t"])).join(row) for row in rows))
    return out.getvalue().encode("utf-8", "surrogatepass")


def _tensors(content: bytes, rng: np.random.Generator) -> bytes:
    start = 8 + int.from_bytes(content[:8], "little")
    header = _values(json.loads(content[8:start]), rng)
    if rng.random() < 0.2:
        name = next(iter(header), "a")
        header[f"{name}/inner" if rng.random() < 0.5 else "/".join("a" * 3000)] = {
            "dtype": "F16",
            "shape": [1],
            "data_offsets": [0, 2],
        }
    text = _dumped(header, rng)
    size = len(text) if rng.random() < 0.8 else int(rng.choice([0, 1, 2**31, 2**62]))
    return size.to_bytes(8, "little") + text + content[start:]
