"""PSNR and SSIM against golden figures, scikit-image, float64 oracles and their own definitions."""

from pathlib import Path

import hypothesis
import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from hypothesis import strategies as st
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from sel import metrics

psnr = jax.jit(metrics.psnr, static_argnames="max_value")
ssim = jax.jit(metrics.ssim, static_argnames="max_value")

pytestmark = pytest.mark.usefixtures("compile_little")
GOLDEN = Path(__file__).parent / "golden" / "metrics.npz"


def _ssim_oracle(a: np.ndarray, b: np.ndarray) -> float:
    """The formula window by window, float64, no separability, moments about the mean."""
    g = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
    window = (np.outer(g, g) / g.sum() ** 2)[..., None]
    values = []
    for i in range(a.shape[0] - 10):
        for j in range(a.shape[1] - 10):
            p, q = a[i : i + 11, j : j + 11], b[i : i + 11, j : j + 11]
            mean_p, mean_q = (window * p).sum((0, 1)), (window * q).sum((0, 1))
            var_p, var_q = (window * (p - mean_p) ** 2).sum((0, 1)), (window * (q - mean_q) ** 2).sum((0, 1))
            cov = (window * (p - mean_p) * (q - mean_q)).sum((0, 1))
            luminance = (2 * mean_p * mean_q + 1e-4) / (mean_p**2 + mean_q**2 + 1e-4)
            values.append(luminance * (2 * cov + 9e-4) / (var_p + var_q + 9e-4))
    return float(np.mean(values))


