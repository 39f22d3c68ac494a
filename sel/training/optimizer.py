"""The optimizer of a configuration, its learning rate, and the running average of parameters."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

# From the average, the new parameters and the number of steps done to the new average.
UpdateAverage = Callable[[Any, Any, jax.Array], Any]

OPTIMIZERS = ("adamw", "adam", "lion")
SCHEDULES = ("cosine", "multistep", "constant")
AVERAGE_WARMUPS = ("ratio", "power", "none")


def make_learning_rate(options: Mapping[str, Any], num_steps: int) -> optax.Schedule:
    """The learning rate after n steps: a linear warm-up, then what `schedule` names.

        warm-up     learning_rate n / warmup_steps                                for n < warmup_steps
        cosine      end + (learning_rate - end) (1 + cos(pi (n - warmup_steps) / (num_steps - warmup_steps))) / 2
        multistep   learning_rate gamma^(number of milestones <= n)
        constant    learning_rate

    Args:
      options: `schedule`, `learning_rate`, `warmup_steps`; for `cosine` `end_learning_rate`; for `multistep` `gamma`
        and `milestones`, each a number of steps, or a fraction of `num_steps` if it is below 1.
      num_steps: of the whole run.

    Raises:
      ValueError: if there is no such schedule, or milestones do not rise between 0 and `num_steps`.
    """
    peak, warmup, name = options["learning_rate"], options["warmup_steps"], options["schedule"]
    if name == "cosine":
        start = 0.0 if warmup else peak
        return optax.warmup_cosine_decay_schedule(start, peak, warmup, num_steps, options["end_learning_rate"])
    if name == "constant":
        drops, gamma = [], 1.0
    elif name == "multistep":
        drops, gamma = milestone_steps(options["milestones"], num_steps), options["gamma"]
    else:
        raise ValueError(f"schedule must be one of {', '.join(SCHEDULES)}, found {name!r}")

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


def make_optimizer(options: Mapping[str, Any], learning_rate: optax.Schedule) -> optax.GradientTransformation:
    """AdamW, Adam or Lion behind an optional bound on the global norm of the gradient.

        adamw   p - rate (m_hat / (sqrt(v_hat) + 1e-8) + weight_decay p)
        adam    p - rate  m_hat / (sqrt(v_hat) + 1e-8)
        lion    p - rate (sign(b1 m + (1 - b1) g) + weight_decay p),   then m <- b2 m + (1 - b2) g

    A step of Lion has the size of its learning rate in every parameter: it wants a rate 3 to 10 times lower than AdamW,
    and a weight decay as much higher. Its state is half as large.

    Args:
      options: `name`, `b1`, `b2`, `clip_norm` (0: no bound), and `weight_decay` where it is read.
      learning_rate: by the number of steps done.

    Raises:
      ValueError: if there is no such optimizer.

    Source: Kingma & Ba, ICLR 2015; Loshchilov & Hutter, ICLR 2019; Chen et al., "Symbolic Discovery of Optimization
    Algorithms", NeurIPS 2023.
    """
    name, moments = options["name"], {"b1": options["b1"], "b2": options["b2"]}
    if name == "adamw":
        optimizer = optax.adamw(learning_rate, **moments, weight_decay=options["weight_decay"])
    elif name == "adam":
        optimizer = optax.adam(learning_rate, **moments)
    elif name == "lion":
        optimizer = optax.lion(learning_rate, **moments, weight_decay=options["weight_decay"])
    else:
        raise ValueError(f"name must be one of {', '.join(OPTIMIZERS)}, found {name!r}")
    bound = options["clip_norm"]
    return optax.chain(optax.clip_by_global_norm(bound), optimizer) if bound else optimizer


def make_average(options: Mapping[str, Any]) -> UpdateAverage:
    """The exponential moving average of parameters, moved every `every` steps.

        average <- d average + (1 - d) params,   at step s, the n-th time it is moved:

        ratio   d = min(decay, (1 + n) / (10 + n))           at s = every, 2 every, ...
        power   d = min(decay, 1 - max(1, s - 100)^(-2/3))   at s = 1, 1 + every, ...: a copy until step 101
        none    d = decay                                    as ratio: the first parameters fade slowly

    `power` is the published rule, that of ema_pytorch with its own defaults. At the published 0.995 every 10 steps the
    two are constant from step 17,900 and 2,931 on.

    Args:
      options: `decay`, `every`, `warmup`.

    Raises:
      ValueError: if there is no such warm-up.
    """
    decay, every, warmup = options["decay"], options["every"], options["warmup"]
    if warmup not in AVERAGE_WARMUPS:
        raise ValueError(f"warmup must be one of {', '.join(AVERAGE_WARMUPS)}, found {warmup!r}")

    def update(average: Any, params: Any, step: jax.Array) -> Any:
        moves, limit, due = step // every, decay, step % every == 0
        if warmup == "ratio":
            limit = jnp.minimum(decay, (1 + moves) / (10 + moves))
        elif warmup == "power":
            limit = jnp.minimum(decay, 1 - jnp.maximum(1.0, step - 100.0) ** (-2 / 3))
            due = (step - 1) % every == 0
        weight = jnp.where(due, 1 - limit, 0.0)
        return jax.tree.map(lambda a, p: a + weight.astype(a.dtype) * (p - a), average, params)

    return update
