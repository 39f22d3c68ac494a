"""The loss under JAX's transformations and on several devices, what it says about wrong arguments, and its memory."""

import dataclasses
import functools
import inspect
import os
import re
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path

import jax
import jax.export
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from oracles import quick_jit

import sel
from sel.entropy import inputs

each_implementation = pytest.mark.parametrize("implementation", ["dense", "sparse"])
OPTIONS = {"num_bins": 6, "divergence": "relative", "windows": (1, 3)}
PREDICTIONS, TARGETS = np.random.default_rng(0).uniform(0.1, 0.9, (2, 3, 5, 6, 2)).astype(np.float32)
DIRECTION = np.random.default_rng(1).normal(size=PREDICTIONS.shape).astype(np.float32)
# Sums of some hundred float32 terms, in another order.
CLOSE = {"rtol": 1e-5, "atol": 1e-7}


def losses(predictions, targets, implementation, **options):
    return sel.spatial_entropy_loss(predictions, targets, implementation=implementation, **OPTIONS, **options)


def gradient_and_losses(predictions, targets, implementation):
    def loss(x):
        values = losses(x, targets, implementation)
        return values.sum(), values

    return jax.grad(loss, has_aux=True)(predictions)


@functools.cache
def reference(implementation):
    gradient, values = quick_jit(lambda *x: gradient_and_losses(*x, implementation))(PREDICTIONS, TARGETS)
    return np.asarray(gradient), np.asarray(values)


@each_implementation
def test_vmap(implementation):
    def by_bandwidth(bandwidth):
        return losses(PREDICTIONS[0], TARGETS[0], implementation, bandwidth=bandwidth)

    def both(predictions, targets, bandwidths):
        over_images = jax.vmap(lambda *x: gradient_and_losses(*x, implementation))(predictions, targets)
        return over_images, jax.vmap(by_bandwidth)(bandwidths)

    found, over_bandwidths = quick_jit(both)(PREDICTIONS, TARGETS, jnp.array([0.5, 0.8]))
    for one, expected in zip(found, reference(implementation), strict=True):
        np.testing.assert_allclose(one, expected, **CLOSE)
    np.testing.assert_allclose(over_bandwidths[0], found[1][0], **CLOSE)
    assert abs(over_bandwidths[1] - over_bandwidths[0]) > 1e-3


@each_implementation
def test_checkpoint(implementation):
    loss = jax.checkpoint(lambda x, y: losses(x, y, implementation).sum())
    found = quick_jit(jax.grad(loss))(PREDICTIONS, TARGETS)
    np.testing.assert_allclose(found, reference(implementation)[0], **CLOSE)


def test_forward_mode():
    def derivative(x, v):
        return jax.jvp(lambda x: losses(x, TARGETS, "dense"), (x,), (v,))

    found, tangents = quick_jit(derivative)(PREDICTIONS, DIRECTION)
    gradient, values = reference("dense")
    np.testing.assert_allclose(found, values, **CLOSE)
    # A sum of 60 products with both signs.
    np.testing.assert_allclose(tangents, (gradient * DIRECTION).sum((1, 2, 3)), rtol=1e-4)


@each_implementation
def test_gradients_of_gradients(implementation):
    with jax.enable_x64(True):
        x, y, v = (np.asarray(a[0], np.float64) for a in (PREDICTIONS, TARGETS, DIRECTION))
        gradient = jax.grad(lambda x: losses(x, y, implementation))
        product = quick_jit(jax.grad(lambda x: jnp.vdot(gradient(x), v)))(x)
        slopes, step = quick_jit(gradient), 1e-6
        expected = (slopes(x + step * v) - slopes(x - step * v)) / (2 * step)
    # The Hessian times v. Central differences leave out the step squared, in widths of a kernel: (1e-6 * 5 / 0.5)^2.
    np.testing.assert_allclose(product, expected, rtol=0, atol=1e-7 * np.abs(expected).max())


