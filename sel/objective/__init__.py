"""What training minimizes: which images are compared, by which loss, and how much each time step counts."""

from sel.objective.compared import COMPARED, X0, Compared, XPrev, clip_from_outside
from sel.objective.losses import L1, L2, LOSSES, Loss, Mixture, l1_loss, l2_loss
from sel.objective.training import (
    Draws,
    Objective,
    ObjectiveOptions,
    draw_step,
    time_law,
    time_weights,
    training_losses,
)
from sel.objective.weighting import T_WEIGHTINGS, MinSnr, NoiseWeighting, Unweighted, Weighting

__all__ = [
    "COMPARED",
    "L1",
    "L2",
    "LOSSES",
    "T_WEIGHTINGS",
    "X0",
    "Compared",
    "Draws",
    "Loss",
    "MinSnr",
    "Mixture",
    "NoiseWeighting",
    "Objective",
    "ObjectiveOptions",
    "Unweighted",
    "Weighting",
    "XPrev",
    "clip_from_outside",
    "draw_step",
    "l1_loss",
    "l2_loss",
    "time_law",
    "time_weights",
    "training_losses",
]
