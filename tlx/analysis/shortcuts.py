"""Whether one fact of the files (brightness, size, format, …) alone predicts the label. No torch here.

A fact is cut into cells; a cell predicts the class of which it holds the largest share in the other folds. What counts
is how far the balanced accuracy is above chance, against the same with permuted labels.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from tlx.analysis.folds import deal_folds
from tlx.datasets.images import Labels

Fact = NDArray[np.generic]  # numbers or text [N], or numbers [N, K] that are one fact, as a colour

CELLS = 64  # of a fact, at most
FEWEST = 12  # images in a cell of numbers, on average
FOLDS = 5
PERMUTATIONS = 60  # of the labels, whose mean and standard deviation give the p-value
LEVEL = 0.001  # of the p-value, for all facts and classes together
LARGE = 0.3  # of the way from chance to all right, over all classes
LARGE_CLASS = 0.6  # share of one class's images so recognised, less the share of others taken for it
SMOOTH = 2.0  # images with which a cell's share of a class is drawn towards its share of all
LEAST = 10  # images of a class, to say something of it alone


@dataclass(frozen=True)
class Predictor:
    """What one fact says of the label.

    Attributes:
        fact: its name.
        accuracy: balanced, cross-validated; 0..1.
        chance: 1 / number of classes.
        effect: how far it is from chance (0) to all right (1).
        p: that labels without any relation do as well, corrected for the number of facts.
        label: the class that it recognises best.
        label_effect: that class's share of images so recognised, less the share of the others taken for it.
        label_p: that labels without any relation do as well, corrected for the number of facts and classes.
    """

    fact: str
    accuracy: float
    chance: float
    effect: float
    p: float
    label: int
    label_effect: float
    label_p: float

    @property
    def of_all(self) -> bool:
        """It predicts the label, significantly and by much."""
        return self.p < LEVEL and self.effect >= LARGE

    @property
    def of_class(self) -> bool:
        """It recognises one class, significantly and by much."""
        return self.label_p < LEVEL and self.label_effect >= LARGE_CLASS


def predictors(
    facts: Mapping[str, Fact], labels: Labels, groups: Labels | None = None, seed: int = 0
) -> Iterator[Predictor]:
    """What each fact says of the labels; facts that are the same for all images are left out.

    Args:
        facts: by name, each of N images.
        labels: int64 [N]; at least two of them.
        groups: int64 [N]: images of one number are in one fold, as near duplicates must be.
        seed: of folds and permutations.
    """
    present, y = np.unique(labels, return_inverse=True)
    classes, chance = len(present), 1 / max(len(present), 1)
    coded = {name: cells(fact) for name, fact in facts.items()}
    coded = {name: codes for name, codes in coded.items() if codes.max(initial=0) > 0}
    if classes < 2 or not coded:
        return
    folds = deal_folds(y, groups, FOLDS, seed)
    random = np.random.default_rng([seed, 11])
    orders = [random.permutation(len(y)) for _ in range(PERMUTATIONS)]
    enough = np.bincount(y) >= LEAST
    for name, codes in coded.items():
        accuracy, effects = recognised(codes, y, folds, classes)
        # Permuted with their folds: each fold keeps the class counts that it has.
        others = [recognised(codes, y[order], folds[order], classes) for order in orders]
        p = len(coded) * above(accuracy, np.array([one for one, _ in others]))
        drawn = np.array([of for _, of in others])
        best = int(np.where(enough, effects, -1.0).argmax())
        label_p = len(coded) * classes * above(float(effects[best]), drawn[:, best]) if enough[best] else 1.0
        effect = (accuracy - chance) / (1 - chance)
        yield Predictor(
            name, accuracy, chance, effect, min(1.0, p), int(present[best]), float(effects[best]), min(1.0, label_p)
        )


def above(value: float, drawn: NDArray[np.float64]) -> float:
    """The probability of at least `value` under a normal distribution with mean and deviation of what was drawn."""
    deviation = max(float(drawn.std(ddof=1)), 1e-9)
    return 1 - NormalDist().cdf((value - float(drawn.mean())) / deviation)


def recognised(codes: Labels, y: Labels, folds: Labels, classes: int) -> tuple[float, NDArray[np.float64]]:
    """(balanced accuracy, float64 [classes] what `Predictor.label_effect` says of each class), cross-validated."""
    cell_count, fold_count = int(codes.max()) + 1, int(folds.max()) + 1
    shape = (fold_count, cell_count, classes)
    held_out = np.bincount((folds * cell_count + codes) * classes + y, minlength=int(np.prod(shape))).reshape(shape)
    total = held_out.sum(axis=(0, 1))
    trained = held_out.sum(axis=0) - held_out
    share = trained.sum(axis=2, keepdims=True) / np.maximum(trained.sum(axis=(1, 2), keepdims=True), 1)
    density = (trained + SMOOTH * share) / (trained.sum(axis=1, keepdims=True) + SMOOTH)  # [folds, cells, classes]
    predicted = np.eye(classes)[density.argmax(axis=2)]
    accuracy = float(((held_out * predicted).sum(axis=(0, 1)) / total).mean())
    of_all = trained.sum(axis=1, keepdims=True)
    rest = (trained.sum(axis=2, keepdims=True) - trained + SMOOTH * share) / (
        of_all.sum(axis=2, keepdims=True) - of_all + SMOOTH
    )
    taken = density > rest
    hits = (held_out * taken).sum(axis=(0, 1))
    false = (held_out.sum(axis=2, keepdims=True) * taken).sum(axis=(0, 1)) - hits
    effects: NDArray[np.float64] = hits / total - false / np.maximum(len(y) - total, 1)
    return accuracy, effects


def cells(fact: Fact) -> Labels:
    """The cell of each image, int64 [N], from 0: values where they are few, else quantiles.

    Columns that are one fact share the cells: as many quantiles of each, in all combinations.
    """
    if fact.ndim == 2:
        each = max(2, int(_number(len(fact)) ** (1 / fact.shape[1]) + 1e-9))
        code = np.zeros(len(fact), np.int64)
        for column in fact.T:
            code = code * each + _quantiles(column.astype(np.float64), each)
        return _numbered(code)
    values, counts = np.unique(fact, return_counts=True)
    if len(values) <= _number(len(fact)) or not np.issubdtype(fact.dtype, np.number):
        frequent = np.argsort(-counts, kind="stable")[: CELLS - 1]
        rank = np.full(len(values), len(frequent))
        rank[frequent] = np.arange(len(frequent))
        return _numbered(rank[np.searchsorted(values, fact)])
    return _numbered(_quantiles(fact.astype(np.float64), min(16, _number(len(fact)))))


def _number(n: int) -> int:
    return int(np.clip(n // FEWEST, 2, CELLS))


def _quantiles(values: NDArray[np.float64], number: int) -> Labels:
    edges = np.unique(np.nanquantile(values, np.linspace(0, 1, number + 1)[1:-1]))
    found: Labels = np.searchsorted(edges, values, side="left").astype(np.int64)
    return found


def _numbered(codes: Labels) -> Labels:
    found: Labels = np.unique(codes, return_inverse=True)[1].astype(np.int64)
    return found
