"""Efficiency of training on many accelerators, predicted on paper from bytes, published peak figures and assumptions.

    python -m benchmarks.efficiency

Prints the tables of docs/benchmarks/scaling.md, which says what is assumed; `benchmarks.traffic` counts the bytes in
the program.
"""

import argparse
from dataclasses import dataclass, replace

# float32: the parameters, their average, two moments and the gradient are read, all but the last are written.
UPDATE_BYTES = 9 * 4


@dataclass(frozen=True)
class Machine:
    """Published figures of one accelerator: operations per second in bfloat16 and bytes per second, one way.

    Attributes:
        name: Its name.
        operations: Per second.
        memory: Of its memory.
        group: How many are connected closely.
        near: To accelerators of its group.
        far: Its share of the network between groups.
        utilisation: What part of its operations a network makes use of: an assumption.
    """

    name: str
    operations: float
    memory: float
    group: int
    near: float
    far: float
    utilisation: float = 0.3


@dataclass(frozen=True)
class Network:
    """A NAFNet: its name, parameters, width and blocks."""

    name: str
    parameters: int
    width: int
    encoder: tuple[int, ...]
    middle: int
    decoder: tuple[int, ...]

    def multiplications(self, size: int) -> float:
        """Of one forward pass of an image of size x size x 3."""
        pixels, c = size * size, self.width
        total = pixels * 9 * (6 * c + 3 * c)
        for blocks in self.encoder:
            total += pixels * (blocks * _block(c) + 2 * c * c)
            pixels, c = pixels // 4, 2 * c
        total += pixels * self.middle * _block(c)
        for blocks in self.decoder:
            total += pixels * 2 * c * c
            pixels, c = pixels * 4, c // 2
            total += pixels * blocks * _block(c)
        return total


def _block(c: int) -> int:
    return 6 * c * c + 18 * c


H100 = Machine("H100 SXM, NVLink in eights, 400 Gb/s InfiniBand each", 989e12, 3.35e12, 8, 450e9, 50e9)
V5E = Machine("TPU v5e, pods of 256", 197e12, 819e9, 256, 200e9, 6.4e12 / 8 / 256)
SMALL = Network("small, 1.3 M", 1_336_771, 32, (1, 1, 1), 1, (1, 1, 1))
PUBLISHED = Network("published, 288 M", 287_965_571, 64, (1, 1, 1, 1, 28), 1, (1, 1, 1, 1, 1))


def exchange(machine: Machine, count: int, size: float) -> float:
    """Seconds in which rings add up `size` bytes over all accelerators: first in groups, then between them.

    2 (k - 1) / k size / near + 2 (m - 1) / m (size / k) / far,   k in a group, m groups

    To gather split parameters and to add up and split their gradients takes the same together.
    """
    k = min(count, machine.group)
    m = count // k
    return 2 * (k - 1) / k * size / machine.near + 2 * (m - 1) / m * size / k / machine.far


@dataclass(frozen=True)
class Step:
    """Seconds of a step: the images of an accelerator, the update of the parameters, the exchange."""

    images: float
    update: float
    exchange: float

    def total(self, overlap: bool) -> float:
        """With overlap, the exchange hides behind the backward pass: two thirds of the images' time."""
        return self.images + self.update + (max(0, self.exchange - 2 / 3 * self.images) if overlap else self.exchange)


def step(
    network: Network, machine: Machine, count: int, images: float, *, size: int = 128, split: bool = False
) -> Step:
    """A step of `count` accelerators with that many images each."""
    forward = 2 * network.multiplications(size) * images
    update = UPDATE_BYTES * network.parameters / machine.memory / (count if split else 1)
    crossing = exchange(machine, count, 4 * network.parameters)
    return Step(3 * forward / (machine.utilisation * machine.operations), update, crossing)


def efficiency(network: Network, machine: Machine, count: int, images: float, *, overlap: bool, split: bool) -> float:
    """Images per second and accelerator, against those of one accelerator with as many images."""
    alone = replace(step(network, machine, 1, images), exchange=0.0).total(False)
    return alone / step(network, machine, count, images, split=split).total(overlap)


def weak_scaling(machines: tuple[Machine, ...], counts: tuple[int, ...]) -> list[str]:
    """Table: the same number of images on each accelerator."""
    heads = [f"{count} accelerators" for count in counts]
    lines = [
        "| network | accelerator | images each | images, update: ms | "
        + " | ".join(heads)
        + " | the same, split state |",
        "|" + "---|" * (5 + len(counts)),
    ]
    for network in (SMALL, PUBLISHED):
        for machine in machines:
            for images in (1, 8, 32):
                one = step(network, machine, 1, images)
                cells = [network.name, machine.name.split(",")[0], str(images)]
                cells.append(f"{1000 * one.images:.2f}, {1000 * one.update:.2f}")
                for count in counts:
                    crossing = 1000 * step(network, machine, count, images).exchange
                    plain, hidden = (
                        efficiency(network, machine, count, images, overlap=overlap, split=False)
                        for overlap in (False, True)
                    )
                    cells.append(f"{crossing:.2f} ms: {plain:.0%}, {hidden:.0%}")
                split = [efficiency(network, machine, n, images, overlap=True, split=True) for n in counts]
                cells.append(", ".join(f"{value:.0%}" for value in split))
                lines.append("| " + " | ".join(cells) + " |")
    return lines


def strong_scaling(machines: tuple[Machine, ...], batch: int) -> list[str]:
    """Table: one batch, shared by more and more accelerators."""
    lines = ["| network | accelerator | accelerators | ms a step | times one |", "|---|---|---|---|---|"]
    for network in (SMALL, PUBLISHED):
        for machine in machines:
            alone = step(network, machine, 1, batch).total(False)
            for count in (1, 2, 4, 8):
                time = step(network, machine, count, batch / count).total(True)
                cells = [network.name, machine.name.split(",")[0], str(count), f"{1000 * time:.2f}"]
                lines.append("| " + " | ".join([*cells, f"{alone / time:.1f}"]) + " |")
    return lines


def main() -> None:
    """Print the tables as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--utilisation", type=float, default=0.3, help="part of the peak that is assumed")
    utilisation = parser.parse_args().utilisation
    for network in (SMALL, PUBLISHED):
        print(f"{network.name}: {network.multiplications(128) / 1e9:.2f} G multiplications for 128 x 128 x 3")
    machines = tuple(replace(machine, utilisation=utilisation) for machine in (H100, V5E))
    print("\n".join(["", *weak_scaling(machines, (8, 64, 512)), "", *strong_scaling(machines, 8)]))


if __name__ == "__main__":
    main()
