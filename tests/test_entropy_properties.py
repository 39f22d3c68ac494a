"""What must hold for every image: signs, bounds, the place of the minimum, symmetries, gradients that are finite.

Each compiled function takes 36 pairs of images at once; hypothesis chooses what is in them.
"""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from oracles import DIVERGENCES, KERNELS, quick_jit

import sel

PAIRS, SIDE, CHANNELS = 36, 5, 2
SHAPE = (PAIRS, SIDE, SIDE, CHANNELS)
NUM_BINS = 12
# Sums over 144 bins and 50 pixels of float32 terms that are accurate to 1e-7.
EPS = 1e-6
MEASURES = [*((d, "sparse") for d in DIVERGENCES), ("hellinger", "dense"), ("relative", "dense")]
each_measure = pytest.mark.parametrize(("divergence", "implementation"), MEASURES)
few = settings(deadline=None, max_examples=4, derandomize=True, phases=[Phase.generate])
seeds = st.integers(0, 2**32 - 1)
kinds = st.sampled_from(["noise", "levels", "flat", "outside"])
bandwidths = st.sampled_from([0.05, 0.5, 0.7, 5.0])


@cache
def measure(divergence, implementation):
    """A compiled function from (predictions, targets, bandwidth) to the losses and their gradients."""

    def losses(predictions, targets, bandwidth):
        options = {"divergence": divergence, "num_bins": NUM_BINS, "implementation": implementation}
        values = sel.spatial_entropy_loss(predictions, targets, bandwidth=bandwidth, **options)
        return values.sum(), values

    # The defaults are compiled as a user would: optimisation reorders arithmetic.
    jit = jax.jit if (divergence, implementation) == ("hellinger", "sparse") else partial(quick_jit, level=1)
    compiled = jit(jax.grad(losses, has_aux=True))

    def call(predictions, targets, bandwidth=0.5):
        gradients, values = compiled(jnp.asarray(predictions), jnp.asarray(targets), bandwidth)
        return np.asarray(values), np.asarray(gradients)

    return call


def images(kind, seed):
    """Noise, the values of a dark photograph (k/255), flat images, or values in and outside the range."""
    rng = np.random.default_rng(seed)
    x = rng.random(SHAPE)
    if kind == "levels":
        x = np.round(255 * x**3) / 255
    if kind == "flat":
        x = np.broadcast_to(rng.choice([0, 1, rng.random()], (PAIRS, 1, 1, CHANNELS)), SHAPE)
    if kind == "outside":
        x = rng.choice([-1e30, -0.5, 0, 0.3, 1, 1.5, 1e30], SHAPE)
    return x.astype(np.float32)


def pairs(kind, seed, close, least=1e-7):
    """Unrelated images, or close ones: by 0.1 to `least`, where a divergence compares nearly equal numbers."""
    targets = images(kind, seed)
    if not close:
        return images("noise", seed + 1), targets
    noise = np.random.default_rng(seed).normal(size=SHAPE) * np.geomspace(least, 0.1, PAIRS)[:, None, None, None]
    return (np.clip(targets, -2, 2) + noise).astype(np.float32), targets


def extreme_pairs():
    """Every pair out of six images: black, white, grey, a chess board, one outside the range, a light in the dark."""
    flat = np.ones((SIDE, SIDE, CHANNELS))
    chess = np.indices((SIDE, SIDE)).sum(0)[..., None] % 2 * flat
    light = np.zeros_like(flat)
    light[2, 3] = 1
    six = np.stack([0 * flat, flat, 0.5 * flat, chess, 2e30 * chess - 1e30, light]).astype(np.float32)
    return np.repeat(six, 6, 0), np.tile(six, (6, 1, 1, 1))


def assert_sound(divergence, values, gradients):
    assert np.all(values >= 0)
    assert np.all(values <= {"hellinger": 1, "jensen_shannon": np.log(2)}.get(divergence, np.inf) + EPS)
    assert np.all(np.isfinite(values))
    assert np.all(np.isfinite(gradients))


@each_measure
@given(kind=kinds, seed=seeds, close=st.booleans(), bandwidth=bandwidths)
@few
def test_is_bounded_with_finite_gradients(divergence, implementation, kind, seed, close, bandwidth):
    assert_sound(divergence, *measure(divergence, implementation)(*pairs(kind, seed, close), bandwidth))


@each_measure
@pytest.mark.parametrize("bandwidth", [0.05, 0.5, 5.0])
def test_is_bounded_with_finite_gradients_at_the_extremes(divergence, implementation, bandwidth):
    predictions, targets = extreme_pairs()
    values, gradients = measure(divergence, implementation)(predictions, targets, bandwidth)
    assert_sound(divergence, values, gradients)
    # What is outside the range is clipped to its ends, without a gradient.
    assert np.all(gradients[np.abs(predictions) > 1] == 0)
    black_on_white = values[1]
    assert black_on_white > 0.8 * {"jensen_shannon": np.log(2)}.get(divergence, 1) or bandwidth == 5.0


