"""Images whose label is probably wrong, from a probe's scores out of fold. No torch here.

A label is taken to be drawn, with probability 1 - e, from the probe's probabilities at a temperature, and else from all
classes alike. Both numbers are those of highest likelihood. What the probe does not know by itself is so counted as
its uncertainty: an image between two classes is no error under either label. Where features separate the classes fully,
errors and such images are equally likely, and how deep in the other class the contradicted images lie decides.
Confident learning (Northcutt et al. 2021, "Confident Learning: Estimating Uncertainty in Dataset Labels") lists images
between two classes as well; `bench.labels` compares them.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tlx.datasets.images import Labels

Reals = NDArray[np.float64]

TEMPERATURES = np.geomspace(0.4, 4.0, 24)
SHARE = 0.05  # of blind labels, from which the search begins
STEPS = 50  # of expectation-maximisation, at each temperature
EVIDENCE = 2.0  # nats by which errors must raise the likelihood of all labels, or there are none by that
FEWEST, MOST = 3, 0.2  # contradicted labels from which, and share up to which, their depth decides
KNOWN = 0.5  # of a class's labels that may be contradicted: of a class with more, the features say nothing
DEEP = 0.65  # their median margin, as a share of the others': where nothing is wrong it is below half


@dataclass(frozen=True)
class LabelErrors:
    """Suspicious labels, the most suspicious first.

    Attributes:
        rows: int64 [M]: positions of the images.
        suggested: int64 [M]: the most probable other class.
        certainty: float64 [M], 0..1: the probability that the given label is wrong.
        noise: the share of wrong labels in all, as estimated or assumed.
    """

    rows: Labels
    suggested: Labels
    certainty: Reals
    noise: float

    def __len__(self) -> int:
        return len(self.rows)


def label_errors(
    logits: NDArray[np.floating],
    labels: Labels,
    least: float = 0.5,
    *,
    weights: Reals | None = None,
    assumed: float = 0.0,
) -> LabelErrors:
    """The labels that are wrong with a probability of at least `least`; with 0 all images, ranked.

    Args:
        logits: [N, classes], out of fold; two classes at least.
        labels: int64 [N].
        least: certainty, 0..1.
        weights: float64 [N], how many images each stands for; None: itself.
        assumed: share of wrong labels for which certainties hold where a smaller one, or none, is estimated.
    """
    fitted = mixture(logits, labels, weights)
    noise = max(fitted.noise, assumed)
    probabilities = softmax(logits, fitted.temperature)
    certainty, own = wrong(probabilities, labels, noise), _own(probabilities, labels)
    order = np.lexsort((np.arange(len(labels)), own, -certainty))
    found = order[certainty[order] >= least]
    return LabelErrors(found, other(logits, labels)[found], certainty[found], noise)


def softmax(logits: NDArray[np.floating], temperature: float = 1.0) -> Reals:
    """Probabilities, float64 [N, classes]."""
    scaled = (logits.astype(np.float64) - logits.max(axis=1, keepdims=True)) / temperature
    found: Reals = np.exp(scaled)
    found /= found.sum(axis=1, keepdims=True)
    return found


def other(logits: NDArray[np.floating], labels: Labels) -> Labels:
    """The most probable class that is not the given one, int64 [N]."""
    without = logits.astype(np.float64)
    without[np.arange(len(labels)), labels] = -np.inf
    found: Labels = without.argmax(axis=1)
    return found


@dataclass(frozen=True)
class Mixture:
    """Of right labels, drawn from the probe's probabilities, and of labels drawn blindly from all classes.

    Attributes:
        noise: the share of wrong labels; 0 where the labels are about as likely without any.
        temperature: of the probe's logits.
        evidence: nats by which wrong labels raise the log likelihood of all labels.
    """

    noise: float
    temperature: float
    evidence: float


def mixture(logits: NDArray[np.floating], labels: Labels, weights: Reals | None = None) -> Mixture:
    """The mixture in which the labels are most likely; `weights`: how many images each stands for.

    Where an image stands for several, chance weighs as much more, and so much more evidence is needed.
    """
    count = np.ones(len(labels)) if weights is None else weights
    needed = EVIDENCE * max(1.0, float(count.max()))
    blind = 1 / logits.shape[1]
    best, chosen, without = -np.inf, (0.0, 1.0), -np.inf
    for temperature in TEMPERATURES.tolist():
        own = np.maximum(_own(softmax(logits, temperature), labels), 1e-300)
        share = SHARE
        for _ in range(STEPS):
            share = float(np.average(share * blind / (share * blind + (1 - share) * own), weights=count))
        likelihood = float(count @ np.log(share * blind + (1 - share) * own))
        without = max(without, float(count @ np.log(own)))
        if likelihood > best:
            best, chosen = likelihood, (share, temperature)
    share, temperature = chosen
    if best > without + needed:
        return Mixture(share * (1 - blind), temperature, best - without)
    deep = contradicted(logits, labels) if count.max() <= 1 else 0.0
    return Mixture(deep, float(TEMPERATURES[0]) if deep else temperature, best - without)


def contradicted(logits: NDArray[np.floating], labels: Labels) -> float:
    """The share of labels that the scores contradict, where they do so about as strongly as they confirm the others.

    An image between two classes is contradicted weakly; one that is labelled wrongly lies deep in the other class. 0
    where they are few, too many to be errors (of all images or of one class), or not so deep.
    """
    rows = np.arange(len(labels))
    margin = (logits[rows, labels] - logits[rows, other(logits, labels)]).astype(np.float64)
    wrong = margin < 0
    if not FEWEST <= wrong.sum() <= MOST * len(labels):
        return 0.0
    classes = logits.shape[1]
    of_class = np.bincount(labels[wrong], minlength=classes) / np.maximum(np.bincount(labels, minlength=classes), 1)
    if of_class.max() > KNOWN:
        return 0.0
    return float(wrong.mean()) if np.median(-margin[wrong]) >= DEEP * np.median(margin[~wrong]) else 0.0


def wrong(probabilities: Reals, labels: Labels, noise: float) -> Reals:
    """The probability that each given label is wrong, where a share `noise` of all labels is, float64 [N].

    Args:
        probabilities: of the right class, float64 [N, classes].
        labels: int64 [N].
        noise: 0..1; a wrong label is any other class with the same probability.
    """
    own = _own(probabilities, labels)
    astray = (1 - own) * noise / (probabilities.shape[1] - 1)
    found: Reals = astray / np.maximum(astray + own * (1 - noise), 1e-300)
    return found


def _own(probabilities: Reals, labels: Labels) -> Reals:
    found: Reals = probabilities[np.arange(len(labels)), labels]
    return found
