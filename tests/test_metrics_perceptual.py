"""GT-mean, LPIPS and NIQE against oracles, and figures of the published implementations on known photographs."""

import importlib.resources

import hypothesis
import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from hypothesis import strategies as st
from skimage import data

from sel.metrics import make_lpips, match_gt_mean, niqe

pytestmark = pytest.mark.usefixtures("compile_little")
PHOTOGRAPHS = {name: getattr(data, name)() for name in ("chelsea", "coffee")}

# Of a photograph with itself at 3/4 of its contrast, and upside down: the original code (`lpips` 0.1.4) in float64,
# with its own linear weights and these filters.
LPIPS = {"chelsea": (0.01877289610742969, 0.550170845672575), "coffee": (0.01832452098264473, 0.6160955536723935)}

# The implementation in BasicSR 1.4.2, its image reduction computed in float64, on MATLAB's grey.
NIQE = {"chelsea": 2.572084043014825, "coffee": 4.065990997520246}


def floats(image):
    return jnp.asarray(image, jnp.float32) / 255


@hypothesis.settings(max_examples=15, deadline=None)
@hypothesis.given(seed=st.integers(0, 2**31), low=st.floats(0.01, 1), high=st.floats(0.01, 1))
def test_gt_mean_is_one_factor_then_a_clip(seed, low, high):
    rng = np.random.default_rng(seed)
    image, reference = low * rng.random((2, 7, 5, 3)), high * rng.random((2, 7, 5, 3))
    grey = np.array([0.299, 0.587, 0.114])
    factor = (reference @ grey).mean((1, 2)) / (image @ grey).mean((1, 2))
    expected = np.clip(image * factor[:, None, None, None], 0, 1)
    got = match_gt_mean(jnp.asarray(image, jnp.float32), jnp.asarray(reference, jnp.float32))
    # Means over 35 pixels, a quotient and a product: a few roundings of 6e-8.
    np.testing.assert_allclose(got, expected, atol=2e-6)


def test_gt_mean_leaves_black_and_matched_images_alone():
    image = floats(PHOTOGRAPHS["chelsea"][:40, :40])
    np.testing.assert_allclose(match_gt_mean(image, image), image, rtol=1e-6)
    assert not match_gt_mean(jnp.zeros_like(image), image).any()
    assert not match_gt_mean(image, jnp.zeros_like(image)).any()


@pytest.mark.parametrize("name", LPIPS)
def test_lpips_is_that_of_the_original_code(name):
    photo = PHOTOGRAPHS[name]
    others = (photo.astype(np.uint16) * 3 // 4 + 10).astype(np.uint8), photo[::-1]
    for other, expected in zip(others, LPIPS[name], strict=True):
        # float32 through five layers, against float64.
        assert float(make_lpips()(floats(photo), floats(other))) == pytest.approx(expected, rel=1e-5)


def test_lpips_gives_one_value_per_image_for_any_leading_axes():
    lpips = make_lpips()
    a, b = (jax.random.uniform(jax.random.key(i), (2, 1, 31, 40, 3)) for i in (0, 1))
    values = lpips(a, b)
    assert values.shape == (2, 1)
    np.testing.assert_allclose(values[1, 0], lpips(a[1, 0], b[1, 0]), rtol=1e-5)
    np.testing.assert_allclose(values, lpips(b, a), rtol=1e-5)
    # Equal images go through the network side by side, whose sums may round differently.
    np.testing.assert_allclose(lpips(a, a), 0, atol=1e-12)


def test_lpips_names_what_is_wrong():
    image = jnp.zeros((31, 30, 3))
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        with pytest.raises(ValueError, match=r"at least 31 x 31, found \(31, 30, 3\)"):
            make_lpips()(image, image)
        with pytest.raises(ValueError, match="one shape"):
            make_lpips()(image, jnp.zeros((40, 40, 3)))
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.parametrize("name", NIQE)
def test_niqe_is_that_of_a_published_implementation(name):
    # These photographs have no flat spot, where the two differ. 36 features, a pseudo-inverse in float64.
    assert niqe(PHOTOGRAPHS[name]) == pytest.approx(NIQE[name], abs=1e-9)
    assert niqe(PHOTOGRAPHS[name] / 255) == pytest.approx(NIQE[name], abs=1e-9)


def test_niqe_rises_with_noise_and_blur():
    photo = PHOTOGRAPHS["chelsea"]
    noise = np.random.default_rng(0).normal(0, 25, photo.shape)
    noisy = np.clip(photo + noise, 0, 255).astype(np.uint8)
    blurred = np.mean([np.roll(photo, (i, j), (0, 1)) for i in range(5) for j in range(5)], axis=0) / 255
    assert niqe(noisy) > niqe(photo) + 1
    assert niqe(blurred) > niqe(photo) + 1


def test_niqe_does_not_depend_on_what_no_block_covers():
    photo = PHOTOGRAPHS["chelsea"]
    assert niqe(photo[:288, :384]) == niqe(photo)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((200, 200, 3), np.uint8),
        np.full((200, 300, 3), 0.7),
        PHOTOGRAPHS["chelsea"][:100, :191],
        PHOTOGRAPHS["chelsea"][:95],
        np.zeros((0, 9, 3), np.uint8),
    ],
    ids=["black", "flat", "one block", "low", "empty"],
)
def test_niqe_is_not_a_number_where_it_is_not_defined(image):
    assert np.isnan(niqe(image))


def test_niqe_of_flat_spots_is_not_that_of_rounding_errors():
    """Contrast does not depend on a level that is added; the sign of a rounding error does."""
    dark = PHOTOGRAPHS["coffee"] // 12
    for level in (1, 3, 7):
        assert niqe(dark + np.uint8(level)) == pytest.approx(niqe(dark), abs=1e-9)


def test_niqe_names_a_wrong_shape():
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        with pytest.raises(ValueError, match=r"must be \[h, w, 3\], found shape \(200, 300\)"):
            niqe(np.zeros((200, 300), np.uint8))
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


def test_the_model_carries_its_notice():
    notice = (importlib.resources.files("sel.metrics") / "NIQE_NOTICE.txt").read_text()
    assert "Copyright (c) 2011 The University of Texas at Austin" in notice
