"""Spatial entropy of images and the losses made of it: the door of `sel.entropy`."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, PRNGKeyArray

from sel.choices import setting
from sel.entropy import density
from sel.entropy.divergence import DIVERGENCES, PUBLISHED, SHANNON, Divergence
from sel.entropy.inputs import Inputs, Pixels, checked, prepare
from sel.entropy.meshes import of_batch, on_any_mesh
from sel.entropy.neighborhood import absolute, pad_planes, reach, sample_neighbor_weights, window_sums
from sel.entropy.options import DensityOptions, Range, Windows, check_choice, from_options

_DIFFERENCE = "entropy_difference"


@dataclass(frozen=True, kw_only=True)
class SpatialEntropyLoss(DensityOptions):
    """`spatial_entropy_loss` with its options chosen and checked: a function of two images.

    Attributes:
      divergence: `hellinger`, `relative`, `cross`, `jensen_shannon`, or `entropy_difference`: |H(P) - H(Q)|.
      num_bins: this and the other options: see `sel.entropy.DensityOptions`.

    Raises:
      ValueError: if an option has no such value; it names the option, what was found and what is allowed.

    Examples:
      >>> import jax.numpy as jnp
      >>> import sel
      >>> loss = sel.SpatialEntropyLoss(divergence="jensen_shannon", num_bins=16, windows=(3,))
      >>> grey = jnp.full((1, 8, 8, 1), 0.5)
      >>> float(loss(grey, grey)[0])
      0.0
      >>> sel.SpatialEntropyLoss(num_bins=1)
      Traceback (most recent call last):
      ...
      ValueError: num_bins must be a whole number of at least 2, found 1
    """

    divergence: str = setting("hellinger", choices=(*DIVERGENCES, _DIFFERENCE), doc="how two densities are compared")

    def __post_init__(self) -> None:
        """Refuse what is no choice."""
        check_choice("divergence", self.divergence, (*DIVERGENCES, _DIFFERENCE))
        super().__post_init__()

    def draw(self, key: PRNGKeyArray) -> dict[str, Array]:
        """The weights of the neighbours for one call, by name, if they are drawn."""
        if not isinstance(self.neighbor_weights, str):
            return {}
        return {"neighbor_weights": sample_neighbor_weights(key, self.neighbor_weights)}

    def __call__(
        self,
        predictions: Pixels,
        targets: Pixels,
        *,
        where: Pixels | None = None,
        neighbor_weights: Pixels | None = None,
        return_map: bool = False,
    ) -> Float[Array, "..."]:
        """The loss of each image, see `spatial_entropy_loss`; `neighbor_weights` are those drawn for this call."""
        _check_map(self, return_map)
        images = {"predictions": predictions, "targets": targets}
        where = checked(images, where, self)

        def compute(loss, images, where, drawn):
            return loss._of_inputs(prepare(images, loss, where=where, neighbor_weights=drawn), return_map)

        out_spec = _of_map if return_map else of_batch
        return on_any_mesh(compute, self, images, out_spec, where=where, drawn=neighbor_weights)

    def _of_inputs(self, inputs, return_map):
        if self.divergence == _DIFFERENCE:
            entropies = _window_values(inputs.each(), SHANNON)
            values = [absolute(jnp.subtract(*jnp.split(both, 2))) for both in entropies]
        else:
            values = _window_values(
                inputs, (PUBLISHED if self.variant == "published" else DIVERGENCES)[self.divergence]
            )
        return _mean(values, inputs, return_map)


def spatial_entropy_loss(
    predictions: Pixels,
    targets: Pixels,
    *,
    divergence: str = "hellinger",
    num_bins: int = 32,
    bandwidth: Any = 0.5,
    kernel: str = "logistic",
    windows: Windows = (1, 3, 5),
    window_shape: str = "box",
    neighbor_weights: Pixels | None = None,
    value_range: Range = (0.0, 1.0),
    variant: str = "corrected",
    gray: bool = False,
    where: Pixels | None = None,
    return_map: bool = False,
    implementation: str | None = None,
) -> Float[Array, "..."]:
    r"""Divergence between the local distributions of (intensity, neighbour mean) of two images.

    For each pixel q and each window size k, with u the intensity and v the mean of the eight neighbours, in bin units,

        p_a(u) = K((a - u) / h) / sum_a' K((a' - u) / h)
        P_k[a, b](q) = mean over q' in the k x k window at q of p_a(u(q')) p_b(v(q'))

        hellinger       sqrt(sum_ab (sqrt P - sqrt Q)^2 / 2)                         in [0, 1]
        relative        sum_ab Q log(Q / P)                                          at least 0
        cross           -sum_ab Q log P                                              least, but not 0, at equality
        jensen_shannon  sum_ab (P log(P / M) + Q log(Q / M)) / 2,  M = (P + Q) / 2   in [0, log 2]

    with P from the prediction and Q from the target. The loss is the mean over pixels, channels and windows. It is 0
    (but for `cross`) with zero gradient for equal images, and its gradient is finite everywhere. Logarithms are
    natural and see densities through a floor of 1e-30. For `relative` and `cross` that is 1e-30 of the largest density
    of the bin in the tile (`sparse`) or plane (`dense`), so that flat images see each other through every window from
    as far as a kernel is above 1e-30: 34 bins for a logistic kernel of h = 0.5.

    Args:
      predictions: images `[*batch, h, w, c]`, any floating dtype; sums are kept in float32 or better.
      targets: images of the same shape and dtype.
      divergence: `hellinger`, `relative`, `cross`, `jensen_shannon`, or `entropy_difference`: |H(P) - H(Q)|.
      num_bins: bins L on each axis, at least 2.
      bandwidth: kernel width h, in bins, or `"silverman"`. No gradient flows to it.
      kernel: `logistic` (s(z) s(-z)), `sech` (1 / (pi cosh z)) or `gaussian`.
      windows: odd window sizes in pixels, each once, or `"global"` for one distribution of the whole image.
      window_shape: `box`, or `gaussian` with a standard deviation of a quarter of the window.
      neighbor_weights: 3 x 3 weights of the neighbours, divided by their sum; the centre is not used. None weights
        them equally; `sample_neighbor_weights` draws them. They should not be negative. Gradients flow to them.
      value_range: values of the first and the last bin. What lies outside is clipped and has no gradient: widen it
        to cover noise.
      variant: `corrected`, or `published` for parity with the released PyTorch code.
      gray: compare the luminance of RGB images instead of their channels.
      where: True for the pixels that count, of the shape of the images or with one channel; others enter neither
        means, windows nor the average, and may hold NaN.
      return_map: return the divergence of every pixel and channel (mean over windows) instead of the mean. Not for
        `"global"`.
      implementation: `sparse`, `dense` or None: sparse on CPU, dense elsewhere.

    `sel.entropy.DensityOptions` says more of the options; `sel.SpatialEntropyLoss` holds them.

    Returns:
      One value per image, of shape `batch` and the dtype of the inputs, or the map, of the shape of the inputs.

    Raises:
      TypeError: if an image is not a floating point array.
      ValueError: if shapes or dtypes differ, or an option has no such value.

    Cost: linear in pixels; at most L^2 for each pixel and window. Temporary memory is linear in L.

    Source: Lian et al., "Equipping Diffusion Models with Differentiable Spatial Entropy for Low-Light Image
      Enhancement", CVPRW 2024,
    arXiv 2404.09735.

    Examples:
      >>> import jax
      >>> import sel
      >>> targets = jax.random.uniform(jax.random.key(0), (2, 8, 8, 3))
      >>> losses = sel.spatial_entropy_loss(targets / 2, targets, num_bins=8, windows=(3,))
      >>> losses.shape, bool((losses > 0).all())
      ((2,), True)
    """
    loss = SpatialEntropyLoss(
        divergence=divergence,
        num_bins=num_bins,
        bandwidth=bandwidth,
        kernel=kernel,
        windows=windows,
        window_shape=window_shape,
        neighbor_weights=neighbor_weights,
        value_range=value_range,
        variant=variant,
        gray=gray,
        implementation=implementation,
    )
    return loss(predictions, targets, where=where, return_map=return_map)


def spatial_entropy(
    images: Pixels, *, where: Pixels | None = None, return_map: bool = False, **options: Any
) -> Float[Array, "..."]:
    """Two-dimensional Shannon entropy H = -sum_ab P log P, in nats: the mean over pixels, channels and windows.

    H lies between that of the kernel itself and 2 log L.

    Args:
      images: `[*batch, h, w, c]`, any floating dtype.
      where: as in `spatial_entropy_loss`.
      return_map: as in `spatial_entropy_loss`.
      **options: the attributes of `sel.entropy.DensityOptions`.

    Returns:
      One value per image, or the map, as `spatial_entropy_loss`.

    Raises:
      TypeError: if the images are not a floating point array, or for an unknown option.
      ValueError: if a shape is wrong, or an option has no such value.

    Examples:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> import sel
      >>> flat = jnp.full((8, 8, 1), 0.5)
      >>> noisy = jax.random.uniform(jax.random.key(0), (8, 8, 1))
      >>> bool(sel.spatial_entropy(noisy, windows="global") > sel.spatial_entropy(flat, windows="global"))
      True
    """
    chosen = from_options(DensityOptions, "spatial_entropy", options)
    _check_map(chosen, return_map)
    named = {"images": images}
    where = checked(named, where, chosen)

    def compute(options, images, where):
        inputs = prepare(images, options, where=where)
        return _mean(_window_values(inputs, SHANNON), inputs, return_map)

    return on_any_mesh(compute, chosen, named, _of_map if return_map else of_batch, where=where)


def joint_density(images: Pixels, *, where: Pixels | None = None, **options: Any) -> Float[Array, "..."]:
    """The joint density P_k[a, b](q) itself, to look at or to test with: L^2 values for each pixel, channel and window.

    Args:
      images: `[*batch, h, w, c]`, any floating dtype.
      where: as in `spatial_entropy_loss`.
      **options: the attributes of `sel.entropy.DensityOptions`, but not `implementation`: there is one.

    Returns:
      `[k, *batch, h, w, c, l, l]`: window, image axes, intensity bin, neighbour bin. For `windows="global"`,
      `[*batch, c, l, l]`.

    Raises:
      TypeError: as `spatial_entropy`.
      ValueError: as `spatial_entropy`.

    Examples:
      >>> import jax.numpy as jnp
      >>> import sel
      >>> density = sel.joint_density(jnp.full((4, 4, 1), 1 / 3), num_bins=4, windows=(3,))
      >>> density.shape  # window, height, width, channel, intensity bin, neighbour bin
      (1, 4, 4, 1, 4, 4)
      >>> round(float(density[0, 0, 0, 0].sum()), 4)
      1.0
      >>> int(density[0, 0, 0, 0].argmax())  # 1/3 is bin 1 of 0..3, for the pixel and for its neighbours
      5
    """
    chosen = from_options(DensityOptions, "joint_density", options, without=("implementation",))
    named = {"images": images}
    where = checked(named, where, chosen)

    def compute(options, images, where):
        return _densities(prepare(images, options, where=where))

    return on_any_mesh(compute, chosen, named, _of_densities(chosen), where=where).astype(images.dtype)


def _densities(inputs: Inputs) -> Array:
    estimator, (field,), bins = inputs.estimator, inputs.fields, (inputs.estimator.num_bins,) * 2
    *batch, h, w, c = inputs.shape
    if inputs.whole:
        densities = density.global_densities((field,), inputs.mask, inputs.bandwidth, estimator=estimator)
        return densities[0].reshape(*batch, c, *bins)
    margin = reach(estimator.windows)
    mask = pad_planes(inputs.mask, margin)
    shares = estimator.shares(mask, estimator.windows)
    u, v = (jax.vmap(estimator.weights)(pad_planes(x, margin), inputs.bandwidth) for x in field)
    sums = window_sums((u * mask[..., None])[..., :, None] * v[..., None, :], estimator.windows, (-4, -3))
    stacked = jnp.stack([share[..., None, None] * total for share, total in zip(shares, sums, strict=True)])
    return jnp.moveaxis(stacked.reshape(len(sums), *batch, c, h, w, *bins), -5, -3)


def _of_map(spec: PartitionSpec) -> PartitionSpec:
    return PartitionSpec(*spec[:-1])  # with gray=True there is one channel


def _of_densities(options: DensityOptions) -> Callable[[PartitionSpec], PartitionSpec]:
    first = () if options.windows == "global" else (None,)
    return lambda spec: PartitionSpec(*first, *spec[:-3])


def _check_map(options: DensityOptions, return_map: bool) -> None:
    if return_map and options.windows == "global":
        raise ValueError('return_map=True has no meaning for windows="global": an image has one value')


def _window_values(inputs: Inputs, divergence: Divergence) -> list[Array]:
    """The divergence at every pixel of every plane, for each window; of every plane for the global one."""
    options = {"estimator": inputs.estimator}
    if inputs.whole:
        densities = density.global_densities(inputs.fields, inputs.mask, inputs.bandwidth, **options)
        return [divergence.finish(divergence.term(*densities).sum((-2, -1)))]
    totals = inputs.density_sums(inputs.fields, inputs.mask, inputs.bandwidth, divergence=divergence, **options)
    return [divergence.finish(total) for total in totals]


def _mean(values: list[Array], inputs: Inputs, return_map: bool) -> Array:
    *batch, h, w, c = inputs.shape
    mean = functools.reduce(jnp.add, values) / len(values)
    if inputs.whole:
        return mean.reshape(*batch, c).mean(-1).astype(inputs.dtype)
    mean, mask = (jnp.moveaxis(x.reshape(*batch, c, h, w), -3, -1) for x in (mean * inputs.mask, inputs.mask))
    if not return_map:
        mean = mean.sum((-3, -2, -1)) / jnp.maximum(mask.sum((-3, -2, -1)), 1)
    return mean.astype(inputs.dtype)
