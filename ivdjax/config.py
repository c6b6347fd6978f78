"""What an experiment is: frozen dataclasses, one line of doc (unit, reason) a field.

An `Experiment` is everything a run depends on. It is written to `config.json` in the run's folder and read back from
there by whatever works on a finished run, so it holds plain values only (and the network, a Linen module, which is a
frozen dataclass too).
"""

import dataclasses
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from flax import linen as nn

from ivdjax.errors import DataError

Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class Phantom:
    """The digital phantom that stands in for patients where no data root is given."""

    cases: int = 16
    """Cases to draw; two scans a subject, so an even number."""
    seed: int = 0
    """Which phantoms are drawn."""
    shape: tuple[int, int, int] = (36, 256, 256)
    """Voxels along Z (right-left), H (superior-inferior), W (anterior-posterior)."""
    spacing_mm: tuple[float, float, float] = (2.0, 1.25, 1.25)
    """Voxel size along Z, H, W in mm."""


@dataclass(frozen=True)
class Fresh:
    """Phantoms drawn while training, inside the compiled step, in place of cases to learn from."""

    per_step: int = 0
    """Phantoms drawn a step, each a slab of slices of a new subject; 0 learns from the cases instead."""
    pool: int = 96
    """Slabs kept on the accelerator, from which samples are taken; the oldest make room for the new."""
    slab: int = 7
    """Slices of a slab; K or more."""
    spacing_mm: tuple[float, float] = (0.85, 1.5)
    """Smallest and largest voxel size in the plane."""
    thickness_mm: tuple[float, float] = (1.0, 4.0)
    """Smallest and largest distance between slices."""
    reach_mm: tuple[float, float, float] = (36.0, 60.0, 25.0)
    """A slab's centre lies up to this far from that of the labelled discs, along Z, H, W."""


@dataclass(frozen=True)
class Data:
    """Which scans, how they are split, and how a sample is cut from them."""

    root: Path | None = None
    """Folder with the cases. None draws the digital phantom below into the run's folder."""
    phantom: Phantom = field(default_factory=Phantom)
    """The phantom's size; used only without a root."""
    fresh: Fresh = field(default_factory=Fresh)
    """Phantoms drawn while training; the cases above are then all held out."""
    channels: tuple[str, ...] = ("fat", "inn", "opp", "wat")
    """Names of the images of a case, as in NAME_<channel>.nii.gz; their order is the order of the channels."""
    subjects: Literal["pairs", "single", "table"] = "pairs"
    """Whose scans the cases are: consecutive pairs (IVDM3Seg, the phantom), one scan a subject, or a table."""
    subject_table: Path | None = None
    """CSV file with the columns case,subject; read where subjects is table."""
    label_grid: Literal["refuse", "voxels", "header"] = "refuse"
    """A mask whose header disagrees with its images: refuse it, trust its voxels, or resample it by its header."""
    folds: int = 0
    """Folds of the cross-validation, grouped by subject; 0 leaves one subject out a fold."""
    fold_table: Path | None = None
    """CSV file with the columns case,fold that deals the cases to folds 0, 1, 2 ... itself; then folds says nothing."""
    fold: int = 0
    """The fold whose subjects are held out."""
    hold_out: tuple[str, ...] = ()
    """Names of the cases to hold out instead of a fold's; their subjects' other cases are held out with them."""
    learn_subjects: int = 0
    """Subjects to learn from, of those that are not held out: so many that follow the held-out one; 0 takes all."""
    slices: int = 5
    """K, neighbouring sagittal slices in a stack; odd, the centre one is segmented."""
    window: tuple[int, int] = (256, 256)
    """Size (H, W) in voxels of the part of a slice that a training sample shows."""
    foreground_share: float = 0.5
    """Share of the samples that are centred on a disc voxel; the others lie anywhere."""
    clip_percentiles: tuple[float, float] = (0.5, 99.5)
    """A volume's intensities are clipped to these percentiles before they get zero mean and unit variance."""
    cache: Path | None = None
    """Folder for the normalised arrays, shared by runs; None keeps them in the run's folder."""
    residency: Literal["auto", "device", "host"] = "auto"
    """Where the volumes lie while training: in the accelerator's memory, from which the step itself takes its stacks,
    or on the host; auto: on the device where they fit. The batches are the same."""
    threads: int = 2
    """Threads that read the cases, and that gather stacks ahead of the training step where the host does that."""


