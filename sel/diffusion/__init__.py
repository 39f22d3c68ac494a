"""The mean-reverting diffusion (IR-SDE): schedules, process functions, samplers."""

from sel.diffusion.irsde import (
    marginal_mean,
    marginal_sample,
    posterior_mean,
    posterior_std,
    reverse_ode_mean,
    reverse_sde_mean,
    score_from_noise,
    start_state,
    x0_from_noise,
)
from sel.diffusion.sampling import sample
from sel.diffusion.schedule import Schedule, make_schedule

__all__ = [
    "Schedule",
    "make_schedule",
    "marginal_mean",
    "marginal_sample",
    "posterior_mean",
    "posterior_std",
    "reverse_ode_mean",
    "reverse_sde_mean",
    "sample",
    "score_from_noise",
    "start_state",
    "x0_from_noise",
]
