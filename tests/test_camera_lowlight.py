"""The camera model against its formula: moments of the noise, limits, ranges."""

import doctest
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from skimage.color import rgb2xyz, xyz2rgb

from sel.camera import darken, jpeg, linear_to_srgb, sample_camera, srgb_to_linear

# Compiled fast rather than well.
OPTIONS = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
fast_darken = jax.jit(darken, compiler_options=OPTIONS)
fast_jpeg = jax.jit(jpeg, compiler_options=OPTIONS)
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
    run = jax.vmap(lambda k, x, e: darken(k, x, exposure=e, shot_noise=1e-3, read_noise=0.0))
    mapped = jax.jit(run, compiler_options=OPTIONS)(keys, x0, exposures)
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


def test_white_balance_amplifies_noise_and_the_cast_colours_the_mean():
    """Z = cast w Y: mean cast e L, variance (cast w)^2 (shot e L / w + read^2), per channel."""
    exposure, shot, read, count = 0.5, 1e-3, 5e-3, 200_000
    gain, cast = np.array([2.0, 1.0, 1.6]), np.array([1.1, 1.0, 0.8])
    x0 = jnp.broadcast_to(jnp.array([0.7, 0.6, 0.8]), (count, 1, 3))
    options = {"exposure": exposure, "shot_noise": shot, "read_noise": read}
    mu = np.asarray(fast_darken(KEY, x0, white_balance=jnp.array(gain), cast=jnp.array(cast), **options))
    light = _linear_oracle(mu)[:, 0]
    signal = exposure * _linear_oracle(np.float32([0.7, 0.6, 0.8]))
    variance = (cast * gain) ** 2 * (shot * signal / gain + read**2)
    mean = cast * signal
    assert np.all(5 * np.sqrt(variance) < mean)
    assert np.all(np.abs(light.mean(0) - mean) < 5 * np.sqrt(variance / count) + 1e-4)
    rounding = (STEP * 2.4 / 1.055 * ((_srgb_oracle(mean) + 0.055) / 1.055) ** 1.4) ** 2 / 12
    assert np.all(np.abs(light.var(0) - variance - rounding) < 6 * variance * np.sqrt(2 / count) + 0.02 * variance)


def test_gains_of_one_change_nothing_and_may_differ_between_images():
    x0 = jax.random.uniform(KEY, (2, 9, 7, 3))
    options = {"exposure": 0.3, "shot_noise": 1e-3, "read_noise": 1e-3}
    plain = fast_darken(KEY, x0, **options)
    ones = {"white_balance": jnp.ones((2, 3)), "cast": jnp.ones((2, 3))}
    np.testing.assert_array_equal(fast_darken(KEY, x0, **ones, **options), plain)
    casts = jnp.array([[1.0, 1.0, 1.0], [0.5, 1.0, 1.0]])
    mixed = fast_darken(KEY, x0, **(ones | {"cast": casts}), **options)
    np.testing.assert_array_equal(mixed[0], plain[0])
    assert float(mixed[1, ..., 0].mean()) < float(plain[1, ..., 0].mean())
    np.testing.assert_array_equal(mixed[1, ..., 1:], plain[1, ..., 1:])


def test_darken_compresses_last():
    x0 = jax.random.uniform(KEY, (24, 24, 3))
    options = {"exposure": 0.3, "shot_noise": 1e-3, "read_noise": 1e-3}
    plain, compressed = fast_darken(KEY, x0, **options), fast_darken(KEY, x0, jpeg_quality=80.0, **options)
    np.testing.assert_allclose(compressed, fast_jpeg(plain, quality=80.0), atol=STEP + 1e-6)
    assert np.any(np.asarray(compressed) != np.asarray(plain))


