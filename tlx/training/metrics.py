"""What a model is worth on labelled images: accuracy, loss and per-class figures, with intervals."""

import io
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from tlx.core.csv_cells import Table
from tlx.core.errors import unicode
from tlx.core.statistics import wilson


@dataclass(frozen=True)
class Scores:
    """How answers compare with labels.

    Attributes:
        loss: mean cross-entropy, nats.
        accuracy: share of images whose most probable class is the label, 0..1.
        interval: its 95 % Wilson interval.
        confusion: counts, label × prediction.
        per_class: precision, recall, f1 (0..1; 0 where undefined) and images of each class.
        predictions, probabilities: of each image, the most probable class and its probability.
    """

    loss: float
    accuracy: float
    interval: tuple[float, float]
    confusion: list[list[int]]
    per_class: dict[str, dict[str, float]]
    predictions: list[int]
    probabilities: list[float]

    def table(self, files: Sequence[str], labels: Sequence[int], classes: Sequence[str]) -> str:
        """`predictions.csv`: a row for each image, as CSV.

        `files`: the path of each; what is no Unicode in it becomes an escape. `labels`: positions in `classes`.
        """
        text = io.StringIO()
        rows = Table(text)
        rows.row(["sample", "file", "label", "prediction", "probability", "correct"])
        answers = zip(files, labels, self.predictions, self.probabilities, strict=True)
        for sample, (file, label, predicted, probability) in enumerate(answers):
            names = classes[label], classes[predicted]
            rows.row([sample, file, *names, f"{probability:.6f}", int(label == predicted)])
        return unicode(text.getvalue())


def scores(answers: Tensor, labels: Tensor, classes: Sequence[str]) -> Scores:
    """Compares answers (logits `[N, classes]`) with labels (int64 `[N]`)."""
    answers, labels = answers.cpu(), labels.cpu()
    probabilities, predictions = answers.softmax(1).max(1)
    k, n = len(classes), len(labels)
    confusion = torch.bincount(labels * k + predictions, minlength=k * k).reshape(k, k)
    right, of_label, of_prediction = confusion.diagonal(), confusion.sum(1), confusion.sum(0)

    def ratio(a: Tensor, b: Tensor) -> list[float]:
        return [float(x) for x in torch.where(b > 0, a / b.clamp(min=1), torch.zeros(k))]

    columns = zip(
        classes,
        ratio(right, of_prediction),
        ratio(right, of_label),
        ratio(2 * right, of_label + of_prediction),
        of_label.tolist(),
        strict=True,
    )
    correct = int(right.sum())
    return Scores(
        loss=float(functional.cross_entropy(answers, labels)),
        accuracy=correct / n,
        interval=wilson(correct, n),
        confusion=confusion.tolist(),
        per_class={c: {"precision": p, "recall": r, "f1": f, "images": m} for c, p, r, f, m in columns},
        predictions=predictions.tolist(),
        probabilities=probabilities.tolist(),
    )