def _pair(seed: int, shape: tuple[int, ...], noise: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    a = rng.random(shape, np.float32)
    return a, np.clip(a + noise * rng.standard_normal(shape, np.float32), 0, 1)


@pytest.mark.parametrize("case", range(3))
def test_golden(case):
    with np.load(GOLDEN) as golden:
        a, b, expected_psnr, expected_ssim = (golden[f"{case}/{name}"] for name in ("a", "b", "psnr", "ssim"))
    a, b = jnp.asarray(a, jnp.float32) / 255, jnp.asarray(b, jnp.float32) / 255
    # A mean over 6,240 float32 squares is right to ~1e-6 relative, that is 5e-6 dB; the outer log10 adds one ulp of 30.
    assert float(psnr(a, b)) == pytest.approx(float(expected_psnr), abs=2e-5)
    # Errors of 1e-7 in a moment over C2 = 9e-4: below 1e-4 in one window, averaging out over windows.
    assert float(ssim(a, b)) == pytest.approx(float(expected_ssim), abs=1e-5)


def test_scikit_image_agrees():
    a, b = _pair(0, (31, 45, 3))
    options = {
        "gaussian_weights": True,
        "sigma": 1.5,
        "use_sample_covariance": False,
        "channel_axis": -1,
        "data_range": 1.0,
    }
    expected = structural_similarity(a.astype(np.float64), b.astype(np.float64), **options)
    assert float(ssim(jnp.asarray(a), jnp.asarray(b))) == pytest.approx(expected, abs=1e-5)
    expected = peak_signal_noise_ratio(a.astype(np.float64), b.astype(np.float64), data_range=1.0)
    assert float(psnr(jnp.asarray(a), jnp.asarray(b))) == pytest.approx(expected, abs=2e-5)


@pytest.mark.parametrize("level", [0.0, 0.02, 0.5, 1.0])
def test_ssim_on_flat_regions_where_moments_cancel(level):
    a, noise = np.full((14, 13, 3), level), np.random.default_rng(1).normal(0, 1e-3, (14, 13, 3))
    a, b = a.astype(np.float32), np.clip(a + noise, 0, 1).astype(np.float32)
    expected = _ssim_oracle(a.astype(np.float64), b.astype(np.float64))
    # |x - 1/2|^2 <= 1/4 in float32 is exact to 1.5e-8; times 22 additions of weights below 1, over C2 = 9e-4.
    assert float(ssim(jnp.asarray(a), jnp.asarray(b))) == pytest.approx(expected, abs=22 * 1.5e-8 / 9e-4)


@hypothesis.settings(max_examples=10, deadline=None)
@hypothesis.given(seed=st.integers(0, 2**31), noise=st.floats(0.01, 0.5))
def test_symmetry_range_and_oracle(seed, noise):
    a, b = _pair(seed, (13, 12, 3), noise)
    forward, backward = float(ssim(jnp.asarray(a), jnp.asarray(b))), float(ssim(jnp.asarray(b), jnp.asarray(a)))
    assert forward == pytest.approx(backward, abs=1e-6)
    assert -1 <= forward <= 1
    assert forward == pytest.approx(_ssim_oracle(a.astype(np.float64), b.astype(np.float64)), abs=1e-4)
    mse = np.mean((a.astype(np.float64) - b) ** 2)
    assert float(psnr(jnp.asarray(a), jnp.asarray(b))) == pytest.approx(-10 * np.log10(mse), abs=2e-5)


def test_one_value_per_image_for_any_leading_axes():
    a, b = (jnp.asarray(x) for x in _pair(2, (2, 3, 12, 15, 3)))
    for metric in (psnr, ssim):
        values = metric(a, b)
        assert values.shape == (2, 3)
        single = metric(a[1, 2], b[1, 2])
        assert single.shape == ()
        np.testing.assert_allclose(values[1, 2], single, rtol=1e-5)


def test_identical_images():
    image = jnp.full((2, 11, 11, 3), 0.3).at[1].set(0.0)
    assert np.all(np.isposinf(psnr(image, image)))
    np.testing.assert_allclose(ssim(image, image), 1.0, atol=1e-6)


@pytest.mark.parametrize("metric", [psnr, ssim])
def test_gradients_are_finite_on_identical_and_flat_images(metric):
    gradients = jax.jit(jax.grad(metric))
    for a, b in ((0.0, 0.0), (1.0, 1.0), (0.0, 1.0)):
        gradient = gradients(jnp.full((11, 12, 3), a), jnp.full((11, 12, 3), b))
        assert np.all(np.isfinite(gradient))


def test_max_value_is_only_a_unit():
    a, b = (jnp.asarray(x) for x in _pair(3, (16, 16, 3)))
    np.testing.assert_allclose(psnr(255 * a, 255 * b, max_value=255.0), psnr(a, b), rtol=1e-6)
    np.testing.assert_allclose(ssim(255 * a, 255 * b, max_value=255.0), ssim(a, b), rtol=1e-5)


def test_bfloat16_is_accumulated_in_float32():
    a, b = (jnp.asarray(x, jnp.bfloat16) for x in _pair(4, (16, 16, 3)))
    for metric in (psnr, ssim):
        value = metric(a, b)
        assert value.dtype == jnp.float32
        np.testing.assert_allclose(value, metric(a.astype(jnp.float32), b.astype(jnp.float32)), rtol=1e-6)


@pytest.mark.parametrize("shape", [(10, 30, 3), (30, 10, 3)])
def test_ssim_refuses_images_smaller_than_the_window(shape):
    with pytest.raises(ValueError, match="at least 11 x 11 pixels, found"):
        ssim(jnp.zeros(shape), jnp.zeros(shape))
    assert np.isposinf(psnr(jnp.zeros(shape), jnp.zeros(shape)))


@pytest.mark.parametrize("metric", [psnr, ssim])
def test_wrong_inputs_are_named(metric):
    image = jnp.zeros((12, 12, 3))
    with pytest.raises(TypeError):
        metric(image.astype(jnp.uint8), image)
    jaxtyping.config.update("jaxtyping_disable", True)  # the messages a user sees, who runs without the type checker
    try:
        with pytest.raises(TypeError, match="a must be floating point, found uint8; divide 8-bit images by 255"):
            metric(image.astype(jnp.uint8), image)
        with pytest.raises(ValueError, match=r"same shape, found \(12, 12, 3\) and \(12, 13, 3\)"):
            metric(image, jnp.zeros((12, 13, 3)))
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)
