"""One training step as a free, pure function; where and how it runs is `parallel.py`'s business."""

from functools import partial

import jax
import jax.numpy as jnp
import optax
from jax import Array

from ivdjax.config import Experiment
from ivdjax.data import dataset, pool
from ivdjax.models.unet import COARSE_LOGITS
from ivdjax.training import augment, contrast, losses, optimizer
from ivdjax.training.state import State

Metrics = dict[str, Array]


def train_step(
    experiment: Experiment, transform: optax.GradientTransformation, state: State, batch: dict[str, Array], key: Array
) -> tuple[State, Metrics]:
    """Augment a batch, learn from it, and return the next state.

    Args:
        experiment: augmentation, network and loss.
        transform: the optimizer.
        state: before the step; `state.step` counts the steps made.
        batch: stack_BxKxHxWxC, label_BxHxW and weight_B (0 leaves a sample out, as padding). With a pool of phantoms
            in the state, weight_B is enough: the pool is renewed and the samples are taken from it.
        key: of the whole run. Sample j of step t is changed by fold_in(fold_in(key, t), j), so the result depends
            neither on how often a run was resumed nor on how a batch is spread over devices.

    Returns:
        The state after the step, and metrics averaged over the batch's samples.
    """
    samples_B = jnp.arange(batch["weight"].shape[0])
    keys_B = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.fold_in(key, state.step), samples_B)
    phantoms = state.pool
    if phantoms is not None:
        phantoms = pool.renew(phantoms, key, state.step, experiment.data)
        stack_BxKxHxWxC, label_BxHxW = jax.vmap(partial(_image, experiment, phantoms))(keys_B)
    else:
        stack_BxKxHxWxC, label_BxHxW = batch["stack"], batch["label"]
    change = jax.vmap(augment.augment, (0, 0, 0, None, None))
    stack_BxKxHxWxC, label_BxHxW, present_BxC = change(
        keys_B, stack_BxKxHxWxC, label_BxHxW, experiment.augment, experiment.data.channels
    )
    inputs = (stack_BxKxHxWxC, present_BxC) if experiment.subsets else (stack_BxKxHxWxC,)

    def objective(params: dict) -> tuple[Array, Metrics]:
        collection, name = COARSE_LOGITS
        logits_BxHxWxN, sown = experiment.model.apply({"params": params}, *inputs, mutable=[collection])
        coarse = sown.get(collection, {}).get(name, ())
        parts = losses.segmentation_loss(logits_BxHxWxN, coarse, label_BxHxW, experiment.loss)
        weight_B = batch["weight"]
        means = {name: (value_B * weight_B).sum() / weight_B.sum() for name, value_B in parts.items()}
        return means["loss"], means

    gradients, metrics = jax.grad(objective, has_aux=True)(state.params)
    updates, memory = transform.update(gradients, state.optimizer, state.params)
    params = optax.apply_updates(state.params, updates)
    mean_params = optimizer.update_mean(state.mean_params, params, state.step, experiment.optimizer.ema_decay)
    metrics |= {
        "gradient_norm": optax.tree.norm(gradients),
        "learning_rate": optimizer.schedule(experiment.optimizer, experiment.train.steps)(state.step),
    }
    return State(state.step + 1, params, mean_params, memory, phantoms), metrics


def _image(experiment: Experiment, phantoms: pool.Pool, key: Array) -> tuple[Array, Array]:
    """One sample of the pool, (stack_KxHxWxC, label_HxW), in the experiment's channels."""
    # Of the augmentation's own keys, which are made by splitting, none is that of a number so high.
    taking, imaging = jax.random.split(jax.random.fold_in(key, 2**31 - 1))
    signal, tissue, label_HxW = pool.sample(phantoms, taking, experiment.data.slices)
    stack_KxHxWx4 = contrast.render(imaging, signal, tissue, experiment.augment)
    columns = jnp.array([dataset.DIXON.index(name) for name in experiment.data.channels])
    return stack_KxHxWx4[..., columns], label_HxW
