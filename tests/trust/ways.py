"""Every way of being wrong, by the words that the table has for it."""

from pathlib import Path

from tests.trust import spoil
from tests.trust.spoil import file, header, images, json_file, labels, masks, setting, table, values, with_one, without

FILES = {
    "is missing": spoil.gone,
    "has no length": spoil.zero,
    "is a folder": spoil.folder,
    "is a link to nowhere": spoil.broken_link,
    "is a link to itself": spoil.loop_link,
    "is a pipe": spoil.pipe,
    "is cut in half": spoil.halved,
    "is text": spoil.text,
}
FILES_OF_NIFTI = {
    "has one bit flipped": spoil.flipped,
    "is zipped text": spoil.zipped_text,
    "is not zipped, though called .gz": spoil.unzipped,
    "is a DICOM file by another name": spoil.dicom,
    "is a .hdr/.img pair": spoil.pair,
    "is the header of a pair": spoil.pair_header,
    "is called .mgz": spoil.renamed(".mgz"),
    "is 4-D": spoil.four_d,
    "has no affine": header(spoil.unplaced),
    "has a singular affine": header(spoil.singular),
    "has an affine that is no number": header(spoil.nan_affine),
    "promises a terabyte": header(spoil.terabyte),
    "has no voxels": header(spoil.no_voxels),
    "is in metres": header(spoil.metres),
    "lies elsewhere": header(spoil.moved),
    "holds complex numbers": spoil.dtype(32, 64),
    "holds colours": spoil.dtype(128, 24),
    "lacks a slice": values(spoil.cut),
    "holds a NaN": with_one(float("nan")),
    "is there twice": spoil.twice,
}
OF_IMAGES = {
    "holds an infinity": with_one(float("inf")),
    "is the same everywhere": spoil.constant(7),
    "is there twice, in two folders": spoil.twice_elsewhere,
}
OF_LABELS = {
    "holds a half": with_one(0.5),
    "holds 300": with_one(300),
    "holds -1": with_one(-1),
    "is empty": spoil.constant(0),
}
WAYS = {
    **{f"image {way}": images(change) for way, change in FILES.items()},
    **{f"image {way}": images(change, False) for way, change in (FILES_OF_NIFTI | OF_IMAGES).items()},
    **{f"label {way}": labels(change) for way, change in FILES.items()},
    **{f"label {way}": labels(change, False) for way, change in (FILES_OF_NIFTI | OF_LABELS).items()},
    **{f"mask {way}": masks(change) for way, change in (FILES | FILES_OF_NIFTI | OF_LABELS).items()},
    "label holds 40": labels(with_one(40), False),
    "all labels are missing": file("tree/*/*_Labels.nii.gz", spoil.gone),
    "masks have other names": lambda world: [
        p.rename(p.with_name(f"x{p.name}")) for p in world.masks[0].parent.iterdir()
    ],
}
for _folder in ("tree", "spider", "Dataset001_Boxes", "masks", "run", "weights"):
    WAYS |= {
        f"{_folder} is missing": file(_folder, spoil.gone),
        f"{_folder} is empty": file(_folder, spoil.emptied),
        f"{_folder} is a file": file(_folder, spoil.plain_file),
        f"{_folder} is a link to nowhere": file(_folder, spoil.broken_link),
    }
NAMES = {
    "a space": "a b",
    "a leading dash": "-x",
    "letters of other scripts": "é漢",
    "a line break": "a\nb",
    "a terminal's escape": "a\x1b[31mb",
    "markup": "<b>&'",
    "a byte that is no letter": "\udcff",
    "a leading =": "=1+1",
}
WAYS |= {f"name of a case has {way}": spoil.renamed_cases(name) for way, name in NAMES.items()}

_JSON = {
    "is missing": spoil.gone,
    "has no length": spoil.zero,
    "is cut in half": spoil.halved,
    "is text": spoil.text,
    "is a list": table("[]"),
    "is in UTF-16": table("{}".encode("utf-16")),
    "is a folder": spoil.folder,
    "is nested without end": table('{"a":' * 100_000),
}
_SETTINGS = {
    "is older: lacks a field": without("train", "steps"),
    "is newer: has another field": setting(1, "train", "stepz"),
    "names an unknown network": setting("VNet", "model", "network"),
    "names a module as the network": setting("blocks", "model", "network"),
    "has an unknown field of the network": setting(3, "model", "layers"),
    "has a word for a number": setting("many", "train", "steps"),
    "is of a wider network": setting([3, 5], "model", "features"),
    "is of no network": setting([], "model", "features"),
    "has an unknown arithmetic": setting("int8", "model", "dtype"),
    "has an even number of slices": setting(4, "data", "slices"),
    "is of fewer channels": setting(["fat"], "data", "channels"),
    "is of no channel": setting([], "data", "channels"),
    "has 99 shifts": setting(99, "predict", "shifts"),
    "has percentiles the wrong way round": setting([99, 1], "data", "clip_percentiles"),
    "has NaN for the seed": setting(float("nan"), "seed"),
}
for _where in ("run", "weights", "half"):
    WAYS |= {f"{_where}/config.json {way}": file(f"{_where}/config.json", change) for way, change in _JSON.items()}
    WAYS |= {
        f"{_where}/config.json {way}": json_file(f"{_where}/config.json", change) for way, change in _SETTINGS.items()
    }
WAYS["run/config.json has its scans elsewhere"] = json_file("run/config.json", setting("/nowhere", "data", "root"))
_LEFT = (
    "scores.json",
    "scores.csv",
    "log.jsonl",
    "splits.json",
    "provenance.json",
    "calibration.json",
    "confidence.csv",
)
for _file in _LEFT:
    WAYS |= {
        f"run/{_file} {way}": file(f"run/{_file}", FILES[way])
        for way in ("is missing", "has no length", "is cut in half", "is text", "is a folder")
    }
