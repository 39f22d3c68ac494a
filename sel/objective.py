"""Where training meets: draw t and x_t, predict the noise, compare what follows from it with what should."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from sel import diffusion
from sel.diffusion import Schedule
from sel.entropy import combined_loss, sample_neighbor_weights, spatial_entropy_loss
from sel.types import NoiseFn

Images = Float[Array, "b h w c"]
# Some losses take arrays that all images share, by name.
LossFn = Callable[..., Float[Array, " b"]]

COMPARED = ("x_prev", "x0")
T_SAMPLINGS = ("uniform", "stratified", "importance")
T_WEIGHTINGS = ("none", "noise", "min_snr")


def l1_loss(predictions: Images, targets: Images) -> Float[Array, " b"]:
    """Mean absolute difference of each image: the baseline that the paper compares with."""
    return jnp.abs(predictions - targets).mean((1, 2, 3))


def l2_loss(predictions: Images, targets: Images) -> Float[Array, " b"]:
    """Mean squared difference of each image."""
    return jnp.square(predictions - targets).mean((1, 2, 3))


_LOSSES: dict[str, Any] = {
    "spatial_entropy": spatial_entropy_loss,
    "l1": l1_loss,
    "l2": l2_loss,
    "mixture": combined_loss,
}


def make_loss(name: str, **options: Any) -> LossFn:
    """The loss called `name`.

    Args:
      name: `spatial_entropy`, `l1`, `l2` or `mixture` (`sel.combined_loss`).
      **options: those of the function; `l1` and `l2` have none.

    Raises:
      ValueError: if there is no such loss.
    """
    _check("name", name, tuple(_LOSSES))
    return functools.partial(_LOSSES[name], **options)


@dataclasses.dataclass(frozen=True)
class Objective:
    """What training minimizes.

        E_t [w_t loss(image_hat, image*)],   t uniform in 1..T

    Attributes:
      schedule: the diffusion.
      loss_fn: compares two images, one value for each pair.
      compare: what is compared, see `training_losses`: `x_prev`, as published, or `x0`.
      clip_x0: range to which the clean estimate of `x0` is clipped, or None.
      t_sampling: how the t of a batch are drawn, see `draw_step`: `uniform`, as published, `stratified`, `importance`.
      t_weighting: the weights w_t, see `time_weights`: `none`, as published, `noise`, `min_snr`.
      snr_cap: gamma of `min_snr`.
      neighbor_weights: distribution of the neighbour weights that `loss_fn` gets anew in each step, or None.
    """

    schedule: Schedule
    loss_fn: LossFn
    compare: str = "x_prev"
    clip_x0: tuple[float, float] | None = None
    t_sampling: str = "uniform"
    t_weighting: str = "none"
    snr_cap: float = 5.0
    neighbor_weights: str | None = None

    def __post_init__(self) -> None:
        """Refuse what is no choice: a ValueError names the attribute, its value and the choices."""
        _check("compare", self.compare, COMPARED)
        _check("t_sampling", self.t_sampling, T_SAMPLINGS)
        _check("t_weighting", self.t_weighting, T_WEIGHTINGS)
        if not self.snr_cap > 0:
            raise ValueError(f"snr_cap must be above 0, found {self.snr_cap!r}")
        if self.clip_x0 is not None and not self.clip_x0[0] < self.clip_x0[1]:
            raise ValueError(f"clip_x0 must be (low, high) with low < high, or None, found {self.clip_x0!r}")


class Draws(NamedTuple):
    """What chance decides in one training step.

    Attributes:
      t: time steps in 1..T, `[b]`.
      noise: standard normal draws, `[b, h, w, c]`.
      shared: arguments of the loss that all images share, by name.
    """

    t: Any
    noise: Any
    shared: Mapping[str, Any] = {}


def draw_step(key: PRNGKeyArray, objective: Objective, shape: tuple[int, ...]) -> Draws:
    """Draw t, noise, and what else the loss takes, for a batch of this shape.

        uniform      t independent and uniform in 1..T
        stratified   one t from each of b equal parts of 1..T, in random order
        importance   one t from each of b equally probable parts, P(t) as of `time_law`; t are weighed accordingly

    Each image has the same law, and all three have the same expected gradient; the latter two have less variance.
    """
    key_t, key_noise = jax.random.split(key)
    noise = jax.random.normal(key_noise, shape)
    shared = {}
    if objective.neighbor_weights:
        shared["neighbor_weights"] = sample_neighbor_weights(jax.random.fold_in(key, 2), objective.neighbor_weights)
    return Draws(_draw_t(key_t, objective, shape[0]), noise, shared)


def time_weights(objective: Objective) -> Float[Array, " t"]:
    """The weights w_t of t = 1..T, with mean 1.

        none      1
        noise     1 / slope_t
        min_snr   min(1, sqrt(gamma) / snr_t) / slope_t,   snr_t = exp(-Theta_t dt) / sigma_bar_t
        slope_t = sigma_t^2 dt / sigma_bar_t for x_prev,   1 / snr_t for x0

    The slope is what an error of the predicted noise is multiplied by in the image that is compared. It grows with t,
    by default 11-fold for `x_prev` and 10,647-fold for `x0`. A loss of first order in small errors (l1, Hellinger)
    becomes noise matching with `noise`, whatever is compared. `min_snr` takes weight from early t, where most of the
    noise is too faint to be told from the image.

    Source: Hang et al., "Efficient Diffusion Training via Min-SNR Weighting Strategy", ICCV 2023, whose
    min(snr_t^2, gamma) is for squared errors of x0: here is its root, for a signal x0 - mu of size 1.
    """
    slopes = _slopes(objective.schedule)
    slope = slopes[objective.compare]
    matched = {  # as weights of an error of the noise
        "none": slope,
        "noise": jnp.ones_like(slope),
        "min_snr": jnp.minimum(1, jnp.sqrt(objective.snr_cap) * slopes["x0"]),
    }
    weights = matched[objective.t_weighting] / slope
    return weights / weights.mean()


def time_law(objective: Objective) -> Float[Array, " t"]:
    """The probabilities of t = 1..T.

        importance   P(t) = w_t slope_t / slope_t of x_prev, divided by its sum
        otherwise    P(t) = 1 / T

    With slopes as of `time_weights`. Once something is learned, the loss of x_prev is nearly the same for every t: this
    law draws t in proportion to what it adds to the objective, so that the terms w_t / (T P(t)) loss are nearly equal.
    """
    if objective.t_sampling != "importance":
        return jnp.full(objective.schedule.num_steps, 1 / objective.schedule.num_steps)
    slopes = _slopes(objective.schedule)
    law = time_weights(objective) * slopes[objective.compare] / slopes["x_prev"]
    return law / law.sum()


def training_losses(
    objective: Objective, noise_fn: NoiseFn, x0: Images, mu: Images, draws: Draws
) -> Float[Array, " b"]:
    """How far what follows from the predicted noise is from what should follow, for each image.

        x_t = m_t + sigma_bar_t noise,   noise_hat = noise_fn(x_t, mu, t)
        x_prev   loss(x_t - (theta_t (mu - x_t) - sigma_t^2 score) dt,  x_{t-1}*)
        x0       loss((x_t - mu - sigma_bar_t noise_hat) exp(Theta_t dt) + mu,  x0)

    each times w_t / (T P(t)), see `time_weights` and `time_law`. With the true noise the Euler step still misses the
    optimum by up to 0.75/255, so that the loss of `x_prev` has no zero. That of `x0` has, but an error of the noise
    reaches it multiplied by up to sigma_bar_T / eps, 39 by default: see `time_weights`, and `clip_x0` of `Objective`,
    whose gradient lets values outside its range come back.

    Args:
      objective: what is compared, and how.
      noise_fn: predicts the noise of a state.
      x0: clean images in [0, 1].
      mu: degraded images in [0, 1].
      draws: of `draw_step`, or some of its images.

    Returns:
      One loss per image.

    Source: Luo et al., "Image Restoration with Mean-Reverting Stochastic Differential Equations", ICML 2023 (the
    optimum); Lian et al., arXiv 2404.09735 (its use with an entropy).
    """
    schedule, (t, noise, shared) = objective.schedule, draws
    x_t = diffusion.marginal_sample(schedule, x0, mu, noise, t)
    noise_hat = noise_fn(x_t, mu, t)
    if objective.compare == "x_prev":
        prediction = diffusion.reverse_sde_mean(schedule, x_t, mu, noise_hat, t)
        target = diffusion.posterior_mean(schedule, x_t, x0, mu, t)
    else:
        prediction, target = diffusion.x0_from_noise(schedule, x_t, mu, noise_hat, t), x0
        if objective.clip_x0 is not None:
            prediction = clip_from_outside(prediction, *objective.clip_x0)
    losses = objective.loss_fn(prediction, target, **shared)
    if objective.t_weighting == "none" and objective.t_sampling != "importance":
        return losses
    factors = time_weights(objective) / time_law(objective) / schedule.num_steps
    return losses * factors[t - 1]


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def clip_from_outside(x: Array, low: float, high: float) -> Array:
    """`clip(x, low, high)` whose gradient, outside the range, is kept where following it leads back inside."""
    return jnp.clip(x, low, high)


def _clip_forward(x: Array, low: float, high: float) -> tuple[Array, Array]:
    return jnp.clip(x, low, high), x


def _clip_backward(low: float, high: float, x: Array, slope: Array) -> tuple[Array]:
    leaves = ((x > high) & (slope < 0)) | ((x < low) & (slope > 0))  # descent subtracts the slope
    return (jnp.where(leaves, 0, slope),)


clip_from_outside.defvjp(_clip_forward, _clip_backward)


def _draw_t(key: PRNGKeyArray, objective: Objective, count: int) -> Int[Array, " b"]:
    num_steps = objective.schedule.num_steps
    if objective.t_sampling == "uniform":  # the stream of numbers that runs had before there was a choice
        return jax.random.randint(key, (count,), 1, num_steps + 1)
    key_place, key_order = jax.random.split(key)
    places = (jnp.arange(count) + jax.random.uniform(key_place, (count,))) / count
    # In random order: devices, and their part of the data, must not keep to one part of the time.
    places = jax.random.permutation(key_order, places)
    return jnp.minimum(1 + jnp.searchsorted(jnp.cumsum(time_law(objective)), places, side="right"), num_steps)


def _slopes(schedule: Schedule) -> dict[str, Float[Array, " t"]]:
    """What an error of the predicted noise is multiplied by at t = 1..T in each image that may be compared."""
    sigma_bar, left = schedule.sigma_bar[1:], jnp.exp(-schedule.theta_cumsum[1:] * schedule.dt)
    return {"x_prev": schedule.sigma[1:] ** 2 * schedule.dt / sigma_bar, "x0": sigma_bar / left}


def _check(name: str, value: Any, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, found {value!r}")
