"""What a model is worth on labelled images: named figures with intervals, and figures of each class.

A figure is a function from `Classified` to a `MetricValue`; all that are in `METRICS` are in `summary.json`, in
MLflow, in the closing table and in a sweep's CSV.
"""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from tlx.core.csv_cells import Table
from tlx.core.errors import unicode
from tlx.core.metric import MetricValue
from tlx.core.statistics import wilson


@dataclass(frozen=True)
class Classified:
    """Images with a model's predictions.

    Attributes:
        split: which images: `test`, …
        logits: float32 `[N, classes]`.
        labels: int64 `[N]`.
        confusion: counts, int64 `[label, prediction]`.
    """

    split: str
    logits: Tensor
    labels: Tensor
    confusion: Tensor

    def proportion(self, name: str, correct: int) -> MetricValue:
        """The share of the images for which something holds, with Wilson's 95 % interval."""
        n = len(self.labels)
        return MetricValue(name, self.split, correct / n, *wilson(correct, n))


def accuracy(of: Classified) -> MetricValue:
    """Share of images whose most probable class is the label."""
    return of.proportion("accuracy", int(of.confusion.diagonal().sum()))


def loss(of: Classified) -> MetricValue:
    """Mean cross-entropy, nats."""
    value = float(functional.cross_entropy(of.logits, of.labels))
    return MetricValue("loss", of.split, value, higher_is_better=False)


def balanced_accuracy(of: Classified) -> MetricValue:
    """Mean recall of the classes, 0..1; a class without images has no recall and is left out."""
    return MetricValue("balanced_accuracy", of.split, mean_recall(of.confusion))


def macro_f1(of: Classified) -> MetricValue | None:
    """Mean F1 of the classes, 0..1, as `mean_f1`; None where all images are of one class: its precision is 1 whatever
    the model."""
    if int((of.confusion.sum(1) > 0).sum()) < 2:
        return None
    return MetricValue("macro_f1", of.split, mean_f1(of.confusion))


def top5_accuracy(of: Classified) -> MetricValue | None:
    """Share of images whose label is among the five most probable classes.

    None below ten classes, where it says little: guessing alone would reach more than a half.
    """
    if of.logits.shape[1] < 10:
        return None
    named = of.logits.topk(5).indices
    return of.proportion("top5_accuracy", int((named == of.labels[:, None]).any(1).sum()))


def confusion_of(labels: Tensor, predictions: Tensor, classes: int) -> Tensor:
    """Counts, int64 `[label, prediction]`, of labels and predictions int64 `[N]`."""
    return torch.bincount(labels * classes + predictions, minlength=classes**2).reshape(classes, classes)


def mean_recall(confusion: Tensor) -> float:
    """The mean recall of the classes that are a label, 0..1."""
    images = confusion.sum(1)
    return float((confusion.diagonal().double() / images)[images > 0].mean())


def mean_f1(confusion: Tensor) -> float:
    """The mean F1 of the classes that are a label or a prediction, 0..1.

    As scikit-learn's `f1_score(average="macro")`: a class that is a label and never predicted has F1 0, and so has one
    that is predicted and never a label.
    """
    both = confusion.sum(1) + confusion.sum(0)
    return float((2 * confusion.diagonal().double() / both)[both > 0].mean())


# Each gives None where its figure does not exist for these images.
METRICS: tuple[Callable[[Classified], MetricValue | None], ...] = (
    accuracy,
    loss,
    balanced_accuracy,
    macro_f1,
    top5_accuracy,
)


@dataclass(frozen=True)
class Scores:
    """How predictions compare with labels.

    Attributes:
        metrics: all figures of `METRICS` that exist for these images.
        confusion: counts, label × prediction.
        per_class: precision, recall, f1 (0..1; 0 where undefined) and images of each class.
        predictions, probabilities: of each image, the most probable class and its probability.
    """

    metrics: tuple[MetricValue, ...]
    confusion: list[list[int]]
    per_class: dict[str, dict[str, float]]
    predictions: list[int]
    probabilities: list[float]

    def metric(self, name: str) -> MetricValue:
        """The figure of this name."""
        return next(metric for metric in self.metrics if metric.name == name)

    @property
    def loss(self) -> float:
        """Mean cross-entropy, nats."""
        return self.metric("loss").value

    @property
    def accuracy(self) -> float:
        """Share of images whose most probable class is the label, 0..1."""
        return self.metric("accuracy").value

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % Wilson interval of the accuracy."""
        found = self.metric("accuracy")
        assert found.low is not None
        assert found.high is not None
        return found.low, found.high

    def table(self, files: Sequence[str], labels: Sequence[int], classes: Sequence[str]) -> str:
        """`predictions.csv`: a row for each image, as CSV.

        `files`: the path of each; what is no Unicode in it becomes an escape. `labels`: positions in `classes`.
        """
        text = io.StringIO()
        rows = Table(text)
        rows.row(["sample", "file", "label", "prediction", "probability", "correct"])
        images = zip(files, labels, self.predictions, self.probabilities, strict=True)
        for sample, (file, label, predicted, probability) in enumerate(images):
            names = classes[label], classes[predicted]
            rows.row([sample, file, *names, f"{probability:.6f}", int(label == predicted)])
        return unicode(text.getvalue())


def scores(logits: Tensor, labels: Tensor, classes: Sequence[str], split: str = "test") -> Scores:
    """Compares logits (`[N, classes]`) with labels (int64 `[N]`) of the images of a split."""
    logits, labels = logits.cpu(), labels.cpu()
    probabilities, predictions = logits.softmax(1).max(1)
    k = len(classes)
    confusion = confusion_of(labels, predictions, k)
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
    known = Classified(split, logits, labels, confusion)
    return Scores(
        metrics=tuple(found for metric in METRICS if (found := metric(known)) is not None),
        confusion=confusion.tolist(),
        per_class={c: {"precision": p, "recall": r, "f1": f, "images": m} for c, p, r, f, m in columns},
        predictions=predictions.tolist(),
        probabilities=probabilities.tolist(),
    )
