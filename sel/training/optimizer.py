"""The choices of an optimizer: its update rule, the course of its learning rate, the running average of parameters."""

import abc
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from sel.choices import check, choice, setting

# From the average, the new parameters and the number of steps done to the new average.
UpdateAverage = Callable[[Any, Any, jax.Array], Any]


@dataclass(frozen=True)
class Course(abc.ABC):
    """How the learning rate goes on after the warm-up. To add one, derive from this class; enter it in `SCHEDULES`."""

    def __post_init__(self) -> None:
        check(self)

    @abc.abstractmethod
    def rate(self, peak: float, warmup: int, num_steps: int) -> optax.Schedule:
        """The learning rate by the number of steps done.

        Args:
          peak: the learning rate after the warm-up.
          warmup: steps of the warm-up, below `num_steps`; the rate rises linearly from 0.
          num_steps: steps of the whole run.
        """


@dataclass(frozen=True)
class Cosine(Course):
    """Half a cosine down to `end_learning_rate`.

    end + (peak - end) (1 + cos(pi (n - warmup) / (num_steps - warmup))) / 2   for n >= warmup
    """

    end_learning_rate: float = setting(1e-6, at_least=0, doc="learning rate after the last step")

    def rate(self, peak: float, warmup: int, num_steps: int) -> optax.Schedule:
        """As `Course`."""
        start = 0.0 if warmup else peak
        return optax.warmup_cosine_decay_schedule(start, peak, warmup, num_steps, self.end_learning_rate)


@dataclass(frozen=True)
class Multistep(Course):
    """Peak times gamma^(number of milestones <= n)."""

    milestones: tuple[float, ...] = setting(
        (0.5, 0.75, 0.9), above=0, doc="numbers of steps, or below 1 fractions of `num_steps`, in rising order"
    )
    gamma: float = setting(0.5, at_least=0, doc="factor at each milestone")

    def rate(self, peak: float, warmup: int, num_steps: int) -> optax.Schedule:
        """As `Course`.

        Raises:
          ValueError: if milestones do not rise between 0 and `num_steps`.
        """
        return _with_warmup(peak, warmup, milestone_steps(self.milestones, num_steps), self.gamma)


@dataclass(frozen=True)
class Constant(Course):
    """The peak, for ever."""

    def rate(self, peak: float, warmup: int, num_steps: int) -> optax.Schedule:
        """As `Course`."""
        return _with_warmup(peak, warmup, [], 1.0)


SCHEDULES: dict[str, type[Course]] = {"cosine": Cosine, "multistep": Multistep, "constant": Constant}


def _with_warmup(peak: float, warmup: int, drops: Sequence[int], gamma: float) -> optax.Schedule:
    def rate(count: ArrayLike) -> jax.Array:
        count = jnp.asarray(count)
        dropped = sum((count >= drop for drop in drops), start=jnp.zeros((), jnp.int32))
        warmed = jnp.minimum(1, count / warmup) if warmup else 1.0
        return peak * warmed * gamma**dropped

    return rate


def milestone_steps(milestones: Sequence[float | int], num_steps: int) -> list[int]:
    """Milestones as numbers of steps; those below 1 are fractions of `num_steps`.

    Raises:
      ValueError: if there are none, or they do not rise, or lie outside 1..num_steps - 1.
    """
    whole = [round(m * num_steps) if 0 < m < 1 else int(m) if m == int(m) else 0 for m in milestones]
    rising = all(a < b for a, b in itertools.pairwise([0, *whole, num_steps]))
    if not (milestones and rising):
        raise ValueError(
            f"milestones must rise, as steps from 1 to {num_steps - 1} or as fractions between 0 and 1 of them, "
            f"found {tuple(milestones)}"
        )
    return whole


