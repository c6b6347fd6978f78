"""What the pipeline costs: steps with it beside steps on one fixed batch, and its bytes beside a plain copy's."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ivdjax.bench import sizes
from ivdjax.bench.sizes import Sizes
from ivdjax.bench.timing import least, seconds
from ivdjax.config import Data
from ivdjax.data import pipeline, stacks
from ivdjax.data.cache import CachedCase
from ivdjax.data.pipeline import Batch
from ivdjax.data.splits import Member
from ivdjax.training import loop, optimizer, parallel
from ivdjax.training.step import train_step


def measure(measured: Sizes) -> dict[str, float]:
    """Shares of what there would be without a pipeline: `pipeline_resident`, `pipeline_host`, `pipeline_over_memcpy`.

    The first two are steps a second over those on a batch that lies on the device already; the third is the bytes that
    the host's pipeline makes a second over those that NumPy copies between arrays that exist.
    """
    with TemporaryDirectory() as folder:
        cases = _cases(measured, Path(folder))
        taken = least(_loops(measured, cases), max(measured.rounds // 2, 2))
        copied = least(_makings(measured, cases), measured.rounds)
    return {
        "pipeline_resident": taken["fixed"] / taken["resident"],
        "pipeline_host": taken["fixed"] / taken["host"],
        "pipeline_over_memcpy": copied["copy"] / copied["pipeline"],
    }


def _loops(measured: Sizes, cases: list[CachedCase]) -> dict[str, Callable[[], float]]:
    """Training steps as `training.loop` makes them, from each source of batches.

    Steps before those that are timed use up what was made ahead while others were timed.
    """
    experiment, data, steps = measured.experiment, measured.experiment.data, measured.steps
    spread = parallel.spread(experiment.train, 1)
    step = spread.compile(partial(train_step, experiment, optimizer.create(experiment.optimizer, 1000)))
    places = pipeline.places(cases, _members(cases), data, experiment.train.batch_size)
    share = spread.share(experiment.train.batch_size)
    packed = stacks.pack([c.image_ZxHxWxC for c in cases], [c.label_ZxHxW for c in cases], data.slices, data.window)
    volumes = spread.place_volumes(packed)
    host = pipeline.gathered(places, cases, data, share=share)
    fixed = spread.place_batch(loop.together([next(host)]))
    key_F = spread.make(lambda: jnp.stack([jax.random.key(0)]))
    start = spread.make(partial(loop.initial_state, experiment, [0]))

    def loop_over(batches: Iterator[Any], volumes: Any, per_call: int) -> Callable[[], float]:
        state = jax.tree.map(jnp.copy, start)  # a step gives its state's memory away

        def make(steps: int) -> Any:
            nonlocal state
            recent = []
            for _ in range(0, steps, per_call):
                state, metrics = step(state, next(batches), volumes, key_F)
                recent.append(metrics)
                jax.block_until_ready(recent[-3:-2])
            return recent[-1]

        def timing() -> float:
            jax.block_until_ready(make(_made_ahead(data)))
            return seconds(partial(make, steps))

        return timing

    def shipped(iterator: Iterator[Batch], per_call: int) -> Iterator[Any]:
        while True:
            yield spread.place_batch(loop.together([next(iterator) for _ in range(per_call)]))

    per_call = parallel.steps_per_call(experiment.train, on_host=False)
    per_call = per_call if steps % per_call == 0 else 1
    return {
        "fixed": loop_over(iter(lambda: fixed, None), None, 1),
        "resident": loop_over(shipped(pipeline.resident(places, share), per_call), volumes, per_call),
        "host": loop_over(shipped(host, 1), None, 1),
    }


def _makings(measured: Sizes, cases: list[CachedCase]) -> dict[str, Callable[[], float]]:
    """Making of batches, and copies of the same bytes between arrays that are too many for the caches."""
    data = measured.experiment.data
    places = pipeline.places(cases, _members(cases), data, measured.experiment.train.batch_size)
    batches = pipeline.gathered(places, cases, data)
    sources = [next(batches) for _ in range(8)]
    targets = [{name: np.ones_like(array) for name, array in source.items()} for source in sources]

    def make() -> None:
        for _ in range(4 * len(sources)):
            next(batches)

    def copy() -> None:
        for source, target in 4 * list(zip(sources, targets, strict=True)):
            for name, array in source.items():
                np.copyto(target[name], array)

    def timing() -> float:
        for _ in range(_made_ahead(data)):
            next(batches)
        return seconds(make)

    return {"pipeline": timing, "copy": partial(seconds, copy)}


def _made_ahead(data: Data) -> int:
    """More batches than the pipeline makes before they are asked for."""
    return data.threads + 3


def _cases(measured: Sizes, folder: Path) -> list[CachedCase]:
    """Cases of noise with boxes for discs, in memory-mapped files as the cache leaves them."""
    rng = np.random.default_rng(0)
    shape_ZxHxWxC = (*measured.volume, len(measured.experiment.data.channels))
    Z, H, W, _ = shape_ZxHxWxC
    label_ZxHxW = np.zeros((Z, H, W), np.uint8)
    label_ZxHxW[Z // 4 : -Z // 4] = sizes.boxes(H, W)
    noise_ZxHxWxC = rng.standard_normal(shape_ZxHxWxC, np.float32).astype(np.float16) + label_ZxHxW[..., None]
    cases = []
    for number in range(measured.cases):
        for name, array in (("image", np.roll(noise_ZxHxWxC, number, 1)), ("label", label_ZxHxW)):
            np.save(folder / f"{number}_{name}.npy", array)
        image, label = (
            np.load(folder / f"{number}_{name}.npy", mmap_mode="r", allow_pickle=False) for name in ("image", "label")
        )
        cases.append(CachedCase(f"{number:02d}", image, label, (2.0, 1.25, 1.25)))
    return cases


def _members(cases: list[CachedCase]) -> list[Member]:
    return [Member(tuple(range(len(cases))), (), 0)]
