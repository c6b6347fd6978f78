"""What an ablation is: its variants, where each lies, what differs from the base, and how far it is."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ivdjax import config
from ivdjax.config import Experiment
from ivdjax.errors import UsageError

Variants = Callable[[Experiment], Mapping[str, Experiment]]
"""From a base to experiments by name, each a `replace` of it; exactly one is the base itself."""


@dataclass(frozen=True)
class Variant:
    """One experiment of an ablation."""

    name: str
    """Its name, and that of its folder."""
    experiment: Experiment
    """With its own folder, and the cache that it shares with the others."""
    changes: tuple[str, ...]
    """What differs from the base, as in `data.slices 3`; none for the base."""

    @property
    def folder(self) -> Path:
        """Where its run is: its own folder, or the newest whole copy that `launch/mirrored.sh` left in its place."""
        copies = [path for path in self.experiment.folder.glob("[ab].complete") if path.read_text().strip()]
        if not copies:
            return self.experiment.folder
        return max(copies, key=lambda path: int(path.read_text())).with_suffix("")

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do."""
        return (self.folder / "report.html").exists()

    @property
    def state(self) -> str:
        """How far it is, in words."""
        if self.finished:
            return "finished"
        steps = [int(path.name) for path in (self.folder / "checkpoints").glob("[0-9]*") if path.name.isdecimal()]
        return f"step {max(steps)} of {self.experiment.train.steps}" if steps else "not begun"


@dataclass(frozen=True)
class Plan:
    """An ablation with all that its command line said."""

    name: str
    """Of the ablation, that of its module."""
    base: Experiment
    """What the variants differ from; its folder is that of the ablation."""
    variants: tuple[Variant, ...]
    """In the module's order."""

    @property
    def folder(self) -> Path:
        """Where variants, table and figure are."""
        return self.base.folder

    @property
    def base_variant(self) -> Variant:
        """The variant that all others are compared with."""
        return next(variant for variant in self.variants if not variant.changes)

    def choose(self, names: Sequence[str]) -> tuple[Variant, ...]:
        """The variants of these names, in the plan's order; all where none is named.

        Raises:
            UsageError: an unknown name.
        """
        known = [variant.name for variant in self.variants]
        if unknown := [name for name in names if name not in known]:
            raise UsageError(f"{self.name} has no variant {', '.join(unknown)}; it has {', '.join(known)}")
        return tuple(variant for variant in self.variants if not names or variant.name in names)


def plan(name: str, variants: Variants, base: Experiment) -> Plan:
    """Lay an ablation out in the folder of its base.

    Raises:
        UsageError: not exactly one of the variants is the base.
    """
    named = {variant: _without_place(experiment) for variant, experiment in variants(base).items()}
    plain = _without_place(base)
    if sum(experiment == plain for experiment in named.values()) != 1 or len(named) < 2:
        raise UsageError(
            f"{name}: with this base there is nothing to compare: it makes {', '.join(named) or 'nothing'}"
        )
    laid = []
    for variant, experiment in named.items():
        changes = tuple(changed(config.to_dict(plain), config.to_dict(experiment)))
        data = replace(experiment.data, cache=_cache(base, experiment))
        own = replace(experiment, name=variant, run_dir=base.folder / variant, data=data)
        laid.append(Variant(variant, own, changes))
    return Plan(name, base, tuple(laid))


def changed(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Fields of nested dicts that differ, dotted, with their new values; of another network only its name."""
    if old.get("network") != new.get("network"):
        return [f"{prefix.removesuffix('.')} {new.get('network')}"]
    lines = []
    for key in new:
        if isinstance(old.get(key), dict) and isinstance(new[key], dict):
            lines += changed(old[key], new[key], f"{prefix}{key}.")
        elif old.get(key) != new[key]:
            lines.append(f"{prefix}{key} {_words(new[key])}")
    return lines


def _words(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _without_place(experiment: Experiment) -> Experiment:
    return replace(experiment, name="", run_dir=None)


def _cache(base: Experiment, experiment: Experiment) -> Path:
    """A folder for the arrays of all variants that take the same; others would make them anew in turns."""
    data = experiment.data
    made_from = repr((data.clip_percentiles, data.label_grid, data.phantom if data.root is None else data.root))
    digest = hashlib.sha256(made_from.encode()).hexdigest()[:6]
    root = base.data.cache if base.data.cache is not None else base.folder / "cache"
    return (root / f"{'-'.join(data.channels)}-{digest}").resolve()