@dataclass(frozen=True)
class Augment:
    """Random changes of a training sample, made on the accelerator. Zero switches a part off."""

    rotation_degrees: float = 12.0
    """Standard deviation of the in-plane rotation."""
    log_scale: float = 0.12
    """Standard deviation of the logarithm of the in-plane zoom."""
    log_stretch: float = 0.05
    """Standard deviation of the logarithm of the ratio of zooms along H and W."""
    shift_voxels: float = 8.0
    """Standard deviation of the in-plane shift."""
    flip: float = 0.5
    """Probability of a left-right flip, which reverses the slices of the stack."""
    mix: float = 0.1
    """Standard deviation of the logarithm of gain and power of water and of fat; inn and opp are recomputed."""
    swap: float = 0.05
    """Probability of fat-water swaps: in smooth regions with sharp borders, up to 30 % of the stack."""
    decay: float = 0.05
    """Standard deviation of a smooth R2* times the in-phase echo time, by which signals decay."""
    bias: float = 0.2
    """Strength of the smooth bias field: about the standard deviation of its logarithm."""
    curve: float = 0.0
    """How far, of the range of intensities, the curve they are sent through strays from a straight line."""
    invert: float = 0.0
    """Probability that a channel is turned upside down, dark for bright."""
    blur_voxels: float = 0.7
    """Largest standard deviation of the in-plane blur."""
    blur_through: float = 0.3
    """Largest share of the two neighbouring slices in a slice."""
    gain: float = 0.15
    """Standard deviation of the logarithm of a channel's gain."""
    offset: float = 0.15
    """Standard deviation of a channel's offset, in standard deviations of the volume."""
    log_gamma: float = 0.25
    """Standard deviation of the logarithm of the exponent applied to the normalised intensities."""
    noise: float = 0.1
    """Largest standard deviation of the noise of a magnitude image, in standard deviations of the volume."""
    channel_dropout: float = 0.0
    """Probability that a sample loses channels, any but all; above 0 the network is told which are there."""
    tissue: float = 0.35
    """Standard deviation of the logarithm of a tissue's gain in water and in fat; fresh phantoms only."""
    foreign: float = 0.25
    """Probability that the tissues' water takes levels at random; fresh phantoms only."""


@dataclass(frozen=True)
class Optimizer:
    """AdamW with a linear warm-up and a cosine decay to zero."""

    learning_rate: float = 2e-3
    """Largest learning rate, reached after the warm-up."""
    warmup_steps: int = 50
    """Steps from zero to the largest learning rate; at most a tenth of a run's steps is used."""
    weight_decay: float = 1e-2
    """Decoupled decay of the convolution kernels (not of biases and norms)."""
    clip_norm: float = 1.0
    """Largest global norm of a gradient; longer ones are shortened to it."""
    ema_decay: float = 0.995
    """Decay a step of the running mean of the weights, which is what predicts."""


@dataclass(frozen=True)
class Loss:
    """Soft Dice plus cross-entropy, and others. A weight of zero leaves a loss out."""

    dice_weight: float = 1.0
    """Weight of the soft Dice loss, a mean over samples and foreground classes."""
    cross_entropy_weight: float = 1.0
    """Weight of the cross-entropy, a mean over voxels."""
    tversky_weight: float = 0.0
    """Weight of the Tversky loss, a mean over samples and foreground classes."""
    tversky_misses: float = 0.7
    """How much missed voxels count in it; false ones count for the rest to 1. At 0.5 it is soft Dice."""
    focal_weight: float = 0.0
    """Weight of the focal loss, a mean over voxels."""
    focal_gamma: float = 2.0
    """Power by which it passes over voxels that are right already; at 0 it is the cross-entropy."""
    boundary_weight: float = 0.0
    """Weight of the boundary loss, a mean over voxels of probability times distance to the boundary in voxels."""
    deep_supervision_weight: float = 0.5
    """Weight of the loss at half resolution, halved again at each coarser one; used where the network offers them."""


@dataclass(frozen=True)
class Train:
    """How long, how much at once, and what is kept."""

    steps: int = 10_000
    """Training steps in all."""
    batch_size: int = 16
    """Stacks a step of one network, over all devices."""
    log_every: int = 20
    """Steps between two lines of the log."""
    validate_every: int = 1000
    """Steps between two scorings of the held-out cases (volume Dice); 0 never does."""
    checkpoint_every: int = 500
    """Steps between two checkpoints; a killed run loses at most these."""
    steps_per_call: int = 0
    """Steps that the device makes before the host looks again, at most those between two lines of the log, scores or
    checkpoints; 0: one on a CPU or where the host gathers the stacks, else up to ten."""
    parallel: Literal["jit", "pmap"] = "jit"
    """How a step is spread over devices: jit over a mesh, or pmap, which only deals out the batch."""
    tracker: Literal["none", "wandb", "mlflow"] = "none"
    """Also log to Weights & Biases or MLflow, each an extra of the package; TensorBoard events are always written."""


@dataclass(frozen=True)
class Postprocess:
    """What is taken out of a mask, by what is known of spines. Every rule is off by default."""

    specks_mm3: float = 0.0
    """Pieces smaller than this are taken out; 0 keeps them."""
    column: bool = False
    """Keep only the discs that a column can pass through, with steps and volumes that neighbours have."""
    lowest: int = 0
    """Keep this many discs of the column from the lowest upwards, and nothing above (IVDM3Seg: 7); 0 keeps all."""

    @property
    def on(self) -> bool:
        """Whether any rule is."""
        return self != Postprocess()


