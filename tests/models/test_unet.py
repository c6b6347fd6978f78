from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ivdjax.models import UNet
from ivdjax.models.blocks import COARSE_LOGITS, Downsample, InstanceNorm, Upsample

SMALL = UNet(features=(4, 8, 8))


def stack(shape=(2, 3, 16, 20, 2), seed=0):
    return jax.random.normal(jax.random.key(seed), shape)


@pytest.mark.parametrize("size", [(16, 20), (17, 23), (8, 8)])
def test_logits_have_the_size_of_the_slice(size):
    stack_BxKxHxWxC = stack((2, 3, *size, 2))
    logits, _ = SMALL.init_with_output(jax.random.key(0), stack_BxKxHxWxC)
    assert logits.shape == (2, *size, 2)
    assert logits.dtype == jnp.float32


def test_the_centre_slice_depends_on_every_slice_and_channel():
    stack_BxKxHxWxC = stack((1, 5, 16, 16, 4))
    params = SMALL.init(jax.random.key(0), stack_BxKxHxWxC)
    gradient = jax.grad(lambda x: jnp.square(SMALL.apply(params, x)).sum())(stack_BxKxHxWxC)
    assert (np.abs(gradient).sum((0, 2, 3)) > 1e-3).all()


def test_samples_do_not_touch_each_other():
    stack_BxKxHxWxC = stack()
    params = SMALL.init(jax.random.key(0), stack_BxKxHxWxC)
    together = SMALL.apply(params, stack_BxKxHxWxC)
    np.testing.assert_allclose(together[1:], SMALL.apply(params, stack_BxKxHxWxC[1:]), atol=1e-5)


def test_deep_supervision_offers_coarser_logits_only_when_asked():
    stack_BxKxHxWxC = stack()
    deep = SMALL.clone(deep_supervision=True)
    params = {"params": deep.init(jax.random.key(0), stack_BxKxHxWxC)["params"]}
    collection, name = COARSE_LOGITS
    logits, sown = deep.apply(params, stack_BxKxHxWxC, mutable=[collection])
    assert [coarse.shape for coarse in sown[collection][name]] == [(2, 1, 8, 10, 2)]
    np.testing.assert_array_equal(logits, deep.apply(params, stack_BxKxHxWxC))


def test_bfloat16_computes_about_the_same_with_float32_parameters():
    stack_BxKxHxWxC = stack()
    params = SMALL.init(jax.random.key(0), stack_BxKxHxWxC)
    half = SMALL.clone(dtype="bfloat16")
    assert {p.dtype for p in jax.tree.leaves(half.init(jax.random.key(0), stack_BxKxHxWxC))} == {jnp.dtype("float32")}
    full = SMALL.apply(params, stack_BxKxHxWxC)
    error = np.abs(half.apply(params, stack_BxKxHxWxC) - full)
    assert 0 < error.mean() < 0.05 * np.abs(full).mean() + 0.02


def test_recomputing_blocks_gives_the_same_gradients_and_keeps_less():
    stack_BxKxHxWxC = stack((2, 3, 32, 32, 2))
    params = SMALL.init(jax.random.key(0), stack_BxKxHxWxC, jnp.ones((2, 2)))
    assert jax.tree.structure(params) == jax.tree.structure(
        SMALL.clone(remat=True).init(jax.random.key(0), stack_BxKxHxWxC, jnp.ones((2, 2)))
    )

    def loss(model, params):
        return jnp.square(model.apply(params, stack_BxKxHxWxC, jnp.ones((2, 2)))).mean()

    gradients, kept = [], []
    for model in (SMALL, SMALL.clone(remat=True)):
        gradients.append(jax.jit(jax.grad(partial(loss, model)))(params))
        residuals = jax.eval_shape(lambda params, model=model: jax.vjp(partial(loss, model), params)[1], params)
        kept.append(sum(leaf.size for leaf in jax.tree.leaves(residuals)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), *gradients)
    assert kept[1] < 0.6 * kept[0]


def test_instance_norm_gives_each_sample_and_feature_mean_zero_and_deviation_one():
    x_BxHxWxF = 5 + 3 * stack((2, 16, 20, 4))
    normal, _ = InstanceNorm().init_with_output(jax.random.key(0), x_BxHxWxF)
    np.testing.assert_allclose(normal.mean((1, 2)), 0, atol=1e-4)
    np.testing.assert_allclose(normal.std((1, 2)), 1, atol=1e-3)


@pytest.mark.parametrize(("block", "size"), [(Downsample(3), (4, 5)), (Upsample(3), (16, 20))])
def test_resolution_steps_keep_places(block, size):
    x_BxHxWxF = jnp.zeros((1, 8, 10, 2)).at[0, 2, 6].set(1.0)
    moved, _ = block.init_with_output(jax.random.key(0), x_BxHxWxF)
    assert moved.shape == (1, *size, 3)
    scale = size[0] / 8
    rows, columns = np.nonzero(np.abs(moved[0]).sum(-1))
    assert (rows // max(scale, 1)).astype(int).tolist() == [int(2 * min(scale, 1))] * len(rows)
    assert (columns // max(scale, 1)).astype(int).tolist() == [int(6 * min(scale, 1))] * len(columns)


def test_flags_of_what_is_there_change_the_answer_and_start_without_a_say():
    stack_BxKxHxWxC, present = stack((1, 3, 16, 16, 2)), jnp.array([[1.0, 0.0]])
    params = SMALL.init(jax.random.key(0), stack_BxKxHxWxC, present)
    answers = [SMALL.apply(params, stack_BxKxHxWxC, flags) for flags in (present, jnp.ones((1, 2)))]
    np.testing.assert_array_equal(*answers)
    trained = jax.tree.map(lambda p: p + 0.1, params)
    answers = [SMALL.apply(trained, stack_BxKxHxWxC, flags) for flags in (present, jnp.ones((1, 2)))]
    assert np.abs(answers[0] - answers[1]).max() > 1e-3