def test_cameras_follow_their_laws():
    count = 20_000
    draw = jax.jit(lambda key: sample_camera(key, batch=(count,), jpeg_quality=(60, 90)), compiler_options=OPTIONS)
    camera = draw(KEY)
    log = {name: np.log(np.asarray(camera[name], np.float64)) for name in ("exposure", "shot_noise", "read_noise")}
    for name, (least, most) in {"exposure": (0.01, 0.15), "shot_noise": (1e-4, 4e-3)}.items():
        low, high = np.log(least), np.log(most)
        assert low - 1e-5 <= log[name].min() <= log[name].max() <= high + 1e-5
        assert abs(log[name].mean() - (low + high) / 2) < 5 * (high - low) / np.sqrt(12 * count)
    rest = 2 * log["read_noise"] - 2.18 * log["shot_noise"] - 1.2
    assert abs(rest.mean()) < 5 * 0.26 / np.sqrt(count)
    assert abs(rest.std() - 0.26) < 5 * 0.26 / np.sqrt(2 * count)
    gains, errors = np.asarray(camera["white_balance"]), np.log(np.asarray(camera["cast"]))
    for channel, (least, most) in ((0, (1.9, 2.4)), (2, (1.5, 1.9))):
        assert least - 1e-6 <= gains[:, channel].min() <= gains[:, channel].max() <= most + 1e-6
        assert abs(errors[:, channel].std() - 0.1) < 5 * 0.1 / np.sqrt(2 * count)
    np.testing.assert_array_equal(gains[:, 1], 1)
    np.testing.assert_array_equal(errors[:, 1], 0)
    assert 60 <= float(camera["jpeg_quality"].min()) <= float(camera["jpeg_quality"].max()) <= 90
    table = [log["exposure"], log["shot_noise"], gains[:, 0], gains[:, 2], errors[:, 0], errors[:, 2]]
    correlation = np.corrcoef([*table, camera["jpeg_quality"]]) - np.eye(7)
    assert np.abs(correlation).max() < 5 / np.sqrt(count)


def test_a_camera_darkens_a_batch_under_jit():
    x0 = jax.random.uniform(KEY, (3, 16, 16, 3))
    camera = jax.jit(lambda key: sample_camera(key, batch=(3,), jpeg_quality=(70, 90)), compiler_options=OPTIONS)

    def run(key):
        return fast_darken(key, x0, **camera(key))

    mu = np.asarray(run(KEY))
    assert mu.shape == x0.shape
    np.testing.assert_allclose(mu * 255, np.round(mu * 255), atol=1e-3)
    assert 0 <= mu.min() < mu.mean() < 0.5 * float(x0.mean())
    np.testing.assert_array_equal(mu, run(KEY))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"exposure": (0.0, 0.1)}, "exposure must be"),
        ({"exposure": (0.2, 0.1)}, "exposure must be"),
        ({"exposure": (0.2, 1.1)}, "exposure must be"),
        ({"shot_noise": (0.0, 0.1)}, "shot_noise must be"),
        ({"cast": -0.1}, "cast must be"),
        ({"jpeg_quality": (0, 50)}, "jpeg_quality must be"),
        ({"jpeg_quality": (50, 101)}, "jpeg_quality must be"),
    ],
)
def test_wrong_ranges_are_named(wrong, words):
    with pytest.raises(ValueError, match=words):
        sample_camera(KEY, **wrong)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"white_balance": 0.0}, "white_balance must be finite and above 0"),
        ({"cast": jnp.ones(4)}, "cast must be a number or of shape"),
        ({"white_balance": jnp.ones((2, 3))}, "white_balance must be a number or of shape"),
        ({"jpeg_quality": 0}, r"jpeg_quality must lie in 1..100"),
    ],
)
def test_wrong_gains_are_named(wrong, words):
    with pytest.raises(ValueError, match=words):
        darken(KEY, jnp.zeros((4, 4, 3)), exposure=0.1, shot_noise=0.0, read_noise=0.0, **wrong)


@pytest.mark.usefixtures("compile_little")
def test_the_example_of_the_page_runs():
    page = Path(__file__).parents[1] / "docs" / "lowlight.md"
    result = doctest.testfile(str(page), module_relative=False)
    assert result.attempted == 6
    assert result.failed == 0
