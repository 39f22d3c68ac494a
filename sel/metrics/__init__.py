"""Fidelity of a restored image to its reference: PSNR and SSIM, one value per image."""

from sel.metrics.fidelity import psnr, ssim

__all__ = ["psnr", "ssim"]
