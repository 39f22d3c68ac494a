"""Layers against float64 NumPy and numerical derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sel.models.layers import (
    EndingConv3x3,
    IntroConv3x3,
    Modulated,
    PointwiseConv,
    PointwiseHalves,
    depth_to_space,
    pad_to_multiple,
    per_channel,
    simple_gate,
    sinusoidal_embedding,
    space_to_depth,
)
from sel.models.operations import (
    _kernel_grad,
    _kernel_grad_by_rows,
    _pad_by_one,
    conv3x3_few_outputs,
    depthwise_conv3x3,
    layer_norm,
    pointwise_conv,
)

pytestmark = pytest.mark.usefixtures("compile_little")


def depthwise_oracle(x, kernel):
    x, kernel = np.asarray(x, np.float64), np.asarray(kernel, np.float64)
    _, h, w, _ = x.shape
    y = np.zeros_like(x)
    for i in range(h):
        for j in range(w):
            for a in (-1, 0, 1):
                for b in (-1, 0, 1):
                    if 0 <= i + a < h and 0 <= j + b < w:
                        y[:, i, j] += kernel[a + 1, b + 1] * x[:, i + a, j + b]
    return y


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


@pytest.mark.parametrize("size", [(1, 1), (1, 4), (5, 3)])
def test_depthwise_convolution_and_its_derivative(size):
    x, kernel = normal(0, 2, *size, 3), normal(1, 3, 3, 3)
    np.testing.assert_allclose(depthwise_conv3x3(x, kernel), depthwise_oracle(x, kernel), atol=3e-6)
    # Linear in x and in the kernel, so that the adjoints are exact: <y, A x> is the same number from either side.
    y = normal(2, *x.shape)
    grad_x, grad_kernel = jax.jit(lambda y: jax.vjp(depthwise_conv3x3, x, kernel)[1](y))(y)
    inner = np.sum(depthwise_oracle(x, kernel) * np.asarray(y))
    np.testing.assert_allclose(
        [jnp.vdot(grad_x, x), jnp.vdot(grad_kernel, kernel)], [inner, inner], rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("size", [(1, 1), (1, 4), (5, 3)])
def test_kernel_gradients_of_all_platforms_agree(size):
    x, grad = normal(0, 2, *size, 3), normal(1, 2, *size, 3)
    # Sums of at most 30 products in another order.
    by_rows, at_once = (jax.jit(f)(_pad_by_one(x), grad) for f in (_kernel_grad_by_rows, _kernel_grad))
    np.testing.assert_allclose(by_rows, at_once, atol=1e-5)


def test_depthwise_convolution_in_bfloat16_sums_in_float32():
    x, kernel = normal(0, 2, 6, 7, 4).astype(jnp.bfloat16), normal(1, 3, 3, 4)
    y = depthwise_conv3x3(x, kernel)
    assert y.dtype == jnp.bfloat16
    # One rounding to bfloat16 (2^-9, relative) after a float32 sum.
    np.testing.assert_allclose(y.astype(jnp.float32), depthwise_oracle(x, kernel), rtol=2.0**-8, atol=1e-6)
    total = jax.grad(lambda *a: jnp.sum(depthwise_conv3x3(*a).astype(jnp.float32)), (0, 1))
    grad_x, grad_kernel = jax.jit(total)(x, kernel)
    assert (grad_x.dtype, grad_kernel.dtype) == (jnp.bfloat16, jnp.float32)
    np.testing.assert_allclose(grad_kernel[1, 1], x.astype(jnp.float32).sum((0, 1, 2)), rtol=1e-5, atol=1e-5)


def test_pointwise_convolution_and_its_derivative():
    x, kernel, grad = normal(0, 2, 3, 4, 5), normal(1, 5, 6), normal(2, 2, 3, 4, 6)
    y, pull = jax.vjp(pointwise_conv, x, kernel)
    x64, kernel64, grad64 = (np.asarray(a, np.float64) for a in (x, kernel, grad))
    grad_x, grad_kernel = pull(grad)
    # Sums of at most 24 products of standard normal numbers.
    np.testing.assert_allclose(y, x64 @ kernel64, atol=1e-5)
    np.testing.assert_allclose(grad_x, grad64 @ kernel64.T, atol=1e-5)
    np.testing.assert_allclose(grad_kernel, np.einsum("bhwc,bhwd->cd", x64, grad64), atol=1e-5)


def test_pointwise_convolution_with_a_kernel_for_each_image():
    x, kernels, grad = normal(0, 2, 3, 4, 5), normal(1, 2, 5, 6), normal(2, 2, 3, 4, 6)
    y, pull = jax.vjp(pointwise_conv, x, kernels)
    alone, pull_alone = zip(*(jax.vjp(pointwise_conv, x[i : i + 1], kernels[i : i + 1]) for i in range(2)), strict=True)
    np.testing.assert_allclose(y, np.concatenate(alone), atol=1e-5)
    expected = zip(*(pull(grad[i : i + 1]) for i, pull in enumerate(pull_alone)), strict=True)
    for gradient, parts in zip(pull(grad), expected, strict=True):
        np.testing.assert_allclose(gradient, np.concatenate(parts), atol=1e-5)


@pytest.mark.parametrize("images", [1, 2])
@pytest.mark.parametrize("features", [4, 24], ids=["into the kernel", "computed"])
def test_what_modulates_a_pointwise_convolution_may_go_into_its_weights(images, features):
    x, scale, shift = normal(0, 2, 3, 4, 5), normal(1, images, 1, 1, 5), normal(2, images, 1, 1, 5)
    kernel, bias, gain = normal(3, 5, features), normal(4, features), normal(5, features)

    def output(x, scale, shift, kernel, bias, gain):
        params = {"params": {"kernel": kernel, "bias": bias}}
        return PointwiseConv(features).apply(params, Modulated(x, scale, shift), gain)

    def plainly(x, scale, shift, kernel, bias, gain):
        y = jnp.einsum("bhwc,cd->bhwd", x * scale + shift, kernel)
        return (y + per_channel(bias, x.dtype)) * per_channel(gain, x.dtype)

    arguments, grad = (x, scale, shift, kernel, bias, gain), normal(6, 2, 3, 4, features)
    y, pull = jax.vjp(output, *arguments)
    expected, pull_plain = jax.vjp(plainly, *arguments)
    # Sums of at most 24 pixels x 24 features of products of four standard normal numbers.
    np.testing.assert_allclose(y, expected, atol=1e-4)
    for gradient, plain in zip(pull(grad), pull_plain(grad), strict=True):
        np.testing.assert_allclose(gradient, plain, rtol=1e-4, atol=1e-3)


def test_halves_are_those_of_the_whole():
    x = normal(0, 2, 3, 4, 5)
    params = {"params": {"kernel": normal(1, 5, 6), "bias": normal(2, 6)}}
    whole = PointwiseConv(6).apply(params, x)
    np.testing.assert_allclose(np.concatenate(PointwiseHalves(6).apply(params, x), axis=-1), whole, atol=1e-5)


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
@pytest.mark.parametrize("size", [(1, 1), (1, 4), (5, 3)])
def test_ending_convolution_on_all_platforms(size, backend, monkeypatch):
    x, params = normal(0, 2, *size, 4), {"kernel": normal(1, 3, 3, 4, 2), "bias": normal(2, 2)}
    expected = [
        sum(depthwise_oracle(x[..., [c]], params["kernel"][:, :, [c], k]) for c in range(4))[..., 0] for k in range(2)
    ]
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    y = EndingConv3x3(2).apply({"params": params}, x)
    # 36 products of standard normal numbers.
    np.testing.assert_allclose(y, np.stack(expected, axis=-1) + np.asarray(params["bias"]), atol=2e-5)


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
def test_first_convolution_and_its_derivative_on_all_platforms(backend, monkeypatch):
    x, kernel, bias, grad = normal(0, 2, 5, 3, 4), normal(1, 3, 3, 4, 6), normal(2, 6), normal(3, 2, 5, 3, 6)
    monkeypatch.setattr(jax, "default_backend", lambda: backend)

    def first(x, kernel):
        return IntroConv3x3(6).apply({"params": {"kernel": kernel, "bias": bias}}, x)

    def plain(x, kernel):
        y = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        return y + per_channel(bias, x.dtype)

    (y, pull), (expected, pull_plain) = jax.vjp(first, x, kernel), jax.vjp(plain, x, kernel)
    # At most 36 products of standard normal numbers, or 54.
    np.testing.assert_allclose(y, expected, atol=2e-5)
    for gradient, other in zip(pull(grad), pull_plain(grad), strict=True):
        np.testing.assert_allclose(gradient, other, atol=3e-5)


def test_ending_convolution_has_the_derivative_of_a_convolution():
    x, kernel, grad = normal(0, 2, 5, 3, 4), normal(1, 3, 3, 4, 2), normal(2, 2, 5, 3, 2)

    def convolution(x, kernel):
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    for got, expected in zip(
        jax.vjp(conv3x3_few_outputs, x, kernel)[1](grad), jax.vjp(convolution, x, kernel)[1](grad), strict=True
    ):
        np.testing.assert_allclose(got, expected, atol=2e-5)


def test_layer_norm_and_its_derivative():
    x, grad = 3 + 2 * normal(0, 2, 3, 4, 5), normal(1, 2, 3, 4, 5)

    def plain(x):
        centred = x - x.mean(-1, keepdims=True)
        return centred / jnp.sqrt(jnp.square(centred).mean(-1, keepdims=True) + 1e-3)

    y, pull = jax.vjp(lambda x: layer_norm(x, 1e-3), x)
    x64 = np.asarray(x, np.float64)
    expected = (x64 - x64.mean(-1, keepdims=True)) / np.sqrt(x64.var(-1, keepdims=True) + 1e-3)
    np.testing.assert_allclose(y, expected, atol=1e-5)
    # Both are float32; a small variance divides their roundings.
    np.testing.assert_allclose(pull(grad)[0], jax.vjp(plain, x)[1](grad)[0], atol=2e-5)
    # A flat pixel has no direction: its derivative is finite.
    flat = jax.vjp(lambda x: layer_norm(x, 1e-5), jnp.ones((1, 1, 1, 4)))[1](normal(2, 1, 1, 1, 4))[0]
    assert np.all(np.isfinite(flat))


def test_layer_norm_in_bfloat16_has_statistics_in_float32():
    x = (100 + normal(0, 1, 2, 2, 64)).astype(jnp.bfloat16)
    y = layer_norm(x, 1e-5)
    assert y.dtype == jnp.bfloat16
    x64 = np.asarray(x, np.float64)
    expected = (x64 - x64.mean(-1, keepdims=True)) / np.sqrt(x64.var(-1, keepdims=True) + 1e-5)
    # One rounding to bfloat16 (2^-9, relative).
    np.testing.assert_allclose(y.astype(jnp.float32), expected, rtol=2.0**-8, atol=1e-4)


def test_space_to_depth_orders_row_column_channel():
    x = normal(0, 2, 4, 6, 3)
    deep = space_to_depth(x)
    assert deep.shape == (2, 2, 3, 12)
    np.testing.assert_array_equal(deep[0, 1, 2].reshape(2, 2, 3), x[0, 2:4, 4:6])
    np.testing.assert_array_equal(depth_to_space(deep), x)


@given(st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 2, 4, 8]))
@settings(deadline=None, max_examples=10)
def test_padding_extends_to_the_next_multiple(h, w, multiple):
    x = np.random.default_rng(h).normal(size=(1, h, w, 2))
    padded = pad_to_multiple(jnp.asarray(x, jnp.float32), multiple, "constant")
    assert padded.shape[1] % multiple == padded.shape[2] % multiple == 0
    assert padded.shape[1] - h < multiple > padded.shape[2] - w
    np.testing.assert_allclose(jnp.sum(padded), x.sum(), atol=1e-5)


def test_time_embedding():
    t, frequencies = np.array([1, 50, 1000]), 10_000.0 ** (-np.arange(4) / 3)
    expected = np.concatenate([np.sin(t[:, None] * frequencies), np.cos(t[:, None] * frequencies)], axis=-1)
    # Angles reach 1000, whose float32 spacing is 6e-5.
    np.testing.assert_allclose(sinusoidal_embedding(jnp.asarray(t), 8), expected, atol=1e-4)


@pytest.mark.parametrize("dim", [2, 7])
def test_time_embedding_names_a_bad_size(dim):
    with pytest.raises(ValueError, match=f"dim must be an even number of at least 4, found {dim}"):
        sinusoidal_embedding(jnp.array([1]), dim)


def test_simple_gate():
    first, second = normal(0, 2, 3, 4, 3), normal(1, 2, 3, 4, 3)
    np.testing.assert_allclose(simple_gate(first, second), first * second)
