"""The conditional NAFNet and its training step as one would write them for speed in PyTorch: the step's yardstick.

Modules carry the published names, so that `sel.interop.network_to_torch` fills them.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from sel.diffusion import Schedule


def gate(x: Tensor) -> Tensor:
    """First half of the channels (axis 1) times the second half."""
    first, second = x.chunk(2, dim=1)
    return first * second


class Gate(nn.Module):
    """`gate` as a layer."""

    def forward(self, x: Tensor) -> Tensor:
        """Gate."""
        return gate(x)


class Embedding(nn.Module):
    """Sines, then cosines, of t at geometric frequencies."""

    def __init__(self, dim: int):
        super().__init__()
        half = dim // 2
        frequencies = torch.exp(-math.log(10_000) / (half - 1) * torch.arange(half, dtype=torch.float32))
        self.register_buffer("frequencies", frequencies, persistent=False)

    def forward(self, t: Tensor) -> Tensor:
        """Embed `[b]` time steps."""
        angles = t[:, None].float() * self.frequencies
        return torch.cat([angles.sin(), angles.cos()], dim=-1)


class Norm(nn.Module):
    """Layer norm over the channels, with a scale; PyTorch's own kernel, for which channels come last."""

    def __init__(self, channels: int):
        super().__init__()
        self.g = nn.Parameter(torch.ones(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise."""
        scale = self.g.flatten()
        return functional.layer_norm(x.permute(0, 2, 3, 1), scale.shape, scale, eps=1e-5).permute(0, 3, 1, 2)


class Block(nn.Module):
    """One NAF block."""

    def __init__(self, c: int, time: int):
        super().__init__()
        self.mlp = nn.Sequential(Gate(), nn.Linear(time // 2, 4 * c))
        self.norm1, self.norm2 = Norm(c), Norm(c)
        self.conv1, self.conv3 = nn.Conv2d(c, 2 * c, 1), nn.Conv2d(c, c, 1)
        self.conv2 = nn.Conv2d(2 * c, 2 * c, 3, padding=1, groups=2 * c)
        self.sca = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(c, c, 1))
        self.conv4, self.conv5 = nn.Conv2d(c, 2 * c, 1), nn.Conv2d(c, c, 1)
        self.beta, self.gamma = (nn.Parameter(torch.zeros(1, c, 1, 1)) for _ in range(2))

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """Transform a feature map, given the embedded time."""
        shift_1, scale_1, shift_2, scale_2 = self.mlp(time)[:, :, None, None].chunk(4, dim=1)
        y = gate(self.conv2(self.conv1(self.norm1(x) * (1 + scale_1) + shift_1)))
        x = x + self.conv3(y * self.sca(y)) * self.beta
        y = self.conv5(gate(self.conv4(self.norm2(x) * (1 + scale_2) + shift_2)))
        return x + y * self.gamma


class NAFNet(nn.Module):
    """Predicts the noise, `[b, c, h, w]`; height and width must be multiples of 2^depth."""

    def __init__(self, width: int, encoder_blocks: Sequence[int], middle_blocks: int, decoder_blocks: Sequence[int]):
        super().__init__()
        time, depth = 4 * width, len(encoder_blocks)
        sizes = [width * 2**level for level in range(depth + 1)]

        def stage(channels: int, blocks: int) -> nn.ModuleList:
            return nn.ModuleList(Block(channels, time) for _ in range(blocks))

        self.time_mlp = nn.Sequential(Embedding(width), nn.Linear(width, 2 * time), Gate(), nn.Linear(time, time))
        self.intro, self.ending = nn.Conv2d(6, width, 3, padding=1), nn.Conv2d(width, 3, 3, padding=1)
        self.encoders = nn.ModuleList(stage(c, blocks) for c, blocks in zip(sizes[:-1], encoder_blocks, strict=True))
        self.downs = nn.ModuleList(nn.Conv2d(c, 2 * c, 2, 2) for c in sizes[:-1])
        self.middle_blks = stage(sizes[-1], middle_blocks)
        self.ups = nn.ModuleList(
            nn.Sequential(nn.Conv2d(c, 2 * c, 1, bias=False), nn.PixelShuffle(2)) for c in sizes[:0:-1]
        )
        self.decoders = nn.ModuleList(stage(c, blocks) for c, blocks in zip(sizes[-2::-1], decoder_blocks, strict=True))

    def forward(self, x_t: Tensor, mu: Tensor, t: Tensor) -> Tensor:
        """Predict."""
        time = self.time_mlp(t)
        x, skips = self.intro(torch.cat([x_t - mu, mu], dim=1)), []
        for blocks, down in zip(self.encoders, self.downs, strict=True):
            for block in blocks:
                x = block(x, time)
            skips.append(x)
            x = down(x)
        for block in self.middle_blks:
            x = block(x, time)
        for blocks, up in zip(self.decoders, self.ups, strict=True):
            x = up(x) + skips.pop()
            for block in blocks:
                x = block(x, time)
        return self.ending(x)


class TorchObjective(nn.Module):
    """`sel.objective.training_losses` with l1, averaged over the batch."""

    def __init__(self, network: NAFNet, schedule: Schedule):
        super().__init__()
        self.network, self.dt = network, float(schedule.dt)
        for name in ("theta", "theta_cumsum", "sigma", "sigma_bar"):
            self.register_buffer(name, torch.tensor(getattr(schedule, name).tolist()), persistent=False)

    def forward(self, x0: Tensor, mu: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """The loss of one step."""
        theta, sigma, sigma_bar = (table[t].view(-1, 1, 1, 1) for table in (self.theta, self.sigma, self.sigma_bar))
        last, before = (self.theta_cumsum[t - i].view(-1, 1, 1, 1) * self.dt for i in (0, 1))
        x_t = mu + (x0 - mu) * torch.exp(-last) + sigma_bar * noise
        from_state = torch.exp(-theta * self.dt) * torch.expm1(-2 * before) / torch.expm1(-2 * last)
        from_clean = torch.exp(-before) * torch.expm1(-2 * theta * self.dt) / torch.expm1(-2 * last)
        best = from_state * (x_t - mu) + from_clean * (x0 - mu) + mu
        score = -self.network(x_t, mu, t) / sigma_bar
        step = x_t - (theta * (mu - x_t) - sigma**2 * score) * self.dt
        return functional.l1_loss(step, best)


class Step:
    """Forward, backward, the norm of the gradient, AdamW, and the average of the parameters."""

    def __init__(self, objective: TorchObjective, num_steps: int, *, channels_last: bool, compiled: bool):
        self.num_steps = num_steps
        self.layout = torch.channels_last if channels_last else torch.contiguous_format
        self.objective = objective.to(memory_format=self.layout)
        self.loss = torch.compile(self.objective) if compiled else self.objective
        self.params = list(objective.parameters())
        self.average = [p.detach().clone() for p in self.params]
        self.optimizer = torch.optim.AdamW(self.params, lr=5e-4, betas=(0.9, 0.99), weight_decay=1e-4, fused=True)

    def gradients(self, x0: Tensor, mu: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """The loss; leaves gradients at the parameters. Images are `[b, c, h, w]`."""
        self.optimizer.zero_grad(set_to_none=True)
        x0, mu, noise = (x.contiguous(memory_format=self.layout) for x in (x0, mu, noise))
        loss = self.loss(x0, mu, t, noise)
        loss.backward()
        return loss.detach()

    def __call__(self, x0: Tensor, mu: Tensor) -> Tensor:
        """One whole step on uint8 images `[b, c, h, w]`; returns the loss."""
        x0, mu = x0.float() / 255, mu.float() / 255
        t = torch.randint(1, self.num_steps + 1, x0.shape[:1])
        loss = self.gradients(x0, mu, t, torch.randn_like(x0))
        torch.nn.utils.clip_grad_norm_(self.params, 1.0)
        self.optimizer.step()
        torch._foreach_lerp_(self.average, self.params, 1e-3)
        return loss
