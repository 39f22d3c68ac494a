"""Where training meets: draw t and x_t, predict the noise, compare what follows from it with what should."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from sel import diffusion
from sel.choices import check, choice, setting
from sel.diffusion import Schedule
from sel.objective.compared import COMPARED, Compared, XPrev
from sel.objective.weighting import T_WEIGHTINGS, Unweighted, Weighting
from sel.types import NoiseFn

Images = Float[Array, "b h w c"]
# Some losses take arrays that all images share, by name: those that `Loss.draw` gives.
LossFn = Callable[..., Float[Array, " b"]]


@dataclass(frozen=True)
class ObjectiveOptions:
    """What is compared, how the t of a batch are drawn (see `draw_step`) and weighted (see `time_weights`)."""

    compare: Compared = choice(
        COMPARED, "x_prev", doc="what is compared: x_{t-1} after one reverse step, as published, or the clean image"
    )
    t_sampling: str = setting(
        "uniform", choices=("uniform", "stratified", "importance"), doc="how t is drawn; uniform: as published"
    )
    t_weighting: Weighting = choice(T_WEIGHTINGS, "none", doc="weight of each t; none: all equal, as published")

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, kw_only=True)
class Objective(ObjectiveOptions):
    """What training minimizes.

        E_t [w_t loss(image_hat, image*)],   t uniform in 1..T

    Attributes:
      schedule: the diffusion.
      loss_fn: compares two images, one value for each pair; of `LOSSES`, or any function.
    """

    schedule: Schedule
    loss_fn: LossFn


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

    Examples:
      >>> import jax
      >>> from sel.diffusion import make_schedule
      >>> from sel.objective import Objective, draw_step, l1_loss
      >>> objective = Objective(schedule=make_schedule(), loss_fn=l1_loss)
      >>> draws = draw_step(jax.random.key(0), objective, (4, 8, 8, 3))
      >>> draws.t.shape, draws.noise.shape
      ((4,), (4, 8, 8, 3))
    """
    key_t, key_noise = jax.random.split(key)
    noise = jax.random.normal(key_noise, shape)
    draw = getattr(objective.loss_fn, "draw", None)
    shared = draw(jax.random.fold_in(key, 2)) if draw else {}
    return Draws(_draw_t(key_t, objective, shape[0]), noise, shared)


def time_weights(objective: Objective) -> Float[Array, " t"]:
    """The weights w_t of t = 1..T, with mean 1; the formulas are those of the classes in `T_WEIGHTINGS`.

    They build on the slope, what an error of the predicted noise is multiplied by in the image that is compared. It
    grows with t, by default 11-fold for `x_prev` and 10,647-fold for `x0`.

    Examples:
      >>> from sel.diffusion import make_schedule
      >>> from sel.objective import NoiseWeighting, Objective, l1_loss, time_weights
      >>> objective = Objective(schedule=make_schedule(), loss_fn=l1_loss, t_weighting=NoiseWeighting())
      >>> weights = time_weights(objective)
      >>> weights.shape, round(float(weights.mean()), 4), bool(weights[0] > weights[-1])
      ((100,), 1.0, True)
    """
    weights = objective.t_weighting.weights(objective.compare.slopes(objective.schedule), objective.schedule)
    return weights / weights.mean()


def time_law(objective: Objective) -> Float[Array, " t"]:
    """The probabilities of t = 1..T.

        importance   P(t) = w_t slope_t / slope_t of x_prev, divided by its sum
        otherwise    P(t) = 1 / T

    With slopes as of `time_weights`. Once something is learned, the loss of x_prev is nearly the same for every t: this
    law draws t in proportion to what it adds to the objective, so that the terms w_t / (T P(t)) loss are nearly equal.

    Examples:
      >>> from sel.diffusion import make_schedule
      >>> from sel.objective import Objective, l1_loss, time_law
      >>> objective = Objective(schedule=make_schedule(), loss_fn=l1_loss)
      >>> round(float(time_law(objective)[0]), 4)  # uniform over 100 steps
      0.01
    """
    if objective.t_sampling != "importance":
        return jnp.full(objective.schedule.num_steps, 1 / objective.schedule.num_steps)
    published = XPrev().slopes(objective.schedule)
    law = time_weights(objective) * objective.compare.slopes(objective.schedule) / published
    return law / law.sum()


def training_losses(
    objective: Objective, noise_fn: NoiseFn, x0: Images, mu: Images, draws: Draws
) -> Float[Array, " b"]:
    """How far what follows from the predicted noise is from what should follow, for each image.

        x_t = m_t + sigma_bar_t noise,   noise_hat = noise_fn(x_t, mu, t),   loss(image_hat, image*)

    each times w_t / (T P(t)), see `time_weights` and `time_law`; what is compared is said at `XPrev` and `X0`.

    Args:
      objective: what is compared, and how.
      noise_fn: predicts the noise of a state.
      x0: clean images in [0, 1].
      mu: degraded images in [0, 1].
      draws: of `draw_step`, or some of its images.

    Returns:
      One loss per image.

    Examples:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from sel.diffusion import make_schedule
      >>> from sel.objective import Objective, draw_step, l1_loss, training_losses
      >>> objective = Objective(schedule=make_schedule(), loss_fn=l1_loss)
      >>> x0, mu = jnp.full((4, 8, 8, 3), 0.75), jnp.full((4, 8, 8, 3), 0.25)
      >>> draws = draw_step(jax.random.key(0), objective, x0.shape)
      >>> perfect = training_losses(objective, lambda x_t, mu, t: draws.noise, x0, mu, draws)
      >>> lazy = training_losses(objective, lambda x_t, mu, t: jnp.zeros_like(x_t), x0, mu, draws)
      >>> perfect.shape, bool((perfect < lazy).all())
      ((4,), True)
    """
    schedule, (t, noise, shared) = objective.schedule, draws
    x_t = diffusion.marginal_sample(schedule, x0, mu, noise, t)
    noise_hat = noise_fn(x_t, mu, t)
    prediction, target = objective.compare.images(schedule, x_t, x0, mu, noise_hat, t)
    losses = objective.loss_fn(prediction, target, **shared)
    if isinstance(objective.t_weighting, Unweighted) and objective.t_sampling != "importance":
        return losses
    factors = time_weights(objective) / time_law(objective) / schedule.num_steps
    return losses * factors[t - 1]


def _draw_t(key: PRNGKeyArray, objective: Objective, count: int) -> Int[Array, " b"]:
    num_steps = objective.schedule.num_steps
    if objective.t_sampling == "uniform":  # the stream of numbers that runs had before there was a choice
        return jax.random.randint(key, (count,), 1, num_steps + 1)
    key_place, key_order = jax.random.split(key)
    places = (jnp.arange(count) + jax.random.uniform(key_place, (count,))) / count
    # In random order: devices, and their part of the data, must not keep to one part of the time.
    places = jax.random.permutation(key_order, places)
    return jnp.minimum(1 + jnp.searchsorted(jnp.cumsum(time_law(objective)), places, side="right"), num_steps)
