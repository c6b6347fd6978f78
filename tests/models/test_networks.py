"""What holds for every network: one signature, every slice counts, half precision, compilation for TPU, learning."""

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ivdjax import models
from ivdjax.config import Loss
from ivdjax.data import phantom
from ivdjax.models.blocks import COARSE_LOGITS, WHOLE_LOGITS
from ivdjax.training import losses

NETWORKS = {
    "UNet": models.UNet(features=(8, 16, 24)),
    "ResidualUNet": models.ResidualUNet(features=(8, 16, 24), blocks=(1, 1, 2)),
    "IVDNet": models.IVDNet(features=(4, 8)),
    "SliceAttentionUNet": models.SliceAttentionUNet(features=(8, 16, 24), heads=2),
    "UNet3D": models.UNet3D(features=(8, 16, 24)),
}
every = pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)


def stack(*shape, seed=0):
    return jax.random.normal(jax.random.key(seed), shape or (2, 3, 14, 18, 2))


def params_of(network, stack_BxKxHxWxC, *present):
    """Random weights as large as those of `init`, whose many small random draws take long to compile."""
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        if path[-1].key == "kernel" and "flags" not in str(path):
            return rng.normal(0, leaf.size**-0.5 * leaf.shape[-1] ** 0.5, leaf.shape).astype(np.float32)
        return np.full(leaf.shape, path[-1].key == "scale", np.float32)

    shapes = jax.eval_shape(network.init, jax.random.key(0), stack_BxKxHxWxC, *present)["params"]
    return jax.tree_util.tree_map_with_path(draw, shapes)


def test_every_network_of_the_package_is_tested():
    kinds = {name for name in dir(models) if isinstance(getattr(models, name), type)}
    assert kinds == set(NETWORKS)


@every
def test_the_centre_slice_depends_on_every_slice_and_channel_of_its_own_stack(network):
    stack_BxKxHxWxC = stack(2, 5, 16, 16, 2)
    params = params_of(network, stack_BxKxHxWxC)

    @jax.jit
    def gradient(x):
        return jax.grad(lambda x: jnp.square(network.apply({"params": params}, x)[0]).sum())(x)

    share_BxKxC = np.abs(gradient(stack_BxKxHxWxC)).sum((2, 3))
    assert (share_BxKxC[0] > 1e-4).all()
    assert (share_BxKxC[1] == 0).all()


@every
@pytest.mark.parametrize("size", [(14, 18), (16, 16)])
def test_logits_have_the_size_of_the_slice_whatever_it_is(network, size):
    stack_BxKxHxWxC = jax.ShapeDtypeStruct((2, 3, *size, 2), jnp.float32)
    params = jax.eval_shape(network.init, jax.random.key(0), stack_BxKxHxWxC)
    logits = jax.eval_shape(network.apply, params, stack_BxKxHxWxC)
    assert logits.shape == (2, *size, 2)
    assert logits.dtype == jnp.float32


@every
def test_half_precision_computes_about_the_same_with_float32_parameters(network):
    stack_BxKxHxWxC = stack()
    half = network.clone(dtype="bfloat16")
    params = params_of(half, stack_BxKxHxWxC)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    full = jax.jit(network.apply)({"params": params}, stack_BxKxHxWxC)
    error = np.abs(jax.jit(half.apply)({"params": params}, stack_BxKxHxWxC) - full)
    assert 0 < error.mean() < 0.05 * np.abs(full).mean() + 0.02


@every
def test_it_lowers_for_tpu_and_gpu_with_its_gradients_in_half_precision(network):
    half = network.clone(dtype="bfloat16")
    stack_BxKxHxWxC = jax.ShapeDtypeStruct((2, 3, 16, 16, 2), jnp.float32)
    params = jax.eval_shape(half.init, jax.random.key(0), stack_BxKxHxWxC)
    step = jax.jit(jax.grad(lambda params, x: jnp.square(half.apply(params, x)).sum()))
    lowered = jax.export.export(step, platforms=["tpu", "cuda"])(params, stack_BxKxHxWxC)
    assert "bf16" in lowered.mlir_module()


@every
def test_flags_of_absent_channels_change_the_answer_once_they_are_learnt(network):
    stack_BxKxHxWxC, present_BxC = stack(1, 3, 16, 16, 2), jnp.array([[1.0, 0.0]])
    params = params_of(network, stack_BxKxHxWxC, present_BxC)
    answer = jax.jit(network.apply)  # compiled once: the weights' shapes stay
    learnt = jax.tree_util.tree_map_with_path(lambda path, leaf: leaf + ("flags" in str(path)), params)
    for each, same in ((params, True), (learnt, False)):
        first, second = (answer({"params": each}, stack_BxKxHxWxC, flags) for flags in (present_BxC, jnp.ones((1, 2))))
        assert np.allclose(first, second, atol=1e-6) == same


