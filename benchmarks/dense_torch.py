"""The loss as one would write it in PyTorch, every bin map of every pixel at once: what `sel` is measured against."""

import torch
from torch.nn import functional


def _weights(u: torch.Tensor, num_bins: int, bandwidth: float) -> torch.Tensor:
    """[c, h, w] -> [l, c, h, w], summing to 1 over l."""
    bins = torch.arange(num_bins, dtype=u.dtype).view(-1, 1, 1, 1)
    z = ((bins - u) / bandwidth).abs()
    return torch.softmax(-z - 2 * torch.log1p(torch.exp(-z)), dim=0)


def _neighbor_mean(u: torch.Tensor) -> torch.Tensor:
    kernel = torch.ones(1, 1, 3, 3, dtype=u.dtype)
    kernel[..., 1, 1] = 0
    total = functional.conv2d(u[:, None], kernel, padding=1)
    return (total / functional.conv2d(torch.ones_like(u[:, None]), kernel, padding=1))[:, 0]


def hellinger_loss(
    prediction: torch.Tensor, target: torch.Tensor, *, num_bins: int = 32, bandwidth: float = 0.5, windows=(1, 3, 5)
) -> torch.Tensor:
    """Mean Hellinger distance of one pair of images `[c, h, w]` in [0, 1]; equals `sel.spatial_entropy_loss`."""
    joints = []
    for image in (prediction, target):
        u = image.clamp(0, 1) * (num_bins - 1)
        first, second = (_weights(x, num_bins, bandwidth) for x in (u, _neighbor_mean(u)))
        joints.append((first[:, None] * second[None]).flatten(0, 1))
    values = []
    for k in windows:
        P, Q = (functional.avg_pool2d(joint, k, stride=1, padding=k // 2, count_include_pad=False) for joint in joints)
        total = (torch.sqrt(P + 1e-30) - torch.sqrt(Q + 1e-30)).square().sum(0)
        values.append(torch.sqrt(total / 2 + 1e-30).mean())
    return torch.stack(values).mean()
