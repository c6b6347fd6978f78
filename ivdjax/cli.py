"""The `ivdjax` command: one short function a verb."""

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console

from ivdjax import __version__, command_line, files, limits, parsing, progress, stopping
from ivdjax.config import Data, Phantom
from ivdjax.errors import UsageError
from ivdjax.evaluation.verbs import EvaluateVerb, MeasureVerb
from ivdjax.exchange import verbs

# Each verb imports what it needs when it runs, so that no verb waits for another's packages.


@dataclass(frozen=True)
class PhantomVerb:
    """Draw synthetic cases, laid out as IVDM3Seg lays out its own."""

    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
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

        limits.check_phantom(Phantom(self.cases, self.seed, self.shape, self.spacing_mm))
        files.writable(self.out.parent)
        command_line.need_devices()
        with progress.bar("drawing") as advance:
            phantom.write_tree(
                self.out,
                cases=self.cases,
                seed=self.seed,
                shape=self.shape,
                spacing_mm=self.spacing_mm,
                progress=advance,
            )
        print(f"{self.out}: {self.cases} cases", file=sys.stderr)
        return 0


@dataclass(frozen=True)
class CheckVerb:
    """List a folder's cases and all that is wrong with them; exit 0 where they are usable, 1 where not."""

    root: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="ROOT")]
    """Folder with the cases."""
    channels: tuple[str, ...] = Data.channels
    """Names of the images of a case, as in NAME_<channel>.nii.gz."""
    json: Path | None = None
    """Also write what was found to this file."""

    def __call__(self) -> int:
        """Do it and return the exit code."""
        from ivdjax.data import check

        if self.json is not None:
            files.named(self.json, ".json", "the report")
        report = check.check(self.root, self.channels)
        # The folder is then for an experiment; what else there is to say is said of its settings.
        report.problems = [problem.replace("--data.channels", "--channels") for problem in report.problems]
        check.print_report(report, Console())
        if self.json is not None:
            files.write_json(self.json, report.to_json())
        return int(bool(report.problems))


