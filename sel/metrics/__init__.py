"""Scores of a restored image, exactly defined in docs/metrics.md.

Against its reference: PSNR, SSIM, LPIPS; without one: NIQE. `match_gt_mean` is what "GT-mean" scores do to an image
first.
"""

from sel.metrics.brightness import match_gt_mean
from sel.metrics.fidelity import psnr, ssim
from sel.metrics.naturalness import niqe
from sel.metrics.perceptual import make_lpips

__all__ = ["make_lpips", "match_gt_mean", "niqe", "psnr", "ssim"]
