"""One training step as a free, pure function; where and how it runs is `parallel.py`'s business."""

import jax
import jax.numpy as jnp
import optax
from jax import Array

from ivdjax.config import Experiment
from ivdjax.models.unet import COARSE_LOGITS
from ivdjax.training import augment, losses, optimizer
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
        batch: stack_BxKxHxWxC, label_BxHxW and weight_B (0 leaves a sample out, as padding).
        key: of the whole run. Sample j of step t is changed by fold_in(fold_in(key, t), j), so the result depends
            neither on how often a run was resumed nor on how a batch is spread over devices.

    Returns:
        The state after the step, and metrics averaged over the batch's samples.
    """
    samples_B = jnp.arange(batch["weight"].shape[0])
    keys_B = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.fold_in(key, state.step), samples_B)
    change = jax.vmap(augment.augment, (0, 0, 0, None))
    stack_BxKxHxWxC, label_BxHxW = change(keys_B, batch["stack"], batch["label"], experiment.augment)

    def objective(params: dict) -> tuple[Array, Metrics]:
        collection, name = COARSE_LOGITS
        logits_BxHxWxN, sown = experiment.model.apply({"params": params}, stack_BxKxHxWxC, mutable=[collection])
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
    return State(state.step + 1, params, mean_params, memory), metrics