@dataclass(frozen=True)
class PredictVerb:
    """Segment a case or a tree of cases with a trained run, or with the weights in the package.

    ivdjax predict RUN INPUT OUT, or ivdjax predict --weights default INPUT OUT. Masks lie on the grids of the images.
    """

    paths: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN INPUT OUT")]
    """Folder of the run (not with --weights); folder of a case, or of many; folder for <case>.nii.gz, where existing
    masks of the same name, and their maps, are replaced."""
    weights: Path | None = None
    """Weights in place of a run: `default`, those that come with the package, or a folder of released ones."""
    channels: tuple[str, ...] = ()
    """Images to use, of those the run was trained with. By default all of them, or, where the run was trained with
    --augment.channel-dropout and so takes any set, those that the cases have."""
    checkpoint: Literal["last", "best"] | None = None
    """Which of the run's weights to use; as its configuration says by default, as do the settings below."""
    shifts: int | None = None
    """Average over so many small shifts of the volume, too; at most eight."""
    maps: bool = False
    """Also write maps of the probability and the uncertainty to OUT/maps, and the confidence in each disc to
    OUT/confidence.csv."""
    specks_mm3: float | None = None
    """Take out pieces of the mask smaller than this; 0 keeps them."""
    column: tyro.conf.FlagCreatePairsOff[bool] = False
    """Keep only the discs that a column can pass through."""
    no_column: tyro.conf.FlagCreatePairsOff[bool] = False
    """Keep the others, too."""
    lowest: int | None = None
    """Keep this many discs of the column from the lowest upwards, and nothing above; 0 keeps all."""

    def __call__(self) -> int:
        """Do it and return the exit code."""
        from ivdjax import trained
        from ivdjax.inference import confidence, weights

        folder, source, out = self._places()
        if not (folder / "config.json").exists() and (source / "config.json").exists():
            raise UsageError(f"predict: {source} is a run's folder and {folder} is not; RUN comes first, then INPUT")
        command_line.need_devices()
        networks = trained.load(weights.find(folder) if self.weights is not None else folder, self.checkpoint)
        networks = networks.told(**self._told())
        channels = self.channels or networks.channels_in(source)
        networks.accept(channels)
        cases, sure, odd, learnt = networks.cases_in(source, channels), {}, {}, []
        files.not_within(out, source)
        files.not_of_run(out)
        if any(files.same(out, image.parent) for case in cases for image in case.images):
            raise UsageError(f"{out}: holds the images; name another folder for the masks")
        files.writable(out)
        with progress.bar("predicting") as advance:
            for done, case in enumerate(cases, start=1):
                found = networks.predict(case, out / f"{case.name}.nii.gz", channels)
                if fault := networks.unlike(found.spacing_mm):
                    odd[case.name] = fault
                if networks.learnt(case):
                    learnt.append(case.name)
                if self.maps:
                    sure[case.name] = found.confidence()
                advance(done, len(cases))
        if self.maps:
            files.write_text(out / "confidence.csv", confidence.to_csv(sure))
        else:
            files.remove(out / "confidence.csv")  # of masks that are no more
        if learnt:
            print(
                f"the network learnt from {', '.join(learnt)}: scores of these masks say nothing of new scans",
                file=sys.stderr,
            )
        if odd:
            name, fault = next(iter(odd.items()))
            print(f"case {name}{f' and {len(odd) - 1} more' if len(odd) > 1 else ''}: {fault}", file=sys.stderr)
        print(f"{out}: {len(cases)} mask(s), from {', '.join(channels)}", file=sys.stderr)
        return 0

    def _places(self) -> tuple[Path, Path, Path]:
        """Where the networks are, where the images, and where the masks go."""
        if self.weights is not None and self.checkpoint is not None:
            raise UsageError("--checkpoint: is one of a run's; --weights has no others to choose from: leave it out")
        if self.column and self.no_column:
            raise UsageError("--column and --no-column: choose one")
        places = self.paths if self.weights is None else (self.weights, *self.paths)
        if len(places) == 3:
            if places[2].name.endswith((".nii", ".nii.gz")):
                raise UsageError(f"{places[2]}: OUT is a folder, in which each mask is called after its case; name one")
            return places
        named = "INPUT OUT, and no run, since there is --weights" if self.weights is not None else "RUN INPUT OUT"
        swallowed = f", before --channels, which took {' '.join(self.channels)}" if self.channels else ""
        raise UsageError(
            f"predict: needs {named}{swallowed}; there {'is' if len(self.paths) == 1 else 'are'} {len(self.paths)}"
            f"{': ' * bool(self.paths)}{' '.join(map(str, self.paths))}; see `ivdjax predict --help`"
        )

    def _told(self) -> dict[str, object]:
        """Settings of prediction that were given, by the names that `Trained.told` knows."""
        given = {name: getattr(self, name) for name in ("shifts", "specks_mm3", "lowest")}
        column = self.column if self.column or self.no_column else None
        return {"maps": self.maps or None, "column": column, **given}


@dataclass(frozen=True)
class ReportVerb:
    """Write the page about a finished run again, or one page that compares two or more."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN...")]
    """Folders of runs. One: the page about it; its scans are read from where they were."""
    out: Path | None = None
    """The page to write; by default report.html in the folder of the one run, or comparison.html here, in which
    differences are those of a later run to an earlier one."""

    def __call__(self) -> int:
        """Do it and return the exit code."""
        if not self.runs:
            raise UsageError("report: needs the folder of a run, or of several to compare")
        if len(self.runs) == 1:
            from ivdjax import run

            command_line.need_devices()
            if self.out is not None:
                files.named(self.out, ".html", "the page")
            out = run.write_report(self.runs[0], self.out)
        else:
            from ivdjax.evaluation import compare

            out = self.out if self.out is not None else Path("comparison.html")
            files.named(out, ".html", "the page")
            compare.write_comparison(self.runs, out)
        print(f"Look at {out}.")
        return 0


@dataclass(frozen=True)
class ReleaseVerb:
    """Write a run's weights to a folder of their own, to pass on: `ivdjax predict --weights OUT` takes it.

    With them go the settings, but no name of a case and no path of yours.
    """

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder of the run."""
    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """Folder to make."""
    checkpoint: Literal["last", "best"] | None = None
    """Which of the run's weights; as its configuration says by default."""

    def __call__(self) -> int:
        """Do it and return the exit code."""
        from ivdjax import trained

        command_line.need_devices()
        trained.release(self.run, self.out, self.checkpoint)
        print(
            f"{self.out}: the weights of {self.run}; say beside them on whose scans they were trained", file=sys.stderr
        )
        return 0