@functools.cache
def hessian_product(implementation, divergence, dtype):
    """At 32 bins, from black to white: most densities are below what float32 can hold."""
    generator = np.random.default_rng(1)
    ramp = np.linspace(0.02, 0.98, 16)[None, :, None]
    images = np.clip(ramp + 0.05 * generator.standard_normal((2, 14, 16, 1)), 0, 1)
    with jax.enable_x64(dtype == np.float64):
        x, y, v = (jnp.asarray(array, dtype) for array in (*images, generator.standard_normal(images[0].shape)))
        options = {"implementation": implementation, "divergence": divergence, "windows": (1, 3)}

        def slope(x):
            return jnp.vdot(jax.grad(lambda x: sel.spatial_entropy_loss(x, y, **options))(x), v)

        return np.asarray(quick_jit(jax.grad(slope))(x), np.float64)


@pytest.mark.parametrize("divergence", ["hellinger", "relative", "cross", "jensen_shannon", "entropy_difference"])
@each_implementation
def test_gradients_of_gradients_in_float32(implementation, divergence):
    found, exact = (
        hessian_product(implementation, divergence, np.float32),
        hessian_product("dense", divergence, np.float64),
    )
    # A second derivative of Hellinger's root divides differences of order 1 by totals down to 1e-2: 1e-7 / 1e-2.
    np.testing.assert_allclose(found, exact, rtol=0, atol=1e-4 * np.abs(exact).max())


def check_one_argument_varies(implementation):
    """Under `jax.shard_map`, with one image the same on all devices."""
    mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,))
    split, same = PartitionSpec("data"), PartitionSpec()
    work = functools.partial(gradient_and_losses, implementation=implementation)
    expected = quick_jit(work)(*(jnp.stack([images[0]] * 2) for images in (PREDICTIONS, TARGETS)))
    for predictions, targets in ((split, same), (same, split)):
        images = [
            np.stack([x[0]] * (2 if spec == split else 1))
            for x, spec in ((PREDICTIONS, predictions), (TARGETS, targets))
        ]
        # What is the same everywhere gets the gradient of all devices together.
        mapped = jax.shard_map(work, mesh=mesh, in_specs=(predictions, targets), out_specs=(predictions, split))
        gradient, values = quick_jit(mapped)(*images)
        wanted = expected[0] if predictions == split else expected[0].sum(0, keepdims=True)
        np.testing.assert_allclose(gradient, wanted, **CLOSE)
        np.testing.assert_allclose(values, expected[1], **CLOSE)


def check_set_mesh():
    """Under `jax.set_mesh`: images divided by rows, too; maps, entropies, densities; a bandwidth that is computed."""
    mesh = jax.make_mesh((2,), ("data",))
    x, y = PREDICTIONS[:2, :4], TARGETS[:2, :4]

    def everything(x, y):
        loss = losses(x, y, "dense")
        mixed = sel.combined_loss(x, y, l1=1.0, blurred_l1=1.0, blur_sigma=0.3, bandwidth=x.max(), **OPTIONS)
        kept = losses(x, y, "dense", return_map=True)
        return loss, mixed, kept, sel.spatial_entropy(x, num_bins=4), sel.joint_density(x, num_bins=4, windows=(1,))

    expected = quick_jit(everything)(x, y)
    with jax.set_mesh(mesh):
        for spec in (PartitionSpec("data"), PartitionSpec(None, "data"), PartitionSpec()):
            found = quick_jit(everything)(*jax.device_put((x, y), NamedSharding(mesh, spec)))
            jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **CLOSE), found, expected)


def check_devices(count, implementation, *, mapped, axes=AxisType.Auto):
    """Gradients and losses with the batch divided among devices: by `jax.shard_map`, or by the compiler."""
    mesh = jax.make_mesh((count,), ("data",), axis_types=(axes,), devices=jax.devices()[:count])
    spec = PartitionSpec("data")
    work = functools.partial(gradient_and_losses, implementation=implementation)
    if mapped:
        work = jax.shard_map(work, mesh=mesh, in_specs=(spec, spec), out_specs=(spec, spec))
    images = jax.device_put((PREDICTIONS[:2], TARGETS[:2]), NamedSharding(mesh, spec))
    for found, expected in zip(quick_jit(work)(*images), reference(implementation), strict=True):
        assert len(found.sharding.device_set) == count
        np.testing.assert_allclose(found, expected[:2], **CLOSE)


