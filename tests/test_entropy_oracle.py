"""The corrected variant against a float64 evaluation of its formulas: values, and gradients by central differences."""

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from oracles import DIVERGENCES, KERNELS, quick_jit, slope

import sel

IMPLEMENTATIONS = ("dense", "sparse")
# Few bins and a wide kernel keep every density above the floor of 1e-30 that the logarithms have.
OPTIONS = {"num_bins": 6, "bandwidth": 0.7, "windows": (1, 3)}
SHAPE = (2, 7, 6, 2)
WEIGHTS = np.random.default_rng(5).uniform(0.1, 1, (3, 3))  # not symmetric, the centre to be ignored


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


def pair(shape, seed=0):
    """An image slightly outside [0, 1] and a noisy version of it, more than a difference step away from 0 and 1."""
    rng = np.random.default_rng(seed)
    prediction = rng.uniform(-0.1, 1.1, shape)
    return prediction, prediction + rng.normal(0, 0.2, shape)


def tolerance(divergence):
    # Jensen-Shannon holds P / M off 0 and 2 by 1e-6, which takes 1e-5 from terms at their limit. The rest is float64.
    return 2e-5 if divergence == "jensen_shannon" else 1e-9


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_values(divergence, kernel):
    options = {**OPTIONS, "divergence": divergence, "kernel": kernel}
    whole_image = {**options, "windows": "global"}

    @quick_jit
    def losses(*images):
        local = [sel.spatial_entropy_loss(*images, implementation=i, **options) for i in IMPLEMENTATIONS]
        return local, sel.spatial_entropy_loss(*images, **whole_image)

    images = pair(SHAPE)
    local, whole = losses(*images)
    expected = oracles.spatial_entropy_loss(*images, **options)
    for value in local:
        np.testing.assert_allclose(value, expected, rtol=tolerance(divergence))
    expected = oracles.spatial_entropy_loss(*images, **whole_image)
    np.testing.assert_allclose(whole, expected, rtol=tolerance(divergence))


@pytest.mark.parametrize(
    ("divergence", "windows"),
    [("relative", (1,)), ("relative", (5, 3, 1)), ("jensen_shannon", (1,)), ("jensen_shannon", (9,))],
)
def test_values_at_every_pixel(divergence, windows):
    options = {**OPTIONS, "divergence": divergence, "windows": windows}
    images = pair(SHAPE)
    expected = oracles.loss_map(*images, **options)
    values = quick_jit(
        lambda *images: [
            sel.spatial_entropy_loss(*images, implementation=i, return_map=True, **options) for i in IMPLEMENTATIONS
        ]
    )(*images)
    for value in values:
        np.testing.assert_allclose(value, expected, rtol=tolerance(divergence), atol=1e-12)


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 5, 1), (9, 4, 3), (2, 6, 5, 1), (2, 3, 4, 5, 2)])
def test_shapes(shape):
    images = pair(shape)
    expected = oracles.spatial_entropy_loss(*images, **OPTIONS)
    for implementation in IMPLEMENTATIONS:
        options = {**OPTIONS, "implementation": implementation}
        loss = quick_jit(lambda *images, options=options: sel.spatial_entropy_loss(*images, **options))(*images)
        assert loss.shape == shape[:-3]
        np.testing.assert_allclose(loss, expected, rtol=1e-9)


@pytest.mark.parametrize("windows", [(1, 3, 5), "global"])
def test_entropy(windows):
    image, _ = pair(SHAPE)
    options = {**OPTIONS, "windows": windows}
    expected = oracles.spatial_entropy(image, **options)
    for implementation in IMPLEMENTATIONS:
        entropy = quick_jit(lambda x, i=implementation: sel.spatial_entropy(x, implementation=i, **options))(image)
        np.testing.assert_allclose(entropy, expected, rtol=1e-9)


