"""The `ivdjax` command: one short function a verb; and the command line of an experiment module."""

import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console
from rich.progress import track

from ivdjax import files
from ivdjax.config import Data, Experiment, Phantom
from ivdjax.errors import DataError, UsageError

# Each verb imports what it needs when it runs, so that no verb waits for another's packages.


@dataclass(frozen=True)
class PhantomVerb:
    """Draw synthetic cases, laid out as IVDM3Seg lays out its own."""

    out: tyro.conf.Positional[Path]
    """Folder to make."""
    cases: int = Phantom.cases
    """Cases to draw; consecutive pairs are two scans of one subject."""
    seed: int = 0
    """Which cases are drawn."""
    shape: tuple[int, int, int] = Phantom.shape
    """Voxels along Z (right-left), H (superior-inferior), W (anterior-posterior)."""
    spacing_mm: tuple[float, float, float] = Phantom.spacing_mm
    """Voxel size along Z, H, W in mm."""

    def __call__(self) -> int:
        """Do it and return the exit code."""
        from ivdjax.data import phantom

        phantom.write_tree(
            self.out,
            cases=self.cases,
            seed=self.seed,
            shape=self.shape,
            spacing_mm=self.spacing_mm,
            progress=lambda done, of: print(f"\rdrawn {done} of {of}", end="", file=sys.stderr),
        )
        print(f"\n{self.out}: {self.cases} cases", file=sys.stderr)
        return 0


@dataclass(frozen=True)
class CheckVerb:
    """List a folder's cases and all that is wrong with them; exit 0 where they are usable, 1 where not."""

    root: tyro.conf.Positional[Path]
    """Folder with the cases."""
    channels: tuple[str, ...] = Data.channels
    """Names of the images of a case, as in NAME_<channel>.nii.gz."""
    json: Path | None = None
    """Also write what was found to this file."""

    def __call__(self) -> int:
        """Do it and return the exit code."""
        from ivdjax.data import check

        report = check.check(self.root, self.channels)
        check.print_report(report, Console())
        if self.json is not None:
            files.write_json(self.json, report.to_json())
        return int(bool(report.problems))


@dataclass(frozen=True)
class PredictVerb:
    """Segment a case or a tree of cases with a trained run, or with the weights in the package.

    ivdjax predict RUN INPUT OUT, or ivdjax predict --weights default INPUT OUT. Masks lie on the grids of the images.
    """

    paths: tyro.conf.Positional[tuple[Path, ...]]
    """Folder of the run (not with --weights); folder of a case, or of many; folder for <case>.nii.gz, where existing
    masks of the same name are replaced."""
    weights: Path | None = None
    """Weights in place of a run: `default`, those that come with the package, or a folder of released ones."""
    channels: tuple[str, ...] = ()
    """Images to use, of those the run was trained with. By default all of them, or, where the run was trained with
    --augment.channel-dropout and so takes any set, those that the cases have."""
    checkpoint: Literal["last", "best"] | None = None
    """Weights to use; as the run's configuration says by default."""

    def __call__(self) -> int:
        """Do it and return the exit code."""
        from ivdjax import run
        from ivdjax.data import dataset
        from ivdjax.inference import weights

        *runs, source, out = self.paths if len(self.paths) > 1 else (None, None, None)
        if len(runs) != (self.weights is None) or out is None:
            raise UsageError("predict: name a run, the input and the output; with --weights the last two alone")
        trained = run.load(weights.find(self.weights) if self.weights is not None else runs[0], self.checkpoint)
        channels = self.channels or trained.channels_in(source)
        trained.accept(channels)
        cases = dataset.discover(source, channels)
        for case in track(cases, "predicting", console=Console(stderr=True)):
            trained.predict(case, out / f"{case.name}.nii.gz", channels)
        print(f"{out}: {len(cases)} mask(s), from {', '.join(channels)}", file=sys.stderr)
        return 0


@dataclass(frozen=True)
class EvaluateVerb:
    """Score masks, any tool's, by the challenge's rules; writes scores.csv and scores.json."""

    predictions: tyro.conf.Positional[Path]
    """Folder of <case>.nii.gz, or one mask."""
    references: tyro.conf.Positional[Path]
    """Tree of cases, folder of masks, or one mask."""
    out: Path = Path("scores")
    """Folder for the scores."""
    label_grid: Literal["refuse", "voxels", "header"] = "refuse"
    """A reference whose header disagrees with its prediction: refuse it, trust its voxels, or resample it."""

    def __call__(self) -> int:
        """Do it and return the exit code."""
        from ivdjax.evaluation import evaluate

        summary = evaluate.evaluate(self.predictions, self.references, self.out, label_grid=self.label_grid)
        for line in summary.warnings:
            print(line, file=sys.stderr)
        for name, value in summary.estimates.items():
            spread = "" if value.std is None else f" +- {value.std:.3f} over cases"
            print(f"{name:12} {value.mean:.3f}{spread}")
        print(f"discs found  {summary.discs_found} of {summary.discs}, false discs {summary.false_discs}")
        print(f"scores in {self.out / 'scores.csv'} and {self.out / 'scores.json'}")
        return 0


def main() -> None:
    """Run the `ivdjax` command."""
    _exit(lambda: tyro.cli(_Verb, prog="ivdjax", description="Intervertebral discs in Dixon MRI.")())


_Verb = (
    Annotated[PhantomVerb, tyro.conf.subcommand("phantom")]
    | Annotated[CheckVerb, tyro.conf.subcommand("check")]
    | Annotated[PredictVerb, tyro.conf.subcommand("predict")]
    | Annotated[EvaluateVerb, tyro.conf.subcommand("evaluate")]
)


def experiment(default: Experiment, module_doc: str) -> None:
    """Run an experiment module's default, changed as the command line says."""

    def command() -> int:
        from ivdjax import run

        run.run(tyro.cli(Experiment, default=default, description=module_doc))
        return 0

    _exit(command)


def _exit(command: Callable[[], int]) -> None:
    """Exit with the command's code; bad data is one line on stderr and 1, wrong use one line and 2."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    # Their notes on every save would drown the run's own lines.
    for noisy in ("absl", "orbax", "jax"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    try:
        code = command()
    except (DataError, UsageError) as error:
        print(f"ivdjax: {error}", file=sys.stderr)
        code = 2 if isinstance(error, UsageError) else 1
    except KeyboardInterrupt:
        print("ivdjax: stopped; the same command goes on from the last checkpoint", file=sys.stderr)
        code = 130
    sys.exit(code)
