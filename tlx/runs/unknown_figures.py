"""How well images of none of the classes are separated from those of the test set: figures of a model."""

from typing import TYPE_CHECKING

import numpy as np

from tlx.analysis.distribution_shift import separability
from tlx.core.metric import MetricValue
from tlx.core.statistics import CONFIDENCE, wilson

if TYPE_CHECKING:
    from torch import Tensor

    from tlx.inference.unknown_score import UnknownScore

__all__ = ["unknown_figures"]
PASS = 0.95  # of the test images, where it is said how many of the others pass with them


def unknown_figures(
    score: "UnknownScore", known: "Tensor", of_known: "Tensor", seen: "Tensor", of_seen: "Tensor"
) -> tuple[list[MetricValue], list[float]]:
    """The figures, and the score of each image of none of the classes.

    Args:
        score: the model's.
        known: the scores of the test images, [N].
        of_known: their logits, [N, classes].
        seen: the features of the others, [M, D].
        of_seen: their logits, [M, classes].
    """
    inside, outside = known.cpu().double().numpy(), score(seen).cpu().double().numpy()
    n, figures = len(outside), list[MetricValue]()
    if min(len(inside), n) > 1:
        highest = [-logits.amax(1).cpu().double().numpy() for logits in (of_known, of_seen)]
        for name, pair in (("auroc", [inside, outside]), ("auroc_max_logit", highest)):
            second = np.repeat([False, True], [len(inside), n])
            area = separability(np.concatenate(pair), second, 1 - CONFIDENCE)
            figures.append(MetricValue(name, "unknown", area.area, area.low, area.high))
    edge = np.quantile(inside, PASS, method="higher")
    passes = int((outside <= edge).sum())
    figures.append(MetricValue("fpr95", "unknown", passes / n, *wilson(passes, n), higher_is_better=False))
    if score.threshold is not None:
        found = int((outside > score.threshold).sum())
        figures.append(MetricValue("recall", "unknown", found / n, *wilson(found, n)))
    return figures, [float(one) for one in outside]
