"""AdamW with warm-up and cosine decay, and the running mean of the weights."""

import jax
import jax.numpy as jnp
import optax
from jax import Array

from ivdjax.config import Optimizer
from ivdjax.training.state import Params


def schedule(config: Optimizer, steps: int) -> optax.Schedule:
    """Learning rate by step: linear from zero, then a cosine to zero at `steps` (Loshchilov 2017, arXiv:1608.03983)."""
    warmup = min(config.warmup_steps, steps // 10)
    return optax.warmup_cosine_decay_schedule(0.0, config.learning_rate, warmup, max(steps, 1))


def create(config: Optimizer, steps: int) -> optax.GradientTransformation:
    """AdamW (Loshchilov 2019, arXiv:1711.05101) on gradients clipped by their global norm; only kernels decay."""
    return optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        optax.adamw(schedule(config, steps), weight_decay=config.weight_decay, mask=_kernels),
    )


def update_mean(mean_params: Params, params: Params, step: Array, decay: float) -> Params:
    """Exponential mean of the weights; its decay starts low, so the first weights are soon forgotten."""
    decay = jnp.minimum(decay, (1.0 + step) / (10.0 + step))
    return jax.tree.map(lambda mean, new: mean + (1.0 - decay) * (new - mean), mean_params, params)


def _kernels(params: Params) -> dict[str, bool]:
    return jax.tree.map(lambda p: p.ndim > 1, params)
