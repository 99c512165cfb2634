"""Learning-rate schedules: pure functions of the position, so that resuming needs no stored state.

Each takes `epoch` (epochs done in the phase, fractional: schedules move with every step) and `epochs` (the phase's
length) and gives the factor on the phase's learning rate.
"""

import math


def constant(epoch: float, epochs: int) -> float:
    """Always 1."""
    return 1.0


def step(epoch: float, epochs: int, every: int = 7, gamma: float = 0.1) -> float:
    """`gamma` more after `every` epochs (torch's StepLR)."""
    return gamma ** (int(epoch) // every)


def cosine(epoch: float, epochs: int, warmup: float = 0.0) -> float:
    """A linear rise over `warmup` epochs, then half a cosine to 0 (https://arxiv.org/abs/1608.03983)."""
    if epoch < warmup:
        return epoch / warmup
    return (1 + math.cos(math.pi * (epoch - warmup) / max(epochs - warmup, 1e-12))) / 2


def onecycle(epoch: float, epochs: int, rise: float = 0.3, start: float = 25.0, end: float = 1e4) -> float:
    """From 1/`start` to 1 over the share `rise`, then down to 1/(`start`·`end`), in cosines.

    As torch's OneCycleLR, without its cycle of the momentum (https://arxiv.org/abs/1708.07120).
    """

    def between(a: float, b: float, share: float) -> float:
        return b + (a - b) * (1 + math.cos(math.pi * share)) / 2

    position = epoch / epochs
    if position < rise:
        return between(1 / start, 1, position / rise)
    return between(1, 1 / (start * end), (position - rise) / max(1 - rise, 1e-12))
