"""NIfTI files as no scanner writes them: broken on purpose, each by a seed of its own."""

import gzip
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from nibabel.nifti1 import Nifti1Header
from nibabel.nifti2 import Nifti2Header

SHAPE = (6, 22, 18)
SPACING_MM = (2.0, 1.25, 1.25)
# Signed, unsigned, floating, and what is no image of numbers; codes of the format.
TYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8"}
CODES = (*TYPES, 0, 1, 32, 128, 1536, 1792, 2048, 2304, -1, 7, 32767)
BLOCK = 2**24  # bytes of zeros that a bomb repeats

INTEGERS = (0, 1, -1, 2, 3, 7, 8, 255, 256, 32767, -32768, 2**20, 2**31 - 1, 2**40, 2**62, -(2**63))
FLOATS = (0.0, -0.0, 1.0, -1.0, 0.5, 352.0, 1e-45, 1e-30, 1e30, 3e38, -3e38, 1e300, np.nan, np.inf, -np.inf)


@dataclass(frozen=True)
class Volume:
    """A file to try: how it was broken, the end of its name, and its bytes."""

    kind: str
    suffix: str
    content: bytes


def volume(rng: np.random.Generator) -> Volume:
    """A NIfTI file, sound or broken in one to three ways."""
    kind, break_it = KINDS[rng.integers(len(KINDS))]
    suffix = str(rng.choice([".nii", ".nii.gz"]))
    return break_it(kind, suffix, rng)


