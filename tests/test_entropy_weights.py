"""What counts, and how much: masks, and the weights of neighbours."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import quick_jit

import sel

# Sums over 64 bins and 50 pixels of float32 terms that are accurate to 1e-7.
EPS = 1e-6


@pytest.mark.parametrize("implementation", ["dense", "sparse"])
def test_masked_pixels_are_as_if_they_were_not_there(implementation):
    def loss(*x, where=None):
        return sel.spatial_entropy_loss(
            *x, where=where, num_bins=8, divergence="relative", implementation=implementation
        )

    gradient = quick_jit(jax.value_and_grad(lambda *x: loss(*x[:2], where=x[2])))
    rng = np.random.default_rng(1)
    x = rng.random((2, 7, 8, 2)).astype(np.float32)
    where = np.zeros(x[0].shape, bool)
    where[2:6, 1:6] = True
    value, gradients = gradient(*x, where)
    for nothing in (np.nan, np.inf, 1e30):
        again, same = gradient(*np.where(where, x, np.float32(nothing)), where)
        np.testing.assert_array_equal(again, value)
        np.testing.assert_array_equal(same, gradients)

    crops = x[:, 2:6, 1:6]
    expected, slopes = quick_jit(jax.value_and_grad(loss))(*crops)
    # The same sums, in another order.
    np.testing.assert_allclose(value, expected, rtol=EPS)
    np.testing.assert_allclose(gradients[2:6, 1:6], slopes, rtol=0, atol=1e-5 * np.abs(slopes).max())
    assert not np.any(gradients * ~where)

    value, gradients = gradient(*x, np.zeros_like(where))
    assert value == 0
    assert not np.any(gradients)


def test_masked_pixels_of_whole_images():
    x = np.random.default_rng(1).random((2, 7, 8, 2)).astype(np.float32)
    where = np.zeros(x[0].shape, bool)
    where[2:6, 1:6] = True

    def loss(*x, where=None):
        return sel.spatial_entropy_loss(*x, where=where, num_bins=8, windows="global")

    unseen = np.where(where, x, np.float32(np.nan))
    value, gradient = quick_jit(jax.value_and_grad(lambda *x: loss(*x[:2], where=x[2])))(*unseen, where)
    np.testing.assert_allclose(value, quick_jit(loss)(*x[:, 2:6, 1:6]), rtol=10 * EPS)
    assert np.all(np.isfinite(gradient))
    assert not np.any(gradient * ~where)


def test_neighbor_weights_matter_by_their_shares():
    x = np.random.default_rng(2).random((2, 6, 6, 1)).astype(np.float32)
    loss = quick_jit(
        jax.value_and_grad(lambda w: sel.spatial_entropy_loss(*map(jnp.asarray, x), num_bins=8, neighbor_weights=w))
    )
    weights = np.random.default_rng(3).dirichlet(np.ones(9)).reshape(3, 3).astype(np.float32)
    value, gradient = loss(weights)
    assert np.all(np.isfinite(gradient))
    assert np.abs(gradient).max() > 1e-4
    assert gradient[1, 1] == 0
    # A common factor cancels, and so the gradient is orthogonal to the weights.
    np.testing.assert_allclose(loss(3 * weights)[0], value, rtol=EPS)
    assert abs(np.vdot(gradient, weights)) < 10 * EPS * np.linalg.norm(gradient)
    # Without any weight on its neighbours a pixel is its own.
    value, gradient = loss(np.zeros((3, 3), np.float32))
    assert np.isfinite(value)
    assert np.all(np.isfinite(gradient))
