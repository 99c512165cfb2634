"""Whether a run was trained long enough, read off its epochs."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from tlx.config.schema import Phase
from tlx.config.solver_keys import CHOICES, is_one_of

STILL = 0.01  # share of the validation loss: what falls by more in the last epoch has not stopped falling
LITTLE = 0.01  # of the loss of guessing: below this there is nothing left to gain
FAR = 0.5  # of the way from guessing to a training loss as low as it can be


def not_converged(
    rows: Sequence[Mapping[str, Any]],
    phases: Mapping[str, Phase],
    smoothing: float,
    classes: int,
    guessed: float | None = None,
) -> str:
    """What to say of a run that ended too early, with the key to change; empty where it was long enough.

    It ended too early where the validation loss was still falling in the last epoch and is not low yet. So it did where
    the training loss has come less than half the way from guessing to its lowest value. Where patience ended it, more
    epochs change nothing: then more patience is proposed. Only the last phase counts: it is the one whose best epoch is
    kept. Where its epochs are other models each, such as one for each k of nearest neighbours, there is nothing to say.

    Args:
        rows: the epochs of all phases, as a solver yields them.
        phases: as long as they were.
        smoothing: of the labels.
        classes: their number.
        guessed: the training loss of guessing; None: that of cross-entropy.
    """
    name, phase = list(phases.items())[-1]
    if is_one_of(phase.solver, CHOICES):
        return ""
    last = [row for row in rows if row["phase"] == name]
    if not last:  # it diverged in its first epoch
        return ""
    before, now = min((row["val_loss"] for row in last[:-1]), default=math.inf), last[-1]["val_loss"]
    guessing, lowest = math.log(classes), _entropy(smoothing, classes)
    learned = guessing if guessed is None else guessed
    reached = last[-1]["train_loss"]
    through = len(last) == phase.epochs
    if through and now < (1 - STILL) * before and now - lowest > LITTLE * guessing:
        why = "the validation loss was still falling in the last epoch"
    elif reached - lowest > FAR * (learned - lowest):
        why = f"the training loss is {reached:.3g}, that of guessing {learned:.3g}"
    else:
        return ""
    accuracies = [row["val_accuracy"] for row in last]
    if through and (steady := accuracies.index(max(accuracies)) + 1) < len(last):
        why += f"; the validation accuracy has not risen since epoch {last[steady - 1]['epoch']}"
    longer = f"epochs={2 * (phase.epochs or 1)}" if through else f"patience={2 * (phase.patience or 1)}"
    line = f"not converged: train longer, for example with strategy.phases.{name}.{longer}"
    if len(last) > 1 and reached > learned and phase.lr is not None:  # it may never come lower at such a rate
        line += f", or at a lower rate, for example with strategy.phases.{name}.lr={phase.lr / 10:g}"
    return f"{line} ({why})"


def _entropy(smoothing: float, classes: int) -> float:
    """The lowest loss that can be had with smoothed labels, nats."""
    shares = [1 - smoothing + smoothing / classes, *[smoothing / classes] * (classes - 1)]
    return -sum(share * math.log(share) for share in shares if share > 0)