WAYS |= {
    "run/scores.json is older: lacks a field": json_file("run/scores.json", without("interval")),
    "run/scores.json lacks its cases": json_file("run/scores.json", without("cases")),
    "run/scores.json has a word for its cases": json_file("run/scores.json", setting("x", "cases")),
    "run/scores.json has cases without scores": json_file("run/scores.json", setting([{"case": "01"}], "cases")),
    "run/checkpoints is missing": file("run/checkpoints", spoil.gone),
    "run/checkpoints is empty": file("run/checkpoints", spoil.emptied),
}


def _metadata(world) -> Path:
    return world.checkpoint / "state/_METADATA"


for _run in ("run", "half"):
    _two = f"{_run}/checkpoints/2"
    WAYS |= {
        f"{_run}'s checkpoint is an empty folder": file(_two, spoil.emptied),
        f"{_run}'s checkpoint lacks its state": file(f"{_two}/state", spoil.gone),
        f"{_run}'s checkpoint lacks its arrays": file(f"{_two}/state/ocdbt.process_0/d/*", spoil.gone),
        f"{_run}'s checkpoint has arrays without length": file(f"{_two}/state/ocdbt.process_0/d/*", spoil.zero),
        f"{_run}'s checkpoint has arrays cut in half": file(f"{_two}/state/ocdbt.process_0/d/*", spoil.halved),
        f"{_run}'s checkpoint has a bit flipped in each array": file(
            f"{_two}/state/ocdbt.process_0/d/*", spoil.flipped
        ),
        f"{_run}'s checkpoint lacks its manifest": file(f"{_two}/state/manifest.ocdbt", spoil.gone),
        f"{_run}'s checkpoint has a manifest cut in half": file(f"{_two}/state/manifest.ocdbt", spoil.halved),
        f"{_run}'s checkpoint lacks its metadata": file(f"{_two}/state/_METADATA", spoil.gone),
        f"{_run}'s checkpoint has metadata cut in half": file(f"{_two}/state/_METADATA", spoil.halved),
        f"{_run}'s checkpoint has text for metadata": file(f"{_two}/state/_METADATA", spoil.text),
    }
WAYS["half's checkpoint lacks the data's position"] = file("half/checkpoints/2/data/metadata", spoil.gone)
WAYS["half's checkpoint has text for the data's position"] = file("half/checkpoints/2/data/metadata", spoil.text)

_WEIGHTS = {way: FILES[way] for way in ("is missing", "has no length", "is cut in half", "is text", "is a folder")}
_WEIGHTS["promises a header of exabytes"] = table((2**62).to_bytes(8, "little") + b"{}")
WAYS |= {
    f"weights/params.safetensors {way}": file("weights/params.safetensors", change) for way, change in _WEIGHTS.items()
}
WAYS |= {
    "weights/learnt_from.json is text": file("weights/learnt_from.json", spoil.text),
    "weights/learnt_from.json has too few numbers": file("weights/learnt_from.json", table('{"spacing_mm": [1, 2]}')),
}
for _column, _name in (("subject", "subjects.csv"), ("fold", "folds.csv")):
    _rows = f"case,{_column}\n01,0\n02,1\n03,1\n"
    _TABLES = {
        "is missing": spoil.gone,
        "is a folder": spoil.folder,
        "has no length": spoil.zero,
        "has another column": table("case,other\n01,0\n02,1\n03,1\n"),
        "is parted by semicolons": table(_rows.replace(",", ";")),
        "lacks a case": table(_rows.replace("03,1\n", "")),
        "has a case twice": table(_rows + "01,1\n"),
        "has an empty cell": table(_rows.replace("01,0", "01,")),
        "is in UTF-16": table(_rows.encode("utf-16")),
        "has a cell of 200000 letters": table(_rows.replace("01,0", "01," + "0" * 200_000)),
    }
    WAYS |= {f"{_name} {way}": file(_name, change) for way, change in _TABLES.items()}
WAYS |= {
    "folds.csv has words for numbers": file("folds.csv", table("case,fold\n01,a\n02,b\n03,c\n")),
    "folds.csv skips a fold": file("folds.csv", table("case,fold\n01,0\n02,2\n03,2\n")),
    "folds.csv has one fold": file("folds.csv", table("case,fold\n01,0\n02,0\n03,0\n")),
    "folds.csv parts a subject": lambda world: (world.root / "subjects.csv").write_text(
        "case,subject\n01,a\n02,a\n03,b\n"
    ),
}
_RAW = "Dataset001_Boxes/dataset.json"
WAYS |= {f"{_RAW} {way}": file(_RAW, change) for way, change in _JSON.items()}
WAYS |= {
    f"{_RAW} {way}": json_file(_RAW, change)
    for way, change in {
        "lacks channel_names": without("channel_names"),
        "has a list of channels": setting(["a", "b"], "channel_names"),
        "names one channel of two": setting({"0": "fat"}, "channel_names"),
        "names a third channel": setting({"0": "fat", "1": "wat", "2": "x"}, "channel_names"),
        "names a channel twice": setting({"0": "fat", "1": "fat"}, "channel_names"),
        "has a region": setting({"background": 0, "disc": [1, 2]}, "labels"),
        "has no label": setting({"background": 0}, "labels"),
        "numbers its label otherwise": setting({"background": 0, "disc": 7}, "labels"),
        "has two labels": setting({"background": 0, "disc": 1, "bone": 2}, "labels"),
        "is of pictures": setting(".png", "file_ending"),
        "is of version 1": setting({"0": "MR"}, "modality"),
    }.items()
}
WAYS["tree has other channels"] = spoil.other_channels
WAYS["nothing is wrong"] = lambda world: None