def test_pixels_at_the_ends_of_the_range_can_move_inwards():
    ones = np.ones(SHAPE, np.float32)
    for end, inside in ((0, 1e-6), (1, 1 - 1e-6)):
        (_, there), (_, near) = (
            measure("hellinger", "sparse")(np.float32(x) * ones, 0.5 * ones) for x in (end, inside)
        )
        # A millionth of the range is 2e-5 widths of the kernel.
        np.testing.assert_allclose(there, near, rtol=1e-3, atol=1e-5 * np.abs(near).max())
        assert np.all(there.sum((1, 2, 3)) * (end - 0.5) > 0)


@pytest.mark.parametrize(("divergence", "implementation"), [pair for pair in MEASURES if pair[0] != "cross"])
@given(kind=kinds, seed=seeds, bandwidth=bandwidths)
@few
def test_of_an_image_with_itself_is_zero_and_flat(divergence, implementation, kind, seed, bandwidth):
    x = images(kind, seed)
    value, gradients = measure(divergence, implementation)(x, x, bandwidth)
    if divergence != "relative":
        assert not value.any()
        assert not gradients.any()
    # The compiler may round the two densities differently: the exponents, up to (L - 1) / h in each of two factors, by
    # 1e-7 of their size. Relative entropy is quadratic in that; its slopes are linear, times as much again.
    exponent = 2 * (NUM_BINS - 1) / bandwidth
    assert np.all(value <= (1e-7 * exponent) ** 2)
    assert np.all(np.abs(gradients) <= 1e-7 * exponent**2 / (SIDE * SIDE * CHANNELS))


@given(kind=kinds, seed=seeds, close=st.booleans())
@few
def test_cross_entropy_is_at_least_the_entropy_and_flat_there(kind, seed, close):
    predictions, targets = pairs(kind, seed, close)
    values, _ = measure("cross", "sparse")(predictions, targets)
    least, gradients = measure("cross", "sparse")(targets, targets)
    entropy = sparse_entropy()(targets)
    # Up to log(256) = 5.5, of which float32 keeps seven digits.
    np.testing.assert_allclose(least, entropy, atol=10 * EPS)
    assert np.all(values >= entropy - 10 * EPS)
    # The slope -Q / P is -1 in every bin, where the derivatives of a density of constant mass cancel.
    assert np.all(np.abs(gradients) <= EPS * 2 * (NUM_BINS - 1) / 0.5)


@cache
def sparse_entropy():
    return quick_jit(lambda x: sel.spatial_entropy(x, num_bins=NUM_BINS, implementation="sparse"))


