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
from sel.diffusion.samplers import (
    SAMPLERS,
    Ddim,
    DpmSolver,
    Ode,
    Posterior,
    Sampler,
    Sde,
    Times,
    Transition,
    X0Sampler,
    make_sampler,
)
from sel.diffusion.sampling import sample, sampling_times
from sel.diffusion.schedule import Diffusion, Schedule, make_schedule

__all__ = [
    "BLOCK",
    "SAMPLERS",
    "Ddim",
    "Diffusion",
    "DpmSolver",
    "Ode",
    "Posterior",
    "Sampler",
    "Schedule",
    "Sde",
    "Times",
    "Transition",
    "X0Sampler",
    "implicit_step",
    "make_sampler",
    "make_schedule",
    "marginal_mean",
    "marginal_sample",
    "noise_field",
    "posterior_mean",
    "posterior_std",
    "reverse_ode_mean",
    "reverse_sde_mean",
    "sample",
    "sampling_times",
    "score_from_noise",
    "start_state",
    "x0_from_noise",
]