def test_a_3d_network_offers_the_logits_of_all_slices_and_its_own_of_the_centre():
    network, stack_BxKxHxWxC = NETWORKS["UNet3D"], stack()
    params = params_of(network, stack_BxKxHxWxC)
    logits_BxHxWxN, sown = network.apply({"params": params}, stack_BxKxHxWxC, mutable=[WHOLE_LOGITS[0]])
    whole_BxKxHxWxN = sown[WHOLE_LOGITS[0]][WHOLE_LOGITS[1]]
    assert whole_BxKxHxWxN.shape == (2, 3, 14, 18, 2)
    np.testing.assert_array_equal(whole_BxKxHxWxN[:, 1], logits_BxHxWxN)
    assert [models.labelled_slices(each, 3) for each in NETWORKS.values()] == [1, 1, 1, 1, 3]


@pytest.mark.parametrize("name", ["ResidualUNet", "SliceAttentionUNet", "UNet3D"])
def test_deep_supervision_offers_coarser_logits_finest_first(name):
    network = NETWORKS[name].clone(deep_supervision=True, features=(4, 8, 8), **({"heads": 2} if "Att" in name else {}))
    stack_BxKxHxWxC = jax.ShapeDtypeStruct((2, 3, 14, 18, 2), jnp.float32)
    _, sown = jax.eval_shape(lambda x: network.init_with_output(jax.random.key(0), x), stack_BxKxHxWxC)
    L = models.labelled_slices(network, 3)
    collection, found = COARSE_LOGITS
    assert [coarse.shape for coarse in sown[collection][found]] == [(2, L, 8, 10, 2)]


def test_ivdnet_has_the_layers_of_its_authors_code():
    # With four channels, one slice and 32 features its authors' network has 54 313 954 weights, counted layer by
    # layer in their code. 35 936 of them are biases of convolutions that a norm follows, which takes them out again.
    network, one_slice = models.IVDNet(), jax.ShapeDtypeStruct((1, 1, 64, 64, 4), jnp.float32)
    params = jax.eval_shape(network.init, jax.random.key(0), one_slice)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 54_313_954 - 35_936


@pytest.fixture(scope="module")
def one_case():
    """Stacks of every slice of one small phantom, and their labels."""
    drawn = phantom.draw(jax.random.key(0), jax.random.key(1), (8, 72, 48), (7.0, 3.4, 3.4))
    image_ZxHxWxC = np.stack([drawn.water_ZxHxW, drawn.fat_ZxHxW], -1)
    image_ZxHxWxC = (image_ZxHxWxC - image_ZxHxWxC.mean((0, 1, 2))) / image_ZxHxWxC.std((0, 1, 2))
    slices_ZxK = np.clip(np.arange(8)[:, None] + np.arange(-1, 2), 0, 7)
    label_ZxHxW = (np.asarray(drawn.label_ZxHxW) > 0).astype(np.uint8)
    return image_ZxHxWxC[slices_ZxK], label_ZxHxW[slices_ZxK]


@every
def test_it_learns_one_case_by_heart(network, one_case):
    stack_ZxKxHxWxC, label_ZxKxHxW = one_case
    whole = models.labelled_slices(network, 3) > 1
    label_ZxLxHxW = label_ZxKxHxW if whole else label_ZxKxHxW[:, 1:2]
    params = params_of(network, stack_ZxKxHxWxC)
    transform = optax.adam(5e-3)

    @jax.jit
    def learn(params, memory):
        def loss(params):
            logits, sown = network.apply({"params": params}, stack_ZxKxHxWxC, mutable=[WHOLE_LOGITS[0]])
            logits = sown[WHOLE_LOGITS[0]][WHOLE_LOGITS[1]] if whole else logits[:, None]
            return losses.segmentation_loss(logits, (), label_ZxLxHxW, Loss())["loss"].mean(), logits

        gradients, logits = jax.grad(loss, has_aux=True)(params)
        updates, memory = transform.update(gradients, memory)
        found = logits[:, logits.shape[1] // 2].argmax(-1) > 0
        wanted = label_ZxKxHxW[:, 1] > 0
        dice = 2 * (found & wanted).sum() / (found.sum() + wanted.sum())
        return optax.apply_updates(params, updates), memory, dice

    memory = transform.init(params)
    for step in range(400):
        params, memory, dice = learn(params, memory)
        if step % 10 == 0 and dice >= 0.97:
            break
    assert dice >= 0.97