@dataclass(frozen=True)
class ExportVerb:
    """Write a run's networks as one file of StableHLO, which jax runs without ivdjax on CPUs, CUDA and TPUs."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder of the run, or of released weights; `default`: the weights that come with the package."""
    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """Folder to make."""
    checkpoint: Literal["last", "best"] | None = None
    """Which of the run's weights; as its configuration says by default."""

    def __call__(self) -> int:
        """Do it and return the exit code."""
        from ivdjax import trained
        from ivdjax.inference import export, weights

        command_line.need_devices()
        networks = trained.load(weights.find(self.run), self.checkpoint)
        export.write(self.out, networks.experiment, networks.params)
        print(f"{self.out}: {export.FILE}, and what it takes in {export.CARD}", file=sys.stderr)
        return 0


@dataclass(frozen=True)
class BenchVerb:
    """Measure how fast this machine trains and predicts; minutes, in which it should have little else to do."""

    json: Path | None = None
    """Also write the figures to this file."""

    def __call__(self) -> int:
        """Do it and return the exit code."""
        from ivdjax import memory
        from ivdjax.bench import report

        if self.json is not None:
            files.named(self.json, ".json", "the figures")
        memory.keep_freed()
        result = report.run()
        if self.json is not None:
            files.write_json(self.json, result)
        return 0


CONVERT = {"spider": verbs.FromSpider, "nnunet": verbs.FromNnunet, "to-nnunet": verbs.ToNnunet}

VERBS = {
    "phantom": PhantomVerb,
    "check": CheckVerb,
    "predict": PredictVerb,
    "evaluate": EvaluateVerb,
    "measure": MeasureVerb,
    "convert": CONVERT,
    "report": ReportVerb,
    "release": ReleaseVerb,
    "export": ExportVerb,
    "bench": BenchVerb,
}

_ABOUT = {
    "ivdjax": "Intervertebral discs in Dixon MRI.",
    "ivdjax convert": "Another tool's folder to a tree of cases, or a tree to another tool's; nothing is resampled.",
}


def main() -> None:
    """Run the `ivdjax` command."""
    words = [_shorter(word) if word.startswith("--") else word for word in sys.argv[1:]]
    command_line.end(lambda: _command(words)(), _shorter, stopping.leave)


def _shorter(text: str) -> str:
    """A text in which options have the names of verbs: what an experiment calls --data.channels is --channels here."""
    return re.sub(r"--(data|predict)\.(phantom\.|postprocess\.)?", "--", text)


def _command(words: Sequence[str], known: Mapping[str, Any] = VERBS, prog: str = "ivdjax") -> Callable[[], int]:
    """The verb that a command line names, with what it says."""
    if not words:
        raise UsageError(f"say what to do: {', '.join(known)}; see `{prog} --help`")
    first, *rest = words
    if first in ("-h", "--help"):
        print(_verbs(prog, known))
        sys.exit(0)
    if first == "--version":
        print(f"ivdjax {__version__}")
        sys.exit(0)
    if first not in known:
        meant = parsing.nearest(first, list(known))
        raise UsageError(f"{first}: is none of {', '.join(known)}{meant}; see `{prog} --help`")
    if first in CONVERT or first != "convert":
        return parsing.parse(known[first], rest, prog=f"{prog} {first}")
    return _command(rest, CONVERT, f"{prog} {first}")


def _verbs(prog: str, known: Mapping[str, Any]) -> str:
    """What there is to do, a line each."""
    width = max(map(len, known))
    about = {name: _ABOUT[f"{prog} {name}"] if name == "convert" else kind.__doc__ for name, kind in known.items()}
    lines = [f"  {name:{width}}  {' '.join(text.split(chr(10) * 2)[0].split())}" for name, text in about.items()]
    return "\n".join([f"usage: {prog} VERB ...", "", _ABOUT[prog], "", *lines, "", f"{prog} VERB --help tells more."])