def sound(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A header, a record of the format's fields, and voxels: two bright boxes in noise, or a mask of them."""
    order = str(rng.choice(["<", ">"]))
    version = Nifti1Header if rng.random() < 0.6 else Nifti2Header
    made = version(endianness=order)
    label = np.zeros(SHAPE, np.uint8)
    label[1:5, 3:8, 4:14] = 1
    label[1:5, 13:18, 4:14] = 1 + (rng.random() < 0.3)
    code = int(rng.choice(list(TYPES)))
    voxels = label if rng.random() < 0.4 else 20 + 60 * label + rng.integers(0, 20, SHAPE)
    made.set_data_dtype(np.dtype(TYPES[code]))
    made.set_data_shape(SHAPE)
    affine = np.diag([-SPACING_MM[0], SPACING_MM[1], SPACING_MM[2], 1.0])[:, [0, 2, 1, 3]]
    affine[:3, 3] = rng.normal(0, 50, 3)
    made.set_sform(affine, code=1 if rng.random() < 0.8 else 0)
    made.set_qform(affine, code=1 if rng.random() < 0.5 else 0)
    made.set_xyzt_units("mm")
    made["vox_offset"] = made.single_vox_offset
    return made.structarr.copy(), voxels.astype(np.dtype(TYPES[code]).newbyteorder(order))


def joined(header: np.ndarray, voxels: np.ndarray, extension: bytes = bytes(4)) -> bytes:
    """Header, the flag of extensions and what follows it, and voxels."""
    return header.tobytes() + extension + voxels.tobytes(order="F")


def packed(content: bytes, suffix: str) -> bytes:
    """The bytes of a file of this suffix."""
    return gzip.compress(content, 1, mtime=0) if suffix.endswith(".gz") else content


def _untouched(kind: str, suffix: str, rng: np.random.Generator) -> Volume:
    return Volume(kind, suffix, packed(joined(*sound(rng)), suffix))


def _fields(names: Callable[[tuple[str, ...]], list[str]]) -> Callable[[str, str, np.random.Generator], Volume]:
    """Set one to three of some fields to what tries a reader."""

    def break_it(kind: str, suffix: str, rng: np.random.Generator) -> Volume:
        header, voxels = sound(rng)
        chosen = names(header.dtype.names)
        for _ in range(rng.integers(1, 4)):
            _set(header, str(rng.choice(chosen)), rng)
        return Volume(kind, suffix, packed(joined(header, voxels), suffix))

    return break_it


def _set(header: np.ndarray, name: str, rng: np.random.Generator) -> None:
    kind, shape = header.dtype[name].base.kind, header.dtype[name].shape
    if kind == "S":
        words = [b"", b"n+1\0", b"ni1\0", b"n+2\0", b"ni2\0", b"\xff" * 80, b"<script>alert(1)</script>"]
        header[name] = words[rng.integers(len(words))] if rng.random() < 0.7 else rng.bytes(8)
        return
    if name == "datatype" and rng.random() < 0.8:
        header[name] = int(rng.choice(CODES))
        return
    if kind in "iu":
        limits = np.iinfo(header.dtype[name].base)
        value = int(INTEGERS[rng.integers(len(INTEGERS))])
        value = min(max(value, limits.min), limits.max)
    else:
        with np.errstate(over="ignore"):
            value = np.float64(FLOATS[rng.integers(len(FLOATS))]).astype(header.dtype[name].base)
    if not shape:
        header[name] = value
    elif rng.random() < 0.15:
        header[name][...] = value
    else:
        header[name][rng.integers(shape[0])] = value


def _claims(kind: str, suffix: str, rng: np.random.Generator) -> Volume:
    """A header that promises far more than the file has, in a way that adds up."""
    header, voxels = sound(rng)
    size = int(rng.choice([300, 1000, 1625, 8192, 32767]))
    header["dim"][0] = rng.integers(3, 8)
    header["dim"][1 : 1 + rng.integers(1, 8)] = size
    return Volume(kind, suffix, packed(joined(header, voxels), suffix))


def _voxels(kind: str, suffix: str, rng: np.random.Generator) -> Volume:
    """Voxels that are no intensities and no labels."""
    header, voxels = sound(rng)
    with np.errstate(all="ignore"):
        if voxels.dtype.kind == "f":
            odd = np.array(FLOATS).astype(voxels.dtype)
        else:
            odd = np.array([np.iinfo(voxels.dtype).min, np.iinfo(voxels.dtype).max, 0, 3, 99], voxels.dtype)
    some = rng.random(SHAPE) < rng.choice([0.001, 0.1, 1.0])
    voxels[some] = rng.choice(odd, int(some.sum()))
    if rng.random() < 0.4:
        _set(header, str(rng.choice(["scl_slope", "scl_inter"])), rng)
    return Volume(kind, suffix, packed(joined(header, voxels), suffix))


def _extensions(kind: str, suffix: str, rng: np.random.Generator) -> Volume:
    header, voxels = sound(rng)
    size, held = int(rng.choice([-16, 0, 8, 15, 16, 32, 2**31 - 1])), int(rng.choice([0, 8, 24, 4096]))
    order = header["sizeof_hdr"].dtype.newbyteorder("=").byteorder
    words = np.array([size, rng.choice([0, 2, 4, 6, -1])], f"{order}i4").tobytes()
    flag = bytes([int(rng.choice([0, 1, 255])), 0, 0, int(rng.choice([0, 7]))])
    extension = flag + words + rng.bytes(held)
    if rng.random() < 0.7:
        header["vox_offset"] = header.dtype.itemsize + len(extension)
    return Volume(kind, suffix, packed(joined(header, voxels, extension), suffix))


def _flips(kind: str, suffix: str, rng: np.random.Generator) -> Volume:
    """Bits that changed, mostly in the header, before or after it is packed."""
    content = bytearray(joined(*sound(rng)))
    inside = rng.random() < 0.7
    if not inside:
        content = bytearray(packed(bytes(content), suffix))
    reach = len(content) if rng.random() < 0.3 else min(len(content), 544 if inside else 64)
    for _ in range(2 ** rng.integers(5)):
        content[rng.integers(reach)] ^= 1 << rng.integers(8)
    return Volume(kind, suffix, packed(bytes(content), suffix) if inside else bytes(content))


def _cuts(kind: str, suffix: str, rng: np.random.Generator) -> Volume:
    """A file that ends too soon, or that lacks a part, or has it twice."""
    content = joined(*sound(rng))
    inside = rng.random() < 0.5
    content = content if inside else packed(content, suffix)
    near = rng.random() < 0.4
    place = int(rng.integers(min(len(content), 700) if near else len(content)))
    what = rng.integers(4)
    if what < 2:
        content = content[:place]
    else:
        length = int(rng.integers(1, 400))
        part = content[place : place + length]
        content = content[:place] + (part * 2 if what == 3 else b"") + content[place + length :]
    return Volume(kind, suffix, packed(content, suffix) if inside else content)


def _noise(kind: str, suffix: str, rng: np.random.Generator) -> Volume:
    start = [b"", b"\x1f\x8b\x08\x00", b"\x5c\x01\x00\x00", b"\x00\x00\x02\x1c", bytes(64), b"PK\x03\x04", b"DICM"]
    content = start[rng.integers(len(start))] + rng.bytes(int(rng.choice([0, 1, 9, 347, 348, 600, 5000])))
    return Volume(kind, suffix, content)


def _gzip(kind: str, suffix: str, rng: np.random.Generator) -> Volume:
    """Streams of gzip that are wrong as such, whatever they hold."""
    content = joined(*sound(rng))
    whole, half = packed(content, ".gz"), len(content) // 2
    ways = [
        bytes([*whole[:3], int(rng.integers(1, 256)), *whole[4:]]),  # flags
        bytes([*whole[:2], int(rng.integers(256)), *whole[3:]]),  # method
        whole[:-8] + rng.bytes(4) + whole[-4:],  # checksum
        whole[:-4] + rng.bytes(4),  # length
        packed(content[:half], ".gz") + packed(content[half:], ".gz"),
        packed(content[:half], ".gz") + rng.bytes(3) + packed(content[half:], ".gz"),
        whole + whole,
        whole + rng.bytes(int(rng.integers(1, 99))),
        whole + bytes(int(rng.integers(1, 9999))),
        packed(whole, ".gz"),
        content,
        b"",
        packed(b"", ".gz") * 50 + whole,
    ]
    name = suffix if rng.random() < 0.1 else ".nii.gz"
    return Volume(kind, name, ways[rng.integers(len(ways))])


def _bomb(kind: str, suffix: str, rng: np.random.Generator) -> Volume:
    """A small file that unzips to gigabytes: as voxels the header asks for, before them, or after them."""
    header, voxels = sound(rng)
    blocks, block = int(rng.choice([8, 64, 300, 640])), bytes(BLOCK)
    where = rng.integers(5)
    if where < 2:
        side = int(rng.choice([300, 400, 406, 407, 640]))
        header["dim"][1:4] = side
        if where:  # bytes that are labels, in runs or in crumbs
            run = int(rng.choice([1, 2**10, 2**16]))
            block = np.tile(np.arange(23, dtype=np.uint8).repeat(run), -(-BLOCK // run // 23))[:BLOCK].tobytes()
        more, rest = divmod(side**3 * voxels.dtype.itemsize - voxels.nbytes, BLOCK)
        content = packed(joined(header, voxels), ".gz") + packed(block, ".gz") * more + packed(block[:rest], ".gz")
        return Volume(kind, ".nii.gz", content)
    if where == 2:
        header["vox_offset"] = min(blocks * BLOCK, 2**31)
    elif where == 3:
        return Volume(kind, ".nii.gz", packed(joined(header, voxels), ".gz") + packed(bytes(BLOCK), ".gz") * blocks)
    # One deflate stream; its checksum, at the end, is wrong.
    press = zlib.compressobj(9, zlib.DEFLATED, 31)
    start = press.compress(joined(header, voxels)) + press.flush(zlib.Z_FULL_FLUSH)
    more = press.compress(block) + press.flush(zlib.Z_FULL_FLUSH)
    return Volume(kind, ".nii.gz", start + more * blocks + press.flush())


def _named(*words: str) -> Callable[[tuple[str, ...]], list[str]]:
    return lambda names: [name for name in names if any(word in name for word in words)]


# By the name of the kind, in the order of a table; those that show twice are tried twice as often.
KINDS: list[tuple[str, Callable[[str, str, np.random.Generator], Volume]]] = [
    ("sound", _untouched),
    ("shape", _fields(lambda names: ["dim"])),
    ("shape", _fields(lambda names: ["dim", "datatype", "bitpix", "vox_offset"])),
    ("claims", _claims),
    ("type", _fields(lambda names: ["datatype", "bitpix"])),
    ("offset", _fields(lambda names: ["vox_offset"])),
    ("scaling", _fields(_named("scl_", "cal_"))),
    ("magic", _fields(lambda names: ["magic", "sizeof_hdr"])),
    ("place", _fields(_named("pixdim", "form_code", "quatern", "qoffset", "srow", "xyzt"))),
    ("place", _fields(_named("srow"))),
    ("any field", _fields(list)),
    ("voxels", _voxels),
    ("extensions", _extensions),
    ("flipped bits", _flips),
    ("flipped bits", _flips),
    ("cuts", _cuts),
    ("cuts", _cuts),
    ("noise", _noise),
    ("gzip", _gzip),
    ("gzip", _gzip),
]
# Tried seldom, since each takes a second.
BOMB = ("bomb", _bomb)
