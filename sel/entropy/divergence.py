"""What is summed over the bins: one term for each pair of density values, its slopes, and what becomes of the sum.

P is the density of the prediction, Q that of the target. Every term is written so that it keeps its relative
accuracy as P approaches Q, where training spends its time, and so that its slopes stay finite where a density has
underflown to 0.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from sel.entropy.neighborhood import add_up

# Added to densities before dividing or taking logs. Far below any density that matters (1e-7 of the mass is
# float32's own resolution), and far enough above the smallest float32 that Q / _TINY times a hundred window sums
# does not overflow.
_TINY = 1e-30
# The constant that the published code adds inside the logarithms of relative entropy.
_PUBLISHED_EPS = 1e-10


@dataclass(frozen=True)
class Divergence:
    """A sum over bins, total = sum_ab term(P_ab, Q_ab), and its meaning.

    In terms and slopes, the result of a division, root or logarithm is to be read once: XLA keeps one that is read
    twice in memory, and then the loops of the sparse algorithm run one after another (`sel.entropy.loops`). What is
    cheap enough to be done twice may stand between, an addition or a clipping.

    Attributes:
      term: differentiable function of one density value per image.
      slopes: derivatives of `term` by each of its arguments.
      finish: from the total of a pixel to its value.
      combine: for P_ab = p_a r_b (a 1 x 1 window), the total from those of the two factors; None where it doesn't
        factor.
      scaled: the same of scaled densities, where the logarithm of a density matters that float32 does not hold. Its
        term and slopes take P~, Q~ and their `Scales`, for P_ab = s_a t_b P~_ab; slopes are those by P~ and Q~.
    """

    term: Callable
    slopes: Callable
    finish: Callable = lambda total: total
    combine: Callable | None = None
    scaled: "Divergence | None" = None


class Scales(NamedTuple):
    """Of the densities of two images at bins (a, b): `first` and `second` are s_a and t_b of P, then of Q.

    `ratio` is the scale of P over that of Q, `inverse` that of Q over that of P, and `logs` are the logarithms of both:
    a factor or term for each axis.
    """

    first: tuple
    second: tuple
    ratio: tuple
    inverse: tuple
    logs: tuple


def scales_of(first, second) -> Scales:
    """From the scales s_a and t_b of each image, arrays that broadcast."""
    logs = tuple((jnp.log(s), jnp.log(t)) for s, t in zip(first, second, strict=True))
    ratio, inverse = (first[0] / first[-1], second[0] / second[-1]), (first[-1] / first[0], second[-1] / second[0])
    return Scales(tuple(first), tuple(second), ratio, inverse, logs)


def safe_sqrt(x):
    """Square root with gradient 0, not infinity, at 0: the distance of two equal images is flat."""
    zero = x <= 0  # and not x > 0, which would turn NaN into 0
    return jnp.where(zero, 0, jnp.sqrt(jnp.where(zero, 1, x)))


def _not_negative(x):
    # not jnp.maximum: compiled for a CPU it may drop a NaN
    return jnp.where(x < 0, 0, x)


def _with_slopes(term: Callable, slopes: Callable) -> Callable:
    """Give `term` hand-written derivatives: those that autodiff finds divide 0 by 0 or cancel.

    Second derivatives are those of `slopes`, which grow like powers of 1 / P: they see densities through a floor.
    """
    wrapped, floored = jax.custom_jvp(term), jax.custom_jvp(slopes)

    @wrapped.defjvp
    def _(primals, tangents):
        return wrapped(*primals), sum(s * t for s, t in zip(floored(*primals), tangents, strict=False))

    @floored.defjvp
    def _(primals, tangents):
        densities = [x for x in primals if not isinstance(x, Scales)]
        # 7e-16 in float32: its powers up to -2 are finite, and what lies below adds less than its root to a derivative.
        floor = jnp.finfo(densities[0].dtype).tiny ** 0.4
        above = [jnp.where(x < floor, floor, x) for x in densities]
        moved = [jnp.where(x < floor, 0, t) for x, t in zip(densities, tangents, strict=False)]
        held = primals[len(densities) :]
        return floored(*primals), jax.jvp(lambda *x: slopes(*x, *held), above, moved)[1]

    return wrapped


def _divergence(term, slopes, finish=lambda total: total, combine=None, scaled=None) -> Divergence:
    return Divergence(_with_slopes(term, slopes), slopes, finish, combine, scaled)


def _hellinger_term(P, Q):
    # (sqrt P - sqrt Q)^2 without subtracting the roots
    return jnp.square(P - Q) / (P + Q + 2 * jnp.sqrt(P * Q) + _TINY)


def _hellinger_slopes(P, Q):
    root = jnp.sqrt(P * Q)
    return (P - Q) / (P + root + _TINY), (Q - P) / (Q + root + _TINY)


def _contrast(P, Q):
    # d of P = M (1 + d), Q = M (1 - d). Clipping changes nothing, but is cheap enough for XLA to merge it with all that
    # reads it, which it does not do with a division.
    return jnp.clip((P - Q) / (P + Q + _TINY), -1, 1)


def _log_ratio(P, Q):
    return _near_or_far(_contrast(P, Q), jnp.log((P + _TINY) / (Q + _TINY)))


def _near_or_far(d, log_ratio):
    # log(P / Q) = 2 artanh(d), by its series near equality: six terms are exact to 1e-10 below 0.2
    series = 2 * d * _polynomial(d * d, [1 / (2 * k + 1) for k in range(6)])
    return jnp.where(jnp.abs(d) < 0.2, series, log_ratio)


def _densities(P, Q, scales):
    (s, s_target), (t, t_target) = scales.first, scales.second
    return P * s * t, Q * s_target * t_target


def _scaled_log_ratio(P, Q, scales):
    # On the scale of the larger of the two the smaller one may vanish, but not near equality.
    ratio, inverse = scales.ratio[0] * scales.ratio[1], scales.inverse[0] * scales.inverse[1]
    d = _contrast(P * jnp.minimum(ratio, 1), Q * jnp.minimum(inverse, 1))
    (s, t), (s_target, t_target) = scales.logs
    return _near_or_far(d, jnp.log((P + _TINY) / (Q + _TINY)) + ((s - s_target) + (t - t_target)))


def _polynomial(x, coefficients):
    return functools.reduce(lambda total, c: c + x * total, reversed(coefficients))


def _relative_term(P, Q):
    # Q log(Q/P) - Q + P: the last two cancel in the sum (both densities have mass 1) and make each term non-negative.
    return _not_negative(P - Q - Q * _log_ratio(P, Q))


def _relative_slopes(P, Q):
    return (P - Q) / (P + _TINY), -_log_ratio(P, Q)


def _scaled_relative_term(P, Q, scales):
    p, q = _densities(P, Q, scales)
    return _not_negative(p - q - q * _scaled_log_ratio(P, Q, scales))


def _scaled_relative_slopes(P, Q, scales):
    p, q = _densities(P, Q, scales)
    s, t = scales.first[1], scales.second[1]
    return (p - q) / (P + _TINY), -s * t * _scaled_log_ratio(P, Q, scales)


def _cross_term(P, Q):
    return -Q * jnp.log(P + _TINY)


def _cross_slopes(P, Q):
    return -Q / (P + _TINY), -jnp.log(P + _TINY)


def _scaled_cross_term(P, Q, scales):
    (s, t), _ = scales.logs
    return -_densities(P, Q, scales)[1] * (jnp.log(P + _TINY) + (s + t))


def _scaled_cross_slopes(P, Q, scales):
    (s, t), _ = scales.logs
    q, size = _densities(P, Q, scales)[1], scales.first[1] * scales.second[1]
    return -q / (P + _TINY), -size * (jnp.log(P + _TINY) + (s + t))


def _jensen_shannon_term(P, Q):
    # (P log(P/M) + Q log(Q/M)) / 2 = M ((1 + d) log(1 + d) + (1 - d) log(1 - d)) / 2. The logarithms cancel for small
    # d, where sum_k d^2k / (k (2k - 1)) takes their place: six terms are exact to 1e-8 below 0.3.
    d = _contrast(P, Q)
    series = d * d * _polynomial(d * d, [1 / (k * (2 * k - 1)) for k in range(1, 7)])
    logs = add_up(x * jnp.log(jnp.where(x <= 0, 1, x)) for x in (1 + d, 1 - d))
    return (P + Q) / 4 * jnp.where(jnp.abs(d) < 0.3, series, logs)


def _jensen_shannon_slopes(P, Q):
    total = P + Q + _TINY
    return tuple(jnp.log((2 * x + _TINY) / total) / 2 for x in (P, Q))


def _shannon_term(P):
    return -P * jnp.log(P + _TINY)


def _shannon_slopes(P):
    return (-1 - jnp.log(P + _TINY),)


def _published_relative_term(P, Q):
    return Q * jnp.log((Q + _PUBLISHED_EPS) / (P + _PUBLISHED_EPS))


def _published_relative_slopes(P, Q):
    log_ratio = jnp.log((Q + _PUBLISHED_EPS) / (P + _PUBLISHED_EPS))
    return -Q / (P + _PUBLISHED_EPS), log_ratio + Q / (Q + _PUBLISHED_EPS)


def _swapped(function):
    return lambda P, Q: function(Q, P)


def _add(u, v):
    return u + v


_HELLINGER = _divergence(
    _hellinger_term, _hellinger_slopes, lambda total: safe_sqrt(total / 2), lambda u, v: u + v - u * v / 2
)

DIVERGENCES: dict[str, Divergence] = {
    "hellinger": _HELLINGER,
    "relative": _divergence(
        _relative_term,
        _relative_slopes,
        combine=_add,
        scaled=_divergence(_scaled_relative_term, _scaled_relative_slopes),
    ),
    "cross": _divergence(
        _cross_term, _cross_slopes, combine=_add, scaled=_divergence(_scaled_cross_term, _scaled_cross_slopes)
    ),
    "jensen_shannon": _divergence(_jensen_shannon_term, _jensen_shannon_slopes),
}
# The published densities have no mass of 1, so that nothing factors over the bins and nothing cancels; cross entropy
# has its arguments swapped.
PUBLISHED: dict[str, Divergence] = {
    "hellinger": _divergence(_hellinger_term, _hellinger_slopes, lambda total: safe_sqrt(total / 2)),
    "relative": _divergence(_published_relative_term, _published_relative_slopes),
    "cross": _divergence(_swapped(_cross_term), lambda P, Q: _cross_slopes(Q, P)[::-1]),
    "jensen_shannon": _divergence(_jensen_shannon_term, _jensen_shannon_slopes),
}
SHANNON = _divergence(_shannon_term, _shannon_slopes, combine=_add)
