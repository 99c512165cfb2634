"""How long the phases are on the data at hand: their epochs, or more where the images are few."""

import dataclasses
import math
from collections.abc import Mapping

from tlx.config.schema import Phase


def lengthened(phases: Mapping[str, Phase], images: int) -> dict[str, Phase]:
    """The phases with the epochs that they have on so many training images.

    An epoch of few images is a few steps of the optimizer. A phase whose epochs have fewer steps than `min_steps` has
    as many epochs more as that takes.
    """
    found = {}
    for name, phase in phases.items():
        assert phase.epochs is not None
        if phase.batch_size is None:  # a step of its solver takes all images
            found[name] = phase
            continue
        steps = math.ceil(images / phase.batch_size)  # of an epoch
        epochs = max(phase.epochs, math.ceil((phase.min_steps or 0) / max(steps, 1)))
        found[name] = dataclasses.replace(phase, epochs=epochs)
    return found