@each_implementation
def test_one_device(implementation):
    check_devices(1, implementation, mapped=True)


def test_two_devices():
    script = """
        from jax.sharding import AxisType
        from test_entropy_api import check_devices, check_one_argument_varies, check_set_mesh
        check_devices(2, "dense", mapped=True)
        check_devices(2, "sparse", mapped=True)
        check_devices(2, "sparse", mapped=False)
        check_devices(2, "dense", mapped=False, axes=AxisType.Explicit)
        check_devices(2, "sparse", mapped=False, axes=AxisType.Explicit)
        check_devices(2, "sparse", mapped=True, axes=AxisType.Explicit)
        check_set_mesh()
        check_one_argument_varies("dense")
        check_one_argument_varies("sparse")
    """
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path]),
    }
    command = [sys.executable, "-c", textwrap.dedent(script)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.fixture
def _unchecked():
    """Errors as users see them, without the checks of types that tests run under."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.usefixtures("_unchecked")
@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.bool_, np.complex64])
def test_images_must_be_floating_point(dtype):
    image = PREDICTIONS.astype(dtype)
    with pytest.raises(TypeError, match=f"predictions must be floating point.*found {image.dtype}"):
        sel.spatial_entropy_loss(image, image)
    for function in (sel.spatial_entropy, sel.joint_density):
        with pytest.raises(TypeError, match=f"images must be floating point.*found {image.dtype}"):
            function(image)


@pytest.mark.usefixtures("_unchecked")
@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (TARGETS[:2], r"targets must have the shape of predictions, \(3, 5, 6, 2\), found \(2, 5, 6, 2\)"),
        (TARGETS[:1], r"targets must have the shape .* found \(1, 5, 6, 2\)"),
        (TARGETS[0], r"targets must have the shape .* found \(5, 6, 2\)"),
        (TARGETS.astype(np.float16), "targets must have the dtype of predictions, float32, found float16"),
    ],
)
def test_images_must_be_alike(targets, message):
    with pytest.raises(ValueError, match=message):
        sel.spatial_entropy_loss(PREDICTIONS, targets)


@pytest.mark.usefixtures("_unchecked")
def test_images_must_have_three_axes():
    flat = PREDICTIONS[0, ..., 0]
    with pytest.raises(ValueError, match=r"predictions must have shape \[..., h, w, c\].*found \(5, 6\)"):
        sel.spatial_entropy_loss(flat, flat)


@pytest.mark.usefixtures("_unchecked")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"divergence": "kl"}, "divergence must be one of hellinger, relative, cross, jensen_shannon.*found 'kl'"),
        ({"kernel": "box"}, "kernel must be one of logistic, sech, gaussian, found 'box'"),
        ({"variant": "old"}, "variant must be one of corrected, published, found 'old'"),
        ({"implementation": "fast"}, "implementation must be one of dense, sparse, found 'fast'"),
        ({"implementation": "fast", "windows": "global"}, "implementation must be one of dense, sparse, found 'fast'"),
        ({"num_bins": 1}, "num_bins must be a whole number of at least 2, found 1"),
        ({"num_bins": 8.0}, "num_bins must be a whole number of at least 2, found 8.0"),
        ({"windows": 3}, 'windows must be odd sizes.*"global", found 3'),
        ({"windows": ()}, r'windows must be odd sizes.*"global", found \(\)'),
        ({"windows": (3, 4)}, r'windows must be odd sizes.*"global", found \(3, 4\)'),
        ({"windows": (-1,)}, r'windows must be odd sizes.*"global", found \(-1,\)'),
        ({"windows": "local"}, "windows must be odd sizes.*\"global\", found 'local'"),
        ({"windows": "global", "return_map": True}, 'return_map=True has no meaning for windows="global"'),
        ({"bandwidth": 0}, "bandwidth must be a positive number of bins.*found 0"),
        ({"bandwidth": -0.5}, "bandwidth must be a positive number of bins.*found -0.5"),
        ({"bandwidth": np.nan}, "bandwidth must be a positive number of bins.*found nan"),
        ({"bandwidth": np.ones(2)}, "bandwidth must be a positive number of bins.*found array"),
        ({"value_range": (1.0, 0.0)}, r"value_range must be \(low, high\) with low < high, found \(1.0, 0.0\)"),
        ({"value_range": (0.0, 0.0)}, r"value_range must be \(low, high\) with low < high, found \(0.0, 0.0\)"),
        ({"value_range": (0.0, np.nan)}, r"value_range must be \(low, high\) with low < high, found \(0.0, nan\)"),
        ({"neighbor_weights": np.ones(8)}, r"neighbor_weights must have shape \(3, 3\), found \(8,\)"),
        ({"where": TARGETS[0] > 0}, r"where must have the shape of predictions, .* found \(5, 6, 2\)"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(functools.partial(sel.spatial_entropy_loss, **options), PREDICTIONS, TARGETS)


@pytest.mark.usefixtures("_unchecked")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"value_range": (0.0, np.inf)}, r"value_range must be \(low, high\).*found \(0.0, inf\)"),
        ({"value_range": (0.0,)}, r"value_range must be \(low, high\).*found \(0.0,\)"),
        ({"bandwidth": None}, "bandwidth must be a positive number of bins.*found None"),
    ],
)
def test_unusual_wrong_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(functools.partial(sel.spatial_entropy_loss, **options), PREDICTIONS, TARGETS)


@pytest.mark.parametrize("function", [sel.spatial_entropy, sel.joint_density])
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_dtypes_are_kept(function, dtype):
    assert jax.eval_shape(function, jax.ShapeDtypeStruct((3, 4, 5, 2), dtype)).dtype == dtype


def test_combined_loss_masks_all_its_terms():
    where = np.zeros(PREDICTIONS.shape, bool)
    where[:, 1:4, 2:5] = True
    images = [jnp.asarray(np.where(where, x, np.float32(np.nan))) for x in (PREDICTIONS, TARGETS)]
    found = sel.combined_loss(*images, entropy=0.0, l1=1.0, where=jnp.asarray(where))
    expected = np.abs(PREDICTIONS - TARGETS)[:, 1:4, 2:5].mean((1, 2, 3))
    np.testing.assert_allclose(found, expected, **CLOSE)


@pytest.mark.usefixtures("_unchecked")
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"nonsense": 3}, TypeError, "combined_loss has no option 'nonsense': there are .*entropy, l1, blurred_l1"),
        ({"return_map": True}, TypeError, "combined_loss has no option 'return_map'"),
        ({"divergence": "foo"}, ValueError, "divergence must be one of .*found 'foo'"),
        ({"num_bins": -5}, ValueError, "num_bins must be a whole number of at least 2, found -5"),
        ({"windows": (2,)}, ValueError, "windows must be odd sizes"),
        ({"implementation": "fast"}, ValueError, "implementation must be one of"),
        ({"neighbor_weights": np.ones(8)}, ValueError, "neighbor_weights must have shape"),
        ({"entropy": -1.0}, ValueError, "entropy must be a weight of at least 0, found -1.0"),
        ({"l1": "much"}, ValueError, "l1 must be a weight of at least 0, found 'much'"),
        ({"blur_sigma": np.inf}, ValueError, "blur_sigma must be a positive number of pixels, found inf"),
    ],
)
def test_options_of_terms_that_are_off_are_checked(options, error, message):
    with pytest.raises(error, match=message):
        sel.combined_loss(PREDICTIONS, TARGETS, **{"entropy": 0.0, "l1": 1.0, **options})
    for function in (sel.spatial_entropy, sel.joint_density):
        with pytest.raises(TypeError, match=f"{function.__name__} has no option 'nonsense': there are num_bins"):
            function(PREDICTIONS, nonsense=3)


def test_a_loss_is_an_object_that_can_be_compared_and_hashed():
    chosen = sel.SpatialEntropyLoss(windows=[1, 3], value_range=[0, 1], num_bins=6, divergence="relative")
    again = sel.SpatialEntropyLoss(windows=(1, 3), value_range=(0, 1), num_bins=6, divergence="relative")
    assert chosen == again
    assert hash(chosen) == hash(again)
    loss = quick_jit(lambda x, y: (chosen(x, y), losses(x, y, None)))
    np.testing.assert_array_equal(*loss(PREDICTIONS, TARGETS))


def test_the_options_of_the_function_are_those_of_the_object():
    function = inspect.signature(sel.spatial_entropy_loss).parameters
    fields = {field.name: field.default for field in dataclasses.fields(sel.SpatialEntropyLoss)}
    assert {name: function[name].default for name in fields} == fields
    assert set(function) - set(fields) == {"predictions", "targets", "where", "return_map"}


def test_drawn_neighbor_weights_are_given_to_each_call():
    loss = sel.SpatialEntropyLoss(**OPTIONS, neighbor_weights="dirichlet")
    with pytest.raises(ValueError, match="neighbor_weights='dirichlet' are drawn for each call"):
        jax.eval_shape(loss, PREDICTIONS, TARGETS)
    weights = np.random.default_rng(2).random((3, 3)).astype(np.float32)
    found = quick_jit(lambda x, y: loss(x, y, neighbor_weights=weights))(PREDICTIONS, TARGETS)
    expected = quick_jit(lambda x, y: losses(x, y, None, neighbor_weights=weights))(PREDICTIONS, TARGETS)
    np.testing.assert_array_equal(found, expected)
    with pytest.raises(ValueError, match="neighbor_weights must be one of dirichlet, normal, found 'cauchy'"):
        sel.SpatialEntropyLoss(neighbor_weights="cauchy")


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_strict_promotion(dtype):
    x, where = jax.ShapeDtypeStruct((1, 5, 6, 3), dtype), jax.ShapeDtypeStruct((1, 5, 6, 3), jnp.bool_)

    def gradients(x, y, where):
        def total(x):
            options = {"where": where, "bandwidth": "silverman", "gray": True}
            local = [losses(x, y, i, where=where) for i in ("dense", "sparse")]
            mixed = sel.combined_loss(x, y, l1=1.0, blurred_l1=np.float32(0.5), **options)
            published = sel.spatial_entropy_loss(x, y, variant="published", implementation="dense")
            return sum(
                loss.sum() for loss in (*local, mixed, published, sel.spatial_entropy(x, implementation="dense"))
            )

        return jax.grad(total)(x)

    with jax.numpy_dtype_promotion("strict"):
        assert jax.eval_shape(gradients, x, x, where).dtype == dtype
        assert jax.eval_shape(sel.joint_density, x).dtype == dtype


@pytest.mark.usefixtures("_unchecked")
def test_lists_are_refused_in_words():
    with pytest.raises(TypeError, match="predictions must be an array of JAX or NumPy, found list"):
        sel.spatial_entropy_loss(PREDICTIONS.tolist(), TARGETS)
    with pytest.raises(TypeError, match="where must be an array of JAX or NumPy, found list"):
        sel.combined_loss(PREDICTIONS, TARGETS, where=[True])


def test_a_mask_of_one_channel_is_that_of_all():
    where = np.random.default_rng(3).random((3, 5, 6, 1)) < 0.7
    both = quick_jit(lambda x, y, w: (losses(x, y, "dense", where=w), losses(x, y, "dense", where=jnp.tile(w, 2))))
    np.testing.assert_array_equal(*both(PREDICTIONS, TARGETS, where))


def test_value_range_and_bandwidth_may_be_arrays():
    def loss(bandwidth, value_range):
        return losses(PREDICTIONS, TARGETS, "dense", bandwidth=bandwidth, value_range=value_range)

    expected = quick_jit(lambda: loss(0.6, (-0.1, 1.2)))()
    found = quick_jit(loss)(jnp.float32(0.6), jnp.asarray([-0.1, 1.2]))
    np.testing.assert_allclose(found, expected, **CLOSE)
    known = jnp.float32(0.6), (np.float64(-0.1), jnp.float32(1.2))  # comparing a known array inside jit is traced, too
    np.testing.assert_allclose(quick_jit(lambda: loss(*known))(), expected, **CLOSE)
    with pytest.raises(ValueError, match="value_range must be"):
        sel.SpatialEntropyLoss(value_range=jnp.asarray([1.0, 0.0]))


@pytest.mark.parametrize(
    ("shape", "scale", "message"),
    [
        ((2, 3, 8, 9), 1, r"predictions of shape \(2, 3, 8, 9\) are taken for images of 3 rows with 9 channels"),
        ((2, 5, 6, 3), 255, r"predictions have values far above value_range=\(0, 1\)"),
        ((2, 5, 6, 3), 1, None),
        ((2, 3, 8, 4), 3, None),
    ],
)
def test_unlikely_images_are_warned_of_once(shape, scale, message):
    images = {"predictions": scale * np.random.default_rng(4).random(shape, np.float32)}
    images["targets"] = images["predictions"]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(3):
            inputs.checked(images, None, sel.SpatialEntropyLoss())
        jax.eval_shape(lambda x: inputs.checked({"x": x}, None, sel.SpatialEntropyLoss()), images["targets"])
    assert len(caught) == (message is not None)
    for warning in caught:
        assert re.match(message, str(warning.message))


@pytest.mark.usefixtures("_unchecked")  # jaxtyping takes no symbolic sizes
@each_implementation
def test_export_with_symbolic_batch_and_sides(implementation):
    b, h, w = jax.export.symbolic_shape("b, h, w")
    x = jax.ShapeDtypeStruct((b, h, w, 1), jnp.float32)
    loss = quick_jit(functools.partial(losses, implementation=implementation))
    exported = jax.export.export(loss)(x, x)
    for shape in ((1, 5, 6, 1), (2, 40, 17, 1)):
        images = np.random.default_rng(5).random((2, *shape), np.float32)
        np.testing.assert_allclose(exported.call(*images), loss(*images), **CLOSE)


def test_an_export_takes_the_algorithm_of_its_platform():
    x = jax.ShapeDtypeStruct((2, 5, 6, 1), jnp.float32)

    def program(implementation, platform):
        loss = jax.jit(functools.partial(losses, implementation=implementation))
        text = jax.export.export(loss, platforms=[platform])(x, x).mlir_module()
        return text.count("stablehlo.while"), text.count("stablehlo.dynamic_update_slice")

    assert program("dense", "cuda") != program("sparse", "cuda")
    for platform, expected in (("cpu", "sparse"), ("cuda", "dense"), ("tpu", "dense")):
        assert program(None, platform) == program(expected, platform)


def test_hessian_by_forward_over_reverse():
    x, y = PREDICTIONS[0, :3, :3, :1], TARGETS[0, :3, :3, :1]
    found = [quick_jit(jax.hessian(lambda x, i=i: losses(x, y, i)))(x) for i in ("dense", "sparse")]
    # A sum of 32 products with both signs.
    np.testing.assert_allclose(*found, rtol=0, atol=1e-5 * np.abs(found[0]).max())


def temporary_bytes(num_bins):
    x = jax.ShapeDtypeStruct((8, 128, 128, 3), jnp.float32)

    def loss(predictions, targets):
        return sel.spatial_entropy_loss(predictions, targets, num_bins=num_bins, implementation="sparse").sum()

    return quick_jit(jax.value_and_grad(loss)).lower(x, x).compile().memory_analysis().temp_size_in_bytes


def test_memory_grows_with_bins_not_with_their_square():
    few, many = map(temporary_bytes, (16, 128))
    assert many <= 8 * few
    assert many <= 64 * 2**20  # and so with the default of 32 bins


def test_forward_mode_of_the_sparse_algorithm_names_the_other():
    with pytest.raises(TypeError) as error:
        jax.jvp(lambda x: losses(x, TARGETS, "sparse"), (PREDICTIONS,), (PREDICTIONS,))
    assert "implementation='dense'" in error.value.__notes__[0]
