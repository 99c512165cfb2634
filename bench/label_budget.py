"""Does it help to label by rank? Label budgets on real images: `predict --rank`'s orders against a random one.

    python -m bench.label_budget FILE.npz --seeds 10

The file has `train` and `test`, features of a pretrained network `[N, D]`, and `train_labels`, `test_labels` `[N]`.
For each seed a few labels at first, and round by round as many more, chosen at random or by an order of
`tlx.inference.label_ranking` from the probabilities of a logistic regression on what is labelled so far. It prints the
accuracy on the test images after each round, and the paired difference from random over the seeds.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from tlx.core.statistics import quantile
from tlx.inference.label_ranking import diverse, uncertainty

Values = NDArray[np.float64]
EACH = 4  # labels of a round, a class in the mean


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("features", type=Path, help="npz of `train, train_labels, test, test_labels`")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--first", type=int, default=4, help="labels at first, of each class")
    given = parser.parse_args()
    with np.load(given.features) as known:
        data = dict(known)
    scale = data["train"].std(0) + 1e-6
    data["train"], data["test"] = data["train"] / scale, data["test"] / scale
    orders = ("random", "uncertain", "diverse")
    found = np.array([[_budget(data, order, seed, given) for order in orders] for seed in range(given.seeds)])
    classes = int(data["train_labels"].max()) + 1
    print(
        "labels  " + "  ".join(f"{order:>10}" for order in orders) + "   difference from random, points, 95 % interval"
    )
    for turn in range(given.rounds + 1):
        labels = classes * (given.first + EACH * turn)
        means = "  ".join(f"{value:>10.1%}" for value in found[:, :, turn].mean(0))
        apart = [_paired(found[:, place, turn] - found[:, 0, turn]) for place in (1, 2)]
        print(f"{labels:>6}  {means}   " + ", ".join(f"{o} {a}" for o, a in zip(orders[1:], apart, strict=True)))
    print(json.dumps({"seeds": given.seeds, "mean over rounds": _whole(found, orders)}))


def _whole(found: Values, orders: Sequence[str]) -> dict[str, str]:
    later = found[:, :, 1:].mean(2)
    return {order: _paired(later[:, place] - later[:, 0]) for place, order in enumerate(orders) if place}


def _paired(d: Values) -> str:
    half = quantile(len(d) - 1) * d.std(ddof=1) / np.sqrt(len(d))
    return f"{100 * d.mean():+.1f} ({100 * (d.mean() - half):+.1f} to {100 * (d.mean() + half):+.1f})"


def _budget(data: dict[str, Any], order: str, seed: int, given: argparse.Namespace) -> list[float]:
    """The accuracy after the first labels and after each round."""
    rng = np.random.default_rng(seed)
    x, y = data["train"], data["train_labels"]
    classes = int(y.max()) + 1
    first = [rng.permutation(np.flatnonzero(y == label))[: given.first] for label in range(classes)]
    labelled = np.concatenate(first)
    accuracies = []
    for _ in range(given.rounds + 1):
        model = LogisticRegression(C=10 / x.shape[1], max_iter=300).fit(x[labelled], y[labelled])
        accuracies.append(float((model.predict(data["test"]) == data["test_labels"]).mean()))
        pool = np.setdiff1d(np.arange(len(y)), labelled)
        chosen = _chosen(order, model.predict_proba(x[pool]), x[pool], x[labelled], EACH * classes, rng)
        labelled = np.concatenate([labelled, pool[chosen]])
    return accuracies


def _chosen(order: str, p: Values, x: Any, known: Any, most: int, rng: np.random.Generator) -> Any:
    if order == "random":
        return rng.permutation(len(x))[:most]
    weights = uncertainty(p)
    if order == "uncertain":
        return np.argsort(-weights, kind="stable")[:most]
    return diverse(torch.from_numpy(x), torch.from_numpy(weights).float(), torch.from_numpy(known), most)[0]


if __name__ == "__main__":
    main()