@dataclass(frozen=True)
class Predict:
    """How a volume is segmented."""

    checkpoint: Literal["last", "best"] = "last"
    """Weights to use. The best ones were picked on the held-out cases, so their scores are optimistic there."""
    flip: bool = True
    """Average the probabilities with those of the left-right flipped volume."""
    shifts: int = 0
    """Average also with those of the volume shifted in the plane by two voxels; so many shifts, at most eight: along
    W there and back, along H, then along both."""
    batch_size: int = 8
    """Stacks at once."""
    maps: bool = False
    """Beside the masks write maps of the probability and of the uncertainty."""
    postprocess: Postprocess = field(default_factory=Postprocess)
    """What is then taken out of the mask."""


@dataclass(frozen=True)
class Experiment:
    """Everything a run depends on."""

    name: str
    """Name of the experiment; the default run folder is runs/<name>."""
    model: nn.Module
    """The network."""
    run_dir: Path | None = None
    """Folder of the run; an existing one is resumed."""
    data: Data = field(default_factory=Data)
    """The scans and their samples."""
    augment: Augment = field(default_factory=Augment)
    """Random changes of a training sample."""
    loss: Loss = field(default_factory=Loss)
    """What is minimised."""
    optimizer: Optimizer = field(default_factory=Optimizer)
    """How it is minimised."""
    train: Train = field(default_factory=Train)
    """How long."""
    predict: Predict = field(default_factory=Predict)
    """How a volume is segmented."""
    init_from: Path | None = None
    """Run whose weights training starts from, or `default` for those in the package; None starts from random ones."""
    init_channels: tuple[str, ...] = ()
    """Names that run has for this one's channels, in their order; empty takes the same names."""
    folds: Literal["one", "all"] = "one"
    """Train the network of --data.fold, or, beside each other, those of all folds, so each case is held out once."""
    seeds: int = 1
    """Networks a fold, beside each other, with the seeds seed, seed + 1 and so on; they predict together."""
    seed: int = 0
    """Seed of the weights, the order of the samples and their changes."""

    @property
    def subsets(self) -> bool:
        """Whether the network is told which channels are there, and so takes any subset of them."""
        return self.augment.channel_dropout > 0

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return self.run_dir if self.run_dir is not None else Path("runs") / self.name


def to_dict(value: Any) -> Any:
    """Turn a dataclass (or a Linen module) into what JSON can hold."""
    if dataclasses.is_dataclass(value):
        # A Linen module's parent and name belong to Linen, not to the network's settings.
        linen = ("parent", "name") if isinstance(value, nn.Module) else ()
        named = {f.name: to_dict(getattr(value, f.name)) for f in dataclasses.fields(value) if f.name not in linen}
        return {"network": type(value).__name__, **named} if isinstance(value, nn.Module) else named
    if isinstance(value, tuple | list):
        return [to_dict(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def from_dict(kind: Any, value: Any, where: str) -> Any:
    """Rebuild a value of type `kind` from what `to_dict` made of it.

    Args:
        kind: a dataclass, or the type of one of its fields; a value that is a `kind` already is kept.
        value: as read from JSON.
        where: name of the file and field, for messages.

    Raises:
        DataError: a field is missing, unknown or of another type.
    """
    if isinstance(kind, type) and isinstance(value, kind) and not (kind is int and isinstance(value, bool)):
        return value
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return _dataclass_from_dict(kind, value, where)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is types.UnionType:
        if value is None and type(None) in arguments:
            return None
        return from_dict(next(a for a in arguments if a is not type(None)), value, where)
    if origin is Literal and value in arguments:
        return value
    if origin is tuple and isinstance(value, list):
        kinds = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else arguments
        if len(kinds) == len(value):
            return tuple(from_dict(k, v, where) for k, v in zip(kinds, value, strict=True))
    if kind is Path and isinstance(value, str):
        return Path(value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63:
        return float(value)
    raise DataError(f"{where}: {value!r} is not a {kind}; was it written by another version of ivdjax?")


def _dataclass_from_dict(kind: type, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise DataError(f"{where}: expected the fields of {kind.__name__}, found {value!r}")
    hints = typing.get_type_hints(kind)
    names = [f.name for f in dataclasses.fields(kind) if f.name in value or not issubclass(kind, nn.Module)]
    missing, unknown = sorted(set(names) - set(value)), sorted(set(value) - set(names))
    if missing or unknown:
        wrong = ", ".join([f"no field {n}" for n in missing] + [f"unknown field {n}" for n in unknown])
        raise DataError(f"{where}: {wrong}; was it written by another version of ivdjax?")
    return kind(**{name: from_dict(hints[name], value[name], f"{where}: {name}") for name in names})


def differences(a: Any, b: Any, prefix: str = "") -> list[str]:
    """Name the fields, dotted, in which two nested dicts differ, with both values."""
    if isinstance(a, dict) and isinstance(b, dict):
        keys = dict.fromkeys([*a, *b])
        return [line for k in keys for line in differences(a.get(k), b.get(k), f"{prefix}.{k}" if prefix else k)]
    return [] if a == b else [f"{prefix} was {a!r}, now {b!r}"]
