"""The options of a density estimate: they stand here once, and check themselves."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from sel.choices import setting
from sel.entropy.kernels import KERNELS
from sel.entropy.neighborhood import DISTRIBUTIONS

Windows = Sequence[int] | Literal["global"]
Range = Sequence[Any] | jax.Array

IMPLEMENTATIONS = ("dense", "sparse")
VARIANTS = ("corrected", "published")
WINDOW_SHAPES = ("box", "gaussian")


@dataclass(frozen=True, kw_only=True)
class DensityOptions:
    """How the joint density of (intensity, neighbour mean) is estimated.

    Options are checked when they are made. An object with plain values (no arrays) can be hashed and compared: it may
    be a static argument of `jax.jit`. Sequences become tuples.

    Attributes:
      num_bins: bins L on each axis, a whole number of at least 2.
      bandwidth: kernel width h, in bins: a positive number, which may be traced, or `"silverman"`:
        1.06 sigma n^(-1/5) for each channel of each target, with the standard deviation sigma of its n pixels, and at
        least 0.1. No gradient flows to it.
      kernel: `logistic` (s(z) s(-z)), `sech` (1 / (pi cosh z)) or `gaussian`.
      windows: odd window sizes in pixels, each once, or `"global"` for one distribution of the whole image.
      window_shape: `box` weights the pixels of a window equally, `gaussian` with a standard deviation of a quarter of
        its size.
      neighbor_weights: weights of the eight neighbours, divided by their sum. None weights them equally; 3 x 3 numbers
        are used as they are, but for the centre, should not be negative, and receive gradients; `"dirichlet"` and
        `"normal"` say that they are drawn (`sample_neighbor_weights`) and given to each call.
      value_range: (low, high), values of the first and the last bin, low < high; they may be traced. What lies outside
        is clipped and has no gradient: widen it to cover noise.
      variant: `corrected`, or `published` for parity with the released PyTorch code: kernels not normalised over the
        bins, divided by 0.5 h; neighbour means over all channels and zeros beyond the border; windows divided by k^2
        at borders too; 1e-10 inside the logarithms of relative entropy; `cross` with its arguments swapped,
        -sum P log Q. Not reproduced are the released code's conversion to gray, its rule for the bandwidth and its
        constant inside the logarithm of `cross`: `gray`, `"silverman"` and the floor of 1e-30 are the same in both.
      gray: compare the luminance (0.299, 0.587, 0.114) of RGB images instead of their channels.
      implementation: `sparse` (small tiles, skips empty bins; for forward-mode derivatives, `jax.jvp`, `jax.jacfwd` and
        `jax.linearize`, take `dense`), `dense` (all bins of whole planes) or None: sparse on CPU, dense elsewhere.

    Raises:
      ValueError: if an option has no such value; it names the option, what was found and what is allowed.
    """

    num_bins: int = setting(32, at_least=2, doc="bins on each axis of the joint density")
    bandwidth: Any = setting(0.5, rule='a positive number, or "silverman"', doc="width of the kernel, in bins")
    kernel: str = setting("logistic", choices=tuple(KERNELS), doc="how a pixel is spread over the bins")
    windows: Windows = setting(
        (1, 3, 5), rule='odd sizes of at least 1, each once, or "global"', doc="sizes of the windows, in pixels"
    )
    window_shape: str = setting("box", choices=WINDOW_SHAPES, doc="weights of the pixels of a window")
    neighbor_weights: Any = setting(
        None,
        rule=f"3 x 3 numbers, {', '.join(DISTRIBUTIONS)}, or None",
        doc="weights of the eight neighbours; a name: drawn in each step of training; None: all equal",
    )
    value_range: Range = setting(
        (0.0, 1.0),
        rule="(low, high) with low < high",
        doc="values of the first and the last bin; what lies outside is clipped and has no gradient",
    )
    variant: str = setting("corrected", choices=VARIANTS, doc="published: for parity with the released PyTorch code")
    gray: bool = setting(False, doc="whether the luminance of images is compared instead of their channels")
    implementation: str | None = setting(None, choices=IMPLEMENTATIONS, doc="None: sparse on a CPU, dense elsewhere")

    def __post_init__(self) -> None:
        """Refuse what is no choice."""
        if not isinstance(self.num_bins, int | np.integer) or self.num_bins < 2:
            raise ValueError(f"num_bins must be a whole number of at least 2, found {self.num_bins!r}")
        check_choice("kernel", self.kernel, KERNELS)
        check_choice("window_shape", self.window_shape, WINDOW_SHAPES)
        check_choice("variant", self.variant, VARIANTS)
        if self.implementation is not None:
            check_choice("implementation", self.implementation, IMPLEMENTATIONS)
        if not isinstance(self.gray, bool | np.bool_):
            raise ValueError(f"gray must be True or False, found {self.gray!r}")
        _check_bandwidth(self.bandwidth)
        _check_neighbor_weights(self.neighbor_weights)
        object.__setattr__(self, "windows", _checked_windows(self.windows))
        object.__setattr__(self, "value_range", _checked_range(self.value_range))


Options = TypeVar("Options", bound=DensityOptions)


def check_choice(option: str, value: Any, choices: Iterable[str]) -> None:
    """Refuse a value that is none of the choices.

    Raises:
      ValueError: names the option, the choices and what was found.
    """
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{option} must be one of {', '.join(choices)}, found {value!r}")


def from_options(
    kind: type[Options], function: str, options: Mapping[str, Any], without: Collection[str] = ()
) -> Options:
    """The object of these options.

    Raises:
      TypeError: if the function has no such option; it names those that there are.
    """
    known = [field.name for field in fields(kind) if field.name not in without]
    for name in options:
        if name not in known:
            raise TypeError(f"{function} has no option {name!r}: there are {', '.join(known)}")
    return kind(**options)


def is_number(value: Any) -> bool:
    """Whether this is a real number: of Python, NumPy or JAX, traced or not."""
    if isinstance(value, jax.Array | np.ndarray | np.generic):
        return value.ndim == 0 and any(jnp.issubdtype(value.dtype, kind) for kind in (jnp.floating, jnp.integer))
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_traced(value: Any) -> bool:
    """Whether the value is not known yet, as inside `jax.jit`."""
    return isinstance(value, jax.core.Tracer)


def known(value: Any, otherwise: Any) -> Any:
    """The number, or another one while it is traced. Comparing an array, even a known one, would be traced, too."""
    return otherwise if is_traced(value) else float(np.asarray(value))


def _in_order(low: Any, high: Any) -> bool:
    return is_traced(low) or is_traced(high) or known(low, 0) < known(high, 0)


def _check_bandwidth(bandwidth: Any) -> None:
    if isinstance(bandwidth, str):
        check_choice("bandwidth", bandwidth, ("silverman",))
    elif not is_number(bandwidth) or not 0 < known(bandwidth, 1) < np.inf:
        raise ValueError(f'bandwidth must be a positive number of bins, or "silverman", found {bandwidth!r}')


def _checked_windows(windows: Any) -> Windows:
    if isinstance(windows, str) and windows == "global":
        return "global"
    if isinstance(windows, str) or not isinstance(windows, Iterable):
        raise ValueError(f'windows must be odd sizes, or "global", found {windows!r}')
    sizes = tuple(windows)
    odd = all(isinstance(k, int | np.integer) and k > 0 and k % 2 == 1 for k in sizes)
    if not sizes or not odd or len(set(sizes)) < len(sizes):
        raise ValueError(f'windows must be odd sizes of at least 1, each once, or "global", found {windows!r}')
    return tuple(int(k) for k in sizes)


def _checked_range(value_range: Any) -> tuple[Any, Any]:
    ends = tuple(value_range) if isinstance(value_range, Iterable) and not isinstance(value_range, str) else ()
    numbers = len(ends) == 2 and all(map(is_number, ends))
    if not numbers or not -np.inf < known(ends[0], -1) or not known(ends[1], 1) < np.inf or not _in_order(*ends):
        raise ValueError(f"value_range must be (low, high) with low < high, found {value_range!r}")
    return ends[0], ends[1]


def _check_neighbor_weights(weights: Any) -> None:
    if weights is None:
        return
    if isinstance(weights, str):
        check_choice("neighbor_weights", weights, DISTRIBUTIONS)
    elif np.shape(weights) != (3, 3):
        raise ValueError(f"neighbor_weights must have shape (3, 3), found {np.shape(weights)}")
