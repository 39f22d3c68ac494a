"""The camera model against its formula: moments of the noise, limits, ranges."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from skimage.color import rgb2xyz, xyz2rgb

from sel.data import darken, linear_to_srgb, srgb_to_linear

fast_darken = jax.jit(darken)
KEY = jax.random.key(0)
STEP = 1 / 255


def _linear_oracle(srgb: np.ndarray) -> np.ndarray:
    srgb = np.asarray(srgb, np.float64)
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def _srgb_oracle(linear: np.ndarray) -> np.ndarray:
    linear = np.asarray(linear, np.float64)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * np.maximum(linear, 1e-9) ** (1 / 2.4) - 0.055)


def test_srgb_both_ways():
    values = np.linspace(0, 1, 4097)
    np.testing.assert_allclose(srgb_to_linear(jnp.asarray(values, jnp.float32)), _linear_oracle(values), atol=1e-6)
    np.testing.assert_allclose(linear_to_srgb(jnp.asarray(values, jnp.float32)), _srgb_oracle(values), atol=1e-6)
    # The two pieces of the standard's curve miss each other by 2e-7 in linear light, hardly more in float32.
    back = linear_to_srgb(srgb_to_linear(jnp.asarray(values, jnp.float32)))
    np.testing.assert_allclose(back, values, atol=3e-6)


def test_srgb_agrees_with_an_independent_implementation():
    # Of a grey, the XYZ luminance is the linear value (white point rows sum to 1 within 1e-6).
    grey = np.linspace(0, 1, 33)[:, None, None] * np.ones((1, 1, 3))
    luminance = rgb2xyz(grey)[..., 1]
    np.testing.assert_allclose(srgb_to_linear(jnp.asarray(grey[..., 0], jnp.float32)), luminance, atol=2e-6)
    np.testing.assert_allclose(xyz2rgb(rgb2xyz(grey)), grey, atol=1e-4)


def test_srgb_gradients_are_finite_everywhere():
    values = jnp.array([-0.3, 0.0, 0.0031308, 0.04045, 0.5, 1.0, 1.3])
    for curve in (srgb_to_linear, linear_to_srgb):
        gradient = jax.vmap(jax.grad(curve))(values)
        assert np.all(np.isfinite(gradient))
        assert np.all(np.asarray(gradient) > 0)


def test_full_exposure_without_noise_changes_nothing_but_the_quantisation():
    levels = jnp.arange(256, dtype=jnp.float32).reshape(16, 16, 1) * STEP
    same = fast_darken(KEY, levels, exposure=1.0, shot_noise=0.0, read_noise=0.0)
    np.testing.assert_array_equal(jnp.round(same * 255), jnp.round(levels * 255))
    x0 = jax.random.uniform(KEY, (2, 9, 7, 3))
    mu = fast_darken(KEY, x0, exposure=1.0, shot_noise=0.0, read_noise=0.0)
    assert float(jnp.abs(mu - x0).max()) <= STEP / 2 + 1e-6
    np.testing.assert_allclose(mu * 255, jnp.round(mu * 255), atol=1e-4)


def test_exposure_acts_in_linear_light_and_is_monotone():
    x0 = jax.random.uniform(KEY, (8, 9, 3))
    previous = np.zeros(x0.shape)
    for exposure in (0.05, 0.1, 0.3, 0.7, 1.0):
        mu = fast_darken(KEY, x0, exposure=exposure, shot_noise=0.0, read_noise=0.0)
        expected = _srgb_oracle(exposure * _linear_oracle(x0))
        assert np.abs(np.asarray(mu) - expected).max() <= STEP / 2 + 1e-6
        assert np.all(np.asarray(mu) >= previous)
        previous = np.asarray(mu)


@pytest.mark.parametrize(
    ("level", "shot", "read"), [(0.5, 2e-3, 0.0), (0.8, 2e-3, 0.0), (0.6, 0.0, 0.02), (0.9, 1e-3, 0.01)]
)
def test_mean_and_variance_follow_the_signal(level, shot, read):
    exposure, count = 0.5, 200_000
    x0 = jnp.full((count, 1, 1), level)
    mu = fast_darken(KEY, x0, exposure=exposure, shot_noise=shot, read_noise=read)
    light = _linear_oracle(np.asarray(mu))
    signal = exposure * _linear_oracle(np.float32(level))
    variance = shot * signal + read**2
    # Five sigmas from clipping here, so moments are those of a Gaussian: standard errors sqrt(v/n) and v sqrt(2/n).
    assert 5 * np.sqrt(variance) < signal
    assert abs(light.mean() - signal) < 5 * np.sqrt(variance / count) + 1e-4
    # The rounding to 8 bits adds a uniform error of one step, in linear light step * dL/ds, squared over 12.
    slope = 2.4 / 1.055 * ((_srgb_oracle(signal) + 0.055) / 1.055) ** 1.4
    rounding = (STEP * slope) ** 2 / 12
    assert abs(light.var() - variance - rounding) < 6 * variance * np.sqrt(2 / count) + 0.02 * variance


def test_flat_images_are_safe_and_black_clips_to_half_a_gaussian():
    for level in (0.0, 1.0):
        mu = fast_darken(KEY, jnp.full((2, 8, 8, 3), level), exposure=0.1, shot_noise=1e-3, read_noise=1e-3)
        assert np.all(np.isfinite(mu))
        assert float(mu.min()) >= 0
        assert float(mu.max()) <= 1
    black = fast_darken(KEY, jnp.zeros((100, 100, 1)), exposure=0.1, shot_noise=1e-3, read_noise=0.01)
    # Below black is cut: half of the values, and those that the rounding takes to 0 (linear below 0.5/255/12.92).
    cut = 0.5 + 0.5 * 0.012  # Phi(1.52e-4 / 0.01) - 1/2 = 0.006
    assert abs(float((black == 0).mean()) - cut) < 5 * 0.5 / 100
    np.testing.assert_array_equal(
        fast_darken(KEY, jnp.zeros((4, 4, 3)), exposure=0.1, shot_noise=1e-3, read_noise=0.0), 0
    )


def test_noise_is_independent_across_pixels_channels_and_images_and_keyed():
    x0 = jnp.full((2, 64, 64, 3), 0.7)
    mu = np.asarray(fast_darken(KEY, x0, exposure=0.5, shot_noise=2e-3, read_noise=0.0))
    samples = np.stack([mu[0, ..., 0], mu[0, ..., 1], mu[1, ..., 0], np.roll(mu[0, ..., 0], 1, 0)]).reshape(4, -1)
    correlation = np.corrcoef(samples) - np.eye(4)
    assert np.abs(correlation).max() < 5 / np.sqrt(samples.shape[1])
    np.testing.assert_array_equal(fast_darken(KEY, x0, exposure=0.5, shot_noise=2e-3, read_noise=0.0), mu)
    assert np.any(fast_darken(jax.random.key(1), x0, exposure=0.5, shot_noise=2e-3, read_noise=0.0) != mu)


def test_parameters_per_image():
    x0 = jax.random.uniform(KEY, (3, 5, 6, 3))
    exposures = jnp.array([0.1, 0.4, 1.0])
    together = fast_darken(KEY, x0, exposure=exposures, shot_noise=0.0, read_noise=jnp.zeros(3))
    for i in range(3):
        alone = fast_darken(KEY, x0[i], exposure=float(exposures[i]), shot_noise=0.0, read_noise=0.0)
        np.testing.assert_allclose(together[i], alone, atol=1e-6)
    keys = jax.random.split(KEY, 3)
    mapped = jax.jit(jax.vmap(lambda k, x, e: fast_darken(k, x, exposure=e, shot_noise=1e-3, read_noise=0.0)))(
        keys, x0, exposures
    )
    alone = fast_darken(keys[1], x0[1], exposure=0.4, shot_noise=1e-3, read_noise=0.0)
    # Compiled together or apart, the last bit of a value may differ, and with it the rounding to 8 bits.
    assert float(jnp.abs(mapped[1] - alone).max()) <= STEP + 1e-6


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("exposure", 0.0),
        ("exposure", 1.5),
        ("exposure", float("nan")),
        ("exposure", -0.1),
        ("shot_noise", -1e-3),
        ("shot_noise", float("inf")),
        ("read_noise", -1.0),
        ("read_noise", float("nan")),
        ("exposure", jnp.array([0.1, 0.2])),
    ],
)
def test_wrong_parameters_are_named(name, value):
    parameters = {"exposure": 0.1, "shot_noise": 0.0, "read_noise": 0.0, name: value}
    with pytest.raises(ValueError, match=f"^{name} must"):
        darken(KEY, jnp.zeros((3, 4, 4, 3)), **parameters)