@pytest.mark.parametrize("windows", [(1, 3, 5), "global"])
@pytest.mark.parametrize("kernel", KERNELS)
def test_joint_density(kernel, windows):
    options = {**OPTIONS, "kernel": kernel, "windows": windows, "value_range": (-0.2, 1.0)}
    image, _ = pair(SHAPE)
    where = np.random.default_rng(1).random(SHAPE) < 0.7
    density = quick_jit(lambda x, w, m: sel.joint_density(x, neighbor_weights=w, where=m, **options))
    for mask in (np.ones(SHAPE, bool), where):
        expected = oracles.joint_density(image, neighbor_weights=WEIGHTS, where=mask, **options)
        values = np.asarray(density(image, WEIGHTS, mask))
        if windows == "global":
            expected = expected.squeeze((1, 2))
        else:
            values = np.where(mask[..., None, None], values, 0)
        np.testing.assert_allclose(values, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("divergence", "kernel", "implementation", "windows"),
    [(d, "logistic", "sparse", (1, 3)) for d in DIVERGENCES]
    + [(d, "logistic", "dense", (1, 3)) for d in ("relative", "jensen_shannon")]
    + [(d, "logistic", None, "global") for d in ("hellinger", "cross")]
    + [("hellinger", "sech", "sparse", (3,)), ("relative", "gaussian", "sparse", (5,))],
)
def test_gradients_by_both_images_and_the_neighbor_weights(divergence, kernel, implementation, windows):
    options = {**OPTIONS, "divergence": divergence, "kernel": kernel, "windows": windows}
    scales = np.array([1.0, -0.7])  # so that neither image hides behind the other

    def expected(prediction, target, weights):
        return scales @ oracles.spatial_entropy_loss(prediction, target, neighbor_weights=weights, **options)

    def loss(prediction, target, weights):
        values = sel.spatial_entropy_loss(
            prediction, target, neighbor_weights=weights, implementation=implementation, **options
        )
        return (values * scales).sum()

    arguments = (*pair(SHAPE), WEIGHTS)
    gradients = quick_jit(jax.grad(loss, argnums=(0, 1, 2)))(*arguments)
    rng = np.random.default_rng(2)
    for i, gradient in enumerate(gradients):
        assert np.all(gradient[1, 1] == 0) or i < 2
        for _ in range(3):
            direction = rng.normal(size=gradient.shape)
            along = slope(lambda x, i=i: expected(*arguments[:i], x, *arguments[i + 1 :]), arguments[i], direction)
            # The step of 1e-5 is 1e-4 of a kernel's width; central differences leave out its square.
            atol = max(1e-7, tolerance(divergence)) * float(np.linalg.norm(gradient)) * np.sqrt(gradient.size)
            np.testing.assert_allclose(np.vdot(gradient, direction), along, rtol=0, atol=atol)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_masks_weights_and_value_range(implementation):
    options = {**OPTIONS, "divergence": "relative", "value_range": (-0.3, 1.3)}
    images = pair(SHAPE)
    where = np.random.default_rng(3).random(SHAPE) < 0.6
    unseen = [np.where(where, x, np.nan) for x in images]

    def loss(prediction, target, weights, where):
        values = sel.spatial_entropy_loss(
            prediction, target, neighbor_weights=weights, where=where, implementation=implementation, **options
        )
        return values[0], values

    def expected(prediction):
        return oracles.spatial_entropy_loss(prediction, images[1], neighbor_weights=WEIGHTS, where=where, **options)

    gradient, values = quick_jit(jax.grad(loss, has_aux=True))(*unseen, WEIGHTS, where)
    np.testing.assert_allclose(values, expected(images[0]), rtol=1e-9)
    direction = np.random.default_rng(4).normal(size=SHAPE)
    np.testing.assert_allclose(np.vdot(gradient, direction), slope(expected, images[0], direction)[0], rtol=1e-6)


def smooth_pair(h, w):
    """A gradient with some noise and a darker version: at 32 bins most of each tile's are empty."""
    rng = np.random.default_rng(6)
    y, x = np.mgrid[:h, :w]
    image = (0.15 + 0.5 * x / w + 0.3 * y / h + rng.normal(0, 0.02, (h, w)))[..., None]
    return 0.8 * image + rng.normal(0, 0.01, image.shape), image


@pytest.mark.parametrize("divergence", ["hellinger", "cross"])
def test_images_larger_than_a_tile(divergence):
    images = smooth_pair(40, 70)
    options = {"divergence": divergence, "num_bins": 16, "return_map": True}

    def gradient(implementation):
        def loss(*images):
            values = sel.spatial_entropy_loss(*images, implementation=implementation, **options)
            return values.mean(), values

        return quick_jit(jax.grad(loss, has_aux=True))

    expected, exact = gradient("dense")(*images)
    np.testing.assert_allclose(
        exact, oracles.loss_map(*images, divergence=divergence, num_bins=16), rtol=tolerance(divergence), atol=1e-9
    )
    slopes, values = gradient("sparse")(*(jnp.asarray(x, jnp.float32) for x in images))
    # Blocks of bins are left out where all pixels of a tile together put less than 1e-6 of one pixel's mass.
    np.testing.assert_allclose(values, exact, rtol=0, atol=1e-4)
    np.testing.assert_allclose(slopes, expected, rtol=0, atol=1e-3 * np.abs(expected).max())
    assert abs(values.mean() - exact.mean()) < 1e-5