@dataclass(frozen=True, kw_only=True)
class Optimizer(abc.ABC):
    """What every optimizer has. To add one, derive from this class and enter it in `OPTIMIZERS`."""

    learning_rate: float = setting(5e-4, at_least=0, doc="learning rate after the warm-up")
    schedule: Course = choice(SCHEDULES, "cosine", doc="how the learning rate goes on after the warm-up")
    warmup_steps: int = setting(
        200, at_least=0, doc="steps over which the learning rate rises from 0, but at most half of `num_steps`"
    )
    clip_norm: float = setting(1.0, at_least=0, doc="bound on the global norm of the gradient; 0: none")

    def __post_init__(self) -> None:
        check(self)

    def warmup(self, num_steps: int) -> int:
        """Steps of the warm-up in a run of `num_steps`: at most half of them, so that a short trial has a peak."""
        return min(self.warmup_steps, num_steps // 2)

    def rate(self, num_steps: int) -> optax.Schedule:
        """The learning rate by the number of steps done, in a run of `num_steps`: a warm-up, then `schedule`.

        learning_rate n / warmup   for n < warmup
        """
        return self.schedule.rate(self.learning_rate, self.warmup(num_steps), num_steps)

    def transformation(self, rate: optax.Schedule) -> optax.GradientTransformation:
        """The update rule behind the bound on the norm of the gradient."""
        update = self.update_rule(rate)
        return optax.chain(optax.clip_by_global_norm(self.clip_norm), update) if self.clip_norm else update

    @abc.abstractmethod
    def update_rule(self, rate: optax.Schedule) -> optax.GradientTransformation:
        """From gradients to what is added to the parameters."""


@dataclass(frozen=True, kw_only=True)
class Adam(Optimizer):
    """The step p - rate m_hat / (sqrt(v_hat) + 1e-8).

    Source: Kingma & Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015.
    """

    b1: float = setting(0.9, at_least=0, below=1, doc="decay of the mean of gradients")
    b2: float = setting(0.99, at_least=0, below=1, doc="decay of the mean of squared gradients; lion: of gradients")

    def update_rule(self, rate: optax.Schedule) -> optax.GradientTransformation:
        """As `Optimizer`."""
        return optax.adam(rate, b1=self.b1, b2=self.b2)


@dataclass(frozen=True, kw_only=True)
class AdamW(Adam):
    """The step p - rate (m_hat / (sqrt(v_hat) + 1e-8) + weight_decay p).

    Source: Loshchilov & Hutter, "Decoupled Weight Decay Regularization", ICLR 2019.
    """

    weight_decay: float = setting(1e-4, at_least=0, doc="pull of the parameters towards 0, times the learning rate")

    def update_rule(self, rate: optax.Schedule) -> optax.GradientTransformation:
        """As `Optimizer`."""
        return optax.adamw(rate, b1=self.b1, b2=self.b2, weight_decay=self.weight_decay)


@dataclass(frozen=True, kw_only=True)
class Lion(AdamW):
    """The step p - rate (sign(b1 m + (1 - b1) g) + weight_decay p), then m <- b2 m + (1 - b2) g.

    It has the size of the learning rate in every parameter: it wants a rate 3 to 10 times lower than AdamW, and a
    weight decay as much higher. Its state is half as large.

    Source: Chen et al., "Symbolic Discovery of Optimization Algorithms", NeurIPS 2023.
    """

    def update_rule(self, rate: optax.Schedule) -> optax.GradientTransformation:
        """As `Optimizer`."""
        return optax.lion(rate, b1=self.b1, b2=self.b2, weight_decay=self.weight_decay)


OPTIMIZERS: dict[str, type[Optimizer]] = {"adamw": AdamW, "adam": Adam, "lion": Lion}


@dataclass(frozen=True)
class Average:
    """The exponential moving average of parameters, moved every `every` steps.

        average <- d average + (1 - d) params,   at step s, the n-th time it is moved:

        ratio   d = min(decay, (1 + n) / (10 + n))           at s = every, 2 every, ...
        power   d = min(decay, 1 - max(1, s - 100)^(-2/3))   at s = 1, 1 + every, ...: a copy until step 101
        none    d = decay                                    as ratio: the first parameters fade slowly

    `power` is the published rule, that of ema_pytorch with its own defaults. At the published 0.995 every 10 steps the
    two are constant from step 17,900 and 2,931 on.
    """

    decay: float = setting(0.999, at_least=0, below=1, doc="what is kept of the average when it is moved")
    every: int = setting(1, at_least=1, doc="steps between moves")
    warmup: str = setting(
        "ratio", choices=("ratio", "power", "none"), earlier="ratio", doc="how the decay rises; power: as published"
    )

    def __post_init__(self) -> None:
        check(self)

    def update(self, average: Any, params: Any, step: jax.Array) -> Any:
        """The new average from the average, the new parameters and the number of steps done."""
        moves, due = step // self.every, step % self.every == 0
        limit: float | jax.Array = self.decay
        if self.warmup == "ratio":
            limit = jnp.minimum(self.decay, (1 + moves) / (10 + moves))
        elif self.warmup == "power":
            limit = jnp.minimum(self.decay, 1 - jnp.maximum(1.0, step - 100.0) ** (-2 / 3))
            due = (step - 1) % self.every == 0
        weight = jnp.where(due, 1 - limit, 0.0)
        return jax.tree.map(lambda a, p: a + weight.astype(a.dtype) * (p - a), average, params)