@each_measure
@pytest.mark.parametrize("target", [0, 3, 128, 255])
def test_is_smallest_at_a_flat_target(divergence, implementation, target):
    levels = np.clip(target + np.arange(PAIRS) - PAIRS // 2, 0, 255)
    ones = np.ones(SHAPE, np.float32)
    predictions = (levels / 255).astype(np.float32)[:, None, None, None] * ones
    values, gradients = measure(divergence, implementation)(predictions, np.float32(target / 255) * ones)
    assert levels[values.argmin()] == target
    levels, first = np.unique(levels, return_index=True)
    values, gradients = values[first], gradients[first].sum((1, 2, 3))
    below, above = levels < target, levels > target
    assert np.all(np.diff(values[levels <= target]) < 0)
    assert np.all(np.diff(values[levels >= target]) > 0)
    assert np.all(gradients[below] < 0)
    assert np.all(gradients[above] > 0)


@cache
def densities(kernel):
    def both(x, bandwidth):
        options = {"num_bins": NUM_BINS, "bandwidth": bandwidth, "kernel": kernel}
        return sel.joint_density(x, **options), sel.joint_density(x, windows="global", **options)

    return quick_jit(both)


@pytest.mark.parametrize("kernel", KERNELS)
@given(seed=seeds, kind=kinds, bandwidth=st.floats(0.05, 5))
@few
def test_a_joint_density_has_mass_one(kernel, seed, kind, bandwidth):
    for density in densities(kernel)(images(kind, seed)[:4], bandwidth):
        assert np.all(density >= 0)
        np.testing.assert_allclose(density.sum((-2, -1)), 1, rtol=EPS)


def transformed(x):
    """The first four images, turned and mirrored in all eight ways: 32 of the batch."""
    turned = np.concatenate([np.rot90(x[:4], i, (1, 2)) for i in range(4)])
    return np.concatenate([turned, turned[:, :, ::-1], x[32:]])


@pytest.mark.parametrize(("divergence", "implementation"), [("hellinger", "sparse"), ("relative", "dense")])
@given(seed=seeds, kind=kinds)
@few
def test_symmetries(divergence, implementation, seed, kind):
    x = pairs(kind, seed, close=False)
    values, gradients = measure(divergence, implementation)(*x)

    def assert_same(images, values, gradients):
        found, slopes = measure(divergence, implementation)(*images)
        # Neighbours and windows are summed in another order.
        np.testing.assert_allclose(found, values, rtol=10 * EPS, atol=EPS)
        np.testing.assert_allclose(slopes, gradients, rtol=0, atol=1e-4 * np.abs(gradients).max() + EPS)

    assert_same(map(transformed, x), np.concatenate([np.tile(values[:4], 8), values[32:]]), transformed(gradients))
    assert_same((image[..., ::-1] for image in x), values, gradients[..., ::-1])
    assert_same((image[::-1] for image in x), values[::-1], gradients[::-1])


@pytest.mark.parametrize("divergence", ["hellinger", "relative"])
@given(seed=seeds, kind=kinds, close=st.booleans(), bandwidth=st.sampled_from([0.5, 0.7, 5.0]))
@few
def test_sparse_sums_equal_dense_sums(divergence, seed, kind, close, bandwidth):
    x = pairs(kind, seed, close, least=1e-3)
    dense, sparse = (measure(divergence, i)(*x, bandwidth) for i in ("dense", "sparse"))
    # Blocks of bins are left out that hold less than 1e-6 of one pixel's mass, and of the difference of the images.
    # Images closer than 1e-3 have a gradient of no certain direction in float32: the root's, at its foot.
    np.testing.assert_allclose(sparse[0], dense[0], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(sparse[1], dense[1], rtol=0, atol=1e-3 * np.abs(dense[1]).max() + EPS)


@cache
def low_precision(divergence, implementation):
    def loss(predictions, targets):
        options = {"divergence": divergence, "num_bins": NUM_BINS, "implementation": implementation}
        values = sel.spatial_entropy_loss(predictions, targets, **options)
        return values.astype(jnp.float32).sum(), values

    return quick_jit(jax.grad(loss, has_aux=True))


@pytest.mark.parametrize(
    ("dtype", "divergence", "implementation"),
    [(jnp.bfloat16, "hellinger", "sparse"), (jnp.float16, "relative", "dense")],
)
def test_low_precision_images_lose_only_their_own_rounding(dtype, divergence, implementation):
    compiled = low_precision(divergence, implementation)
    x = [jnp.asarray(image).astype(dtype) for image in pairs("levels", 0, close=False)]
    gradients, values = compiled(*x)
    assert values.dtype == gradients.dtype == dtype
    exact_values, exact_gradients = measure(divergence, implementation)(*(image.astype(jnp.float32) for image in x))
    # Rounded once, at the end.
    eps = float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(values.astype(jnp.float32), exact_values, rtol=eps)
    atol = 1e-4 * np.abs(exact_gradients).max()
    np.testing.assert_allclose(gradients.astype(jnp.float32), exact_gradients, rtol=eps, atol=atol)

    gradients, values = compiled(*(jnp.asarray(np.clip(image, -6e4, 6e4)).astype(dtype) for image in extreme_pairs()))
    assert_sound(divergence, np.float32(values), np.float32(gradients))
    gradients, values = compiled(x[0], x[0])
    assert np.abs(np.float32(values)).max() <= EPS**2
    assert np.abs(np.float32(gradients)).max() <= EPS


@pytest.mark.parametrize(("divergence", "implementation"), [("hellinger", "sparse"), ("relative", "dense")])
def test_a_nan_is_not_hidden(divergence, implementation):
    x = images("noise", 0)
    broken = x.copy()
    broken[1, 2, 3, 0] = np.nan
    values, _ = measure(divergence, implementation)(broken, x)
    assert np.isnan(values[1])
    assert np.all(np.delete(values, 1) <= EPS)


@pytest.mark.parametrize("implementation", ["dense", "sparse"])
@pytest.mark.parametrize("divergence", ["relative", "cross"])
def test_flat_images_see_each_other_from_afar_through_every_window(divergence, implementation):
    """The logarithm of a density of exp(-112), which float32 does not hold."""

    def along(windows, num_bins):
        options = {"divergence": divergence, "implementation": implementation, "windows": windows, "num_bins": num_bins}

        def loss(a, b):
            images = (jnp.full((4, 4, 1), x) for x in (a, b))
            return sel.spatial_entropy_loss(*images, **options)

        return jax.vmap(jax.value_and_grad(loss, argnums=(0, 1)))

    for num_bins, reach in ((32, 0.9), (64, 0.45)):
        levels = np.float32([0, reach, 1 - reach, 0.5]), np.float32([reach, 0, 1, 0.5 + reach / 2])
        single, joint = quick_jit(lambda *x, n=num_bins: [along(w, n)(*x) for w in ((1,), (3, 5))])(*levels)
        # relative entropy grows by 1 / h for each bin on both axes, without an end
        slope = 2 * 2 * (num_bins - 1)
        assert np.all(np.abs(single[1][0]) > 0.6 * slope)
        # the 1 x 1 window adds its floor of 1e-30 to weights of exp(-57)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-3), joint, single)
