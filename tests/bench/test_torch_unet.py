import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ivdjax.bench import sizes, step
from ivdjax.models import UNet
from ivdjax.models.blocks import COARSE_LOGITS
from ivdjax.training import losses

torch = pytest.importorskip("torch", exc_type=ImportError)


@pytest.fixture
def setting(tiny):
    """An experiment, a batch, and random weights: also those that start as zeros or ones."""
    experiment = dataclasses.replace(
        tiny.experiment, model=UNet(features=(4, 8, 12), decoder_depth=2, deep_supervision=True)
    )
    params = jax.eval_shape(lambda: step.initial_state(experiment).params)
    rng = np.random.default_rng(1)
    params = jax.tree.map(lambda p: (p.ndim < 2) + 0.2 * rng.standard_normal(p.shape, np.float32), params)
    return experiment, params, sizes.fixed_batch(experiment)


def test_the_same_weights_give_the_same_logits_and_gradients(setting):
    from ivdjax.bench import torch_unet

    experiment, params, batch = setting
    collection, name = COARSE_LOGITS

    def loss(params):
        logits_BxHxWxN, sown = experiment.model.apply({"params": params}, batch["stack"], mutable=[collection])
        coarse = sown[collection][name]
        value = losses.segmentation_loss(logits_BxHxWxN[:, None], coarse, jnp.asarray(batch["label"]), experiment.loss)[
            "loss"
        ]
        return value.mean(), [logits_BxHxWxN, *(each[:, 0] for each in coarse)]

    (value, wanted), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)

    network = torch_unet.TorchUNet(experiment.model, batch["stack"].shape[1] * batch["stack"].shape[-1])
    network.load(params)
    placed = torch_unet.place(batch, torch.device("cpu"), torch.contiguous_format)
    logits_BxNxHxW, coarse = network(placed["stack"])
    for ours_BxHxWxN, theirs_BxNxHxW in zip(wanted, [logits_BxNxHxW, *coarse], strict=True):
        theirs_BxHxWxN = theirs_BxNxHxW.detach().numpy().transpose(0, 2, 3, 1)
        np.testing.assert_allclose(ours_BxHxWxN, theirs_BxHxWxN, rtol=1e-3, atol=1e-4)

    their_loss = torch_unet.loss_of(network, placed, experiment.loss)
    their_loss.backward()
    assert their_loss.item() == pytest.approx(float(value), rel=1e-5)
    # A network that holds our gradients for weights has them in PyTorch's layout.
    holder = torch_unet.TorchUNet(experiment.model, batch["stack"].shape[1] * batch["stack"].shape[-1])
    holder.load(jax.device_get(gradients))
    for ours, theirs in zip(holder.parameters(), network.parameters(), strict=True):
        largest = float(ours.detach().abs().max())
        np.testing.assert_allclose(ours.detach().numpy(), theirs.grad.numpy(), rtol=1e-2, atol=1e-3 * largest)


def test_a_step_learns(setting):
    from ivdjax.bench import torch_unet

    experiment, params, batch = setting
    call = torch_unet.train_step(experiment, params, batch)
    values = [call() for _ in range(20)]
    assert values[-1] < 0.9 * values[0]
