"""One training step as a free, pure function; where and how it runs is `parallel.py`'s business."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from ivdjax.config import Experiment
from ivdjax.data import dataset, pool, stacks
from ivdjax.data.stacks import Volumes
from ivdjax.models import labelled_slices
from ivdjax.models.blocks import COARSE_LOGITS, WHOLE_LOGITS
from ivdjax.training import augment, contrast, losses, optimizer
from ivdjax.training.state import State

Metrics = dict[str, Array]


def train_step(
    experiment: Experiment,
    transform: optax.GradientTransformation,
    state: State,
    batch: dict[str, Array],
    volumes: Volumes | None,
    key: Array,
    total: Callable[[Any], Any] = lambda tree: tree,
) -> tuple[State, Metrics]:
    """Augment a batch, learn from it, and return the next state.

    Args:
        experiment: augmentation, network and loss.
        transform: the optimizer.
        state: before the step; `state.step` counts the steps made.
        batch: sample_B (number of a sample in the whole batch), weight_B (0 leaves a sample out, as padding), and
            place_Bx4, the samples' places in the volumes, or stack_BxKxHxWxC and label_BxLxHxW themselves. With a pool
            of phantoms in the state neither is needed: the pool is renewed and the samples are taken from it.
        volumes: the cases, or None where the batch holds stacks.
        key: of the whole run. Sample j of step t is changed by fold_in(fold_in(key, t), j), so the result depends
            neither on how often a run was resumed nor on how a batch is spread over devices.
        total: sums a tree of arrays over the parts of a batch that is spread; called once.

    Returns:
        The state after the step, and metrics averaged over the batch's samples.
    """
    keys_B = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.fold_in(key, state.step), batch["sample"])
    phantoms = None if state.pool is None else pool.renew(state.pool, key, state.step, experiment.data)
    stack_BxKxHxWxC, label_BxLxHxW = _samples(experiment, phantoms, batch, volumes, keys_B)
    change = jax.vmap(augment.augment, (0, 0, 0, None, None))
    stack_BxKxHxWxC, label_BxLxHxW, present_BxC = change(
        keys_B, stack_BxKxHxWxC, label_BxLxHxW, experiment.augment, experiment.data.channels
    )
    inputs = (stack_BxKxHxWxC, present_BxC) if experiment.subsets else (stack_BxKxHxWxC,)

    def objective(params: dict) -> tuple[Array, Metrics]:
        logits_BxHxWxN, sown = experiment.model.apply(
            {"params": params}, *inputs, mutable=[COARSE_LOGITS[0], WHOLE_LOGITS[0]]
        )
        coarse = _sown(sown, COARSE_LOGITS, ())
        logits_BxLxHxWxN = _sown(sown, WHOLE_LOGITS, logits_BxHxWxN[:, None])
        parts = losses.segmentation_loss(logits_BxLxHxWxN, coarse, label_BxLxHxW, experiment.loss)
        sums = {name: (value_B * batch["weight"]).sum() for name, value_B in parts.items()}
        return sums["loss"], sums

    # Sums over this part of the batch, and once for all over the parts, before anything is divided.
    sums = jax.grad(objective, has_aux=True)(state.params)
    (gradients, metrics), weight = total((sums, batch["weight"].sum()))
    gradients, metrics = jax.tree.map(lambda part: part / weight, (gradients, metrics))
    updates, memory = transform.update(gradients, state.optimizer, state.params)
    params = optax.apply_updates(state.params, updates)
    mean_params = optimizer.update_mean(state.mean_params, params, state.step, experiment.optimizer.ema_decay)
    metrics |= {
        "gradient_norm": optax.tree.norm(gradients),
        "learning_rate": optimizer.schedule(experiment.optimizer, experiment.train.steps)(state.step),
    }
    return State(state.step + 1, params, mean_params, memory, phantoms), metrics


def _samples(
    experiment: Experiment,
    phantoms: pool.Pool | None,
    batch: dict[str, Array],
    volumes: Volumes | None,
    keys_B: Array,
) -> tuple[Array, Array]:
    """The samples of a batch as they are before they are changed, stack_BxKxHxWxC and label_BxLxHxW."""
    K, L = experiment.data.slices, labelled_slices(experiment.model, experiment.data.slices)
    if phantoms is not None:
        return jax.vmap(partial(_image, experiment, phantoms, L))(keys_B)
    if volumes is not None:
        cut = partial(stacks.take, volumes, K=K, window=experiment.data.window, L=L)
        return jax.vmap(cut)(batch["place"])
    return batch["stack"], batch["label"]


def _sown(collections: Mapping[str, Any], where: tuple[str, str], otherwise: Any) -> Any:
    """What a network left in a collection, or something else where it did not."""
    collection, name = where
    return collections.get(collection, {}).get(name, otherwise)


def _image(experiment: Experiment, phantoms: pool.Pool, L: int, key: Array) -> tuple[Array, Array]:
    """One sample of the pool, (stack_KxHxWxC, label_LxHxW), in the experiment's channels."""
    # Of the augmentation's own keys, which are made by splitting, none is that of a number so high.
    taking, imaging = jax.random.split(jax.random.fold_in(key, 2**31 - 1))
    signal, tissue, label_LxHxW = pool.sample(phantoms, taking, experiment.data.slices, L)
    stack_KxHxWx4 = contrast.render(imaging, signal, tissue, experiment.augment)
    columns = jnp.array([dataset.DIXON.index(name) for name in experiment.data.channels])
    return stack_KxHxWx4[..., columns], label_LxHxW
