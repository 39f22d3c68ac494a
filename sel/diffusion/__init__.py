"""The mean-reverting diffusion (IR-SDE): schedules, process functions, samplers."""

from sel.diffusion.irsde import (
    implicit_step,
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
from sel.diffusion.noise import BLOCK, noise_field
from sel.diffusion.sampling import CLIPPING, METHODS, Step, check_clip, reverse_step, sample, sampling_steps
from sel.diffusion.schedule import Schedule, make_schedule

__all__ = [
    "BLOCK",
    "CLIPPING",
    "METHODS",
    "Schedule",
    "Step",
    "check_clip",
    "implicit_step",
    "make_schedule",
    "marginal_mean",
    "marginal_sample",
    "noise_field",
    "posterior_mean",
    "posterior_std",
    "reverse_ode_mean",
    "reverse_sde_mean",
    "reverse_step",
    "sample",
    "sampling_steps",
    "score_from_noise",
    "start_state",
    "x0_from_noise",
]
