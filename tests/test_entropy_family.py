"""Options of the loss: window shapes, Silverman's bandwidth, luminance, entropy difference, combinations."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import quick_jit

import sel
from sel.entropy.neighborhood import blur

pytestmark = pytest.mark.usefixtures("compile_little")
OPTIONS = {"num_bins": 6, "windows": (1, 3)}


def jitted(function, *arrays, **options):
    return quick_jit(functools.partial(function, **options))(*arrays)


def loss(x, y, **options):
    return jitted(sel.spatial_entropy_loss, x, y, **{**OPTIONS, **options})


def pair(shape=(2, 7, 9, 3), seed=0):
    generator = np.random.default_rng(seed)
    return tuple(jnp.asarray(generator.random(shape), jnp.float32) for _ in range(2))


def test_gaussian_windows_weight_the_densities_of_single_pixels():
    x, _ = pair((7, 9, 1))
    single = np.float64(jitted(sel.joint_density, x, num_bins=6, windows=(1,))[0])
    found = jitted(sel.joint_density, x, num_bins=6, windows=(5,), window_shape="gaussian")[0]
    taps = np.exp(-0.5 * ((np.arange(5) - 2) / (5 / 4)) ** 2)
    for i, j in ((3, 4), (0, 0), (6, 2)):
        expected, total = np.zeros((6, 6)), 0.0
        for di in range(-2, 3):
            for dj in range(-2, 3):
                if 0 <= i + di < 7 and 0 <= j + dj < 9:
                    weight = taps[di + 2] * taps[dj + 2]
                    expected, total = expected + weight * single[i + di, j + dj, 0], total + weight
        # 25 float32 terms that add up to at most 1
        np.testing.assert_allclose(found[i, j, 0], expected / total, atol=1e-6)


def test_gaussian_windows_give_the_same_gradient_by_both_algorithms():
    def gradient(implementation):
        def loss(x, y):
            options = {"windows": (1, 3, 5), "window_shape": "gaussian", "implementation": implementation}
            return sel.spatial_entropy_loss(x, y, num_bins=6, **options).sum()

        return quick_jit(jax.grad(loss))(*pair())

    dense = gradient("dense")
    # What the sparse algorithm skips is below 1e-6 of a pixel's mass.
    np.testing.assert_allclose(gradient("sparse"), dense, atol=1e-5 * float(jnp.abs(dense).max()))


def test_silverman_is_the_rule_for_each_channel_of_the_target():
    x, y = pair((8, 9, 1))
    u = 5 * np.float64(y)
    h = 1.06 * u.std() * u.size ** (-1 / 5)
    by_rule = quick_jit(functools.partial(sel.spatial_entropy_loss, bandwidth="silverman", **OPTIONS))
    given = quick_jit(lambda x, y, h: sel.spatial_entropy_loss(x, y, bandwidth=h, **OPTIONS))
    np.testing.assert_allclose(by_rule(x, y), given(x, y, h), rtol=1e-5)
    flat = jnp.full((8, 9, 1), 0.3)
    np.testing.assert_allclose(by_rule(x, flat), given(x, flat, 0.1), rtol=1e-6)


def test_gray_compares_the_luminance():
    x, y = pair()
    luminance = [
        (image * jnp.asarray([0.299, 0.587, 0.114])[None, None, None]).sum(-1, keepdims=True) for image in (x, y)
    ]
    np.testing.assert_allclose(loss(x, y, gray=True), loss(*luminance), rtol=1e-6)
    in_gray = functools.partial(sel.spatial_entropy_loss, gray=True, return_map=True, **OPTIONS)
    assert jax.eval_shape(in_gray, x, y).shape == (2, 7, 9, 1)
    with pytest.raises(ValueError, match="1 or 3 channels, found 2"):
        sel.spatial_entropy_loss(x[..., :2], y[..., :2], gray=True)


def test_entropy_difference_is_that_of_the_entropies():
    x, y = pair()
    maps = []
    for k in (1, 3):
        entropy = quick_jit(functools.partial(sel.spatial_entropy, num_bins=6, windows=(k,), return_map=True))
        maps.append(np.abs(np.subtract(*map(entropy, (x, y)))))
    found = loss(x, y, divergence="entropy_difference")
    # differences of entropies near 3, each to 1e-6
    np.testing.assert_allclose(found, np.mean(maps, axis=(0, 2, 3, 4)), atol=2e-6)


def test_an_image_has_no_entropy_difference_and_no_gradient_with_itself():
    x, _ = pair()
    value, gradient = quick_jit(
        jax.value_and_grad(lambda z: sel.spatial_entropy_loss(z, x, divergence="entropy_difference", **OPTIONS).sum())
    )(x)
    assert value == 0
    np.testing.assert_array_equal(gradient, 0)


def test_combined_loss_adds_up():
    x, y = pair()
    found = jitted(sel.combined_loss, x, y, entropy=0.5, l1=2.0, blurred_l1=3.0, blur_sigma=1.0, **OPTIONS)
    expected = 0.5 * loss(x, y)
    expected += 2 * jnp.abs(x - y).mean((1, 2, 3))
    expected += 3 * jnp.abs(blur(x, 1.0) - blur(y, 1.0)).mean((1, 2, 3))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    with pytest.raises(ValueError, match="blur_sigma must be a positive"):
        sel.combined_loss(x, y, blur_sigma=0.0)
    with pytest.raises(ValueError, match="targets must have the shape"):
        sel.combined_loss(x, y[:1], entropy=0.0, l1=1.0)


def test_blur_keeps_flat_images_and_means():
    np.testing.assert_allclose(blur(jnp.full((9, 8, 2), 0.7), 1.5), 0.7, rtol=1e-6)
    spike = jnp.zeros((41, 41, 1)).at[20, 20].set(1)
    found = np.float64(blur(spike, 2.0))[..., 0]
    offsets = np.arange(41) - 20
    assert found.sum() == pytest.approx(1, abs=1e-5)
    # The tail beyond 3 standard deviations is cut: 0.3 % of the mass, 3 % of the variance.
    assert (found.sum(1) * offsets**2).sum() == pytest.approx(4, rel=0.04)


@pytest.mark.parametrize("distribution", ["dirichlet", "normal"])
def test_sampled_neighbor_weights_sum_to_one(distribution):
    draws = jax.vmap(lambda key: sel.sample_neighbor_weights(key, distribution))(
        jax.random.split(jax.random.key(0), 200)
    )
    np.testing.assert_array_equal(draws[:, 1, 1], 0)
    # A sum of normals near 0 amplifies float32 rounding by its inverse.
    np.testing.assert_allclose(draws.sum((1, 2)), 1, atol=1e-4)
    assert (float(draws.min()) >= 0) == (distribution == "dirichlet")
    if distribution == "dirichlet":
        mean = np.asarray(draws.mean(0)).ravel()[[0, 1, 2, 3, 5, 6, 7, 8]]
        # standard deviation of one weight 0.11, of a mean of 200 draws 0.008
        np.testing.assert_allclose(mean, 1 / 8, atol=0.04)


def test_unknown_choices_are_named():
    x, y = pair()
    with pytest.raises(ValueError, match="distribution must be one of dirichlet, normal, found 'uniform'"):
        sel.sample_neighbor_weights(jax.random.key(0), "uniform")
    with pytest.raises(ValueError, match="window_shape must be one of box, gaussian, found 'disc'"):
        sel.spatial_entropy_loss(x, y, window_shape="disc")
    with pytest.raises(ValueError, match="silverman"):
        sel.spatial_entropy_loss(x, y, bandwidth="scott")
    with pytest.raises(ValueError, match="each once"):
        sel.spatial_entropy_loss(x, y, windows=(3, 3))


def test_neighbor_weights_can_be_learned():
    x, y = pair((6, 7, 3))

    @quick_jit
    @jax.value_and_grad
    def loss_and_gradient(weights):
        return sel.spatial_entropy_loss(x, y, neighbor_weights=weights, **OPTIONS)

    weights = jnp.linspace(0.5, 1.5, 9).reshape(3, 3)
    _, gradient = loss_and_gradient(weights)
    step = 0.02
    for i, j in ((0, 0), (1, 2), (2, 1)):
        above, below = (loss_and_gradient(weights.at[i, j].add(change))[0] for change in (step, -step))
        # rounding 1e-7 / 0.02 and the third derivative times step squared
        assert float(gradient[i, j]) == pytest.approx(float(above - below) / (2 * step), abs=3e-5)
    assert gradient[1, 1] == 0
