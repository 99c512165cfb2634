"""What a model is worth on labelled images: named figures with intervals, and figures of each class.

A figure is a function from `Classified` to a `MetricValue`; all that are in `METRICS` are in `summary.json`, in
MLflow, in the closing table and in a sweep's CSV.
"""

import dataclasses
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from tlx.core import bootstrap, calibration
from tlx.core.calibration import Floats, Reliability
from tlx.core.confusion_counts import ConfusionCounts
from tlx.core.csv_cells import Table
from tlx.core.errors import unicode
from tlx.core.metric import MetricValue
from tlx.core.statistics import wilson
from tlx.training.class_averages import f1_interval, mean_f1, mean_recall, recall_interval


class Probabilities(NamedTuple):
    """What is needed of the probabilities of images.

    Attributes:
        losses: of each, the negative logarithm of its label's probability, float64 `[N]`, nats.
        brier: of each, the squared distance of its probabilities to the label's 1 and the others' 0, float64 `[N]`.
        highest: of each, the probability of the prediction, float64 `[N]`.
        table: the reliability table.
    """

    losses: Floats
    brier: Floats
    highest: Floats
    table: Reliability

    @classmethod
    def of(cls, logits: Tensor, labels: Tensor) -> "Probabilities":
        """Those of logits `[N, classes]`, with labels int64 `[N]`."""
        logarithms = logits.log_softmax(1)
        of_label = logarithms.gather(1, labels[:, None])[:, 0].double()
        probabilities = logarithms.exp_()
        highest, predictions = probabilities.max(1)
        squares = probabilities.square().sum(1).double() + 1 - 2 * of_label.exp()
        sure = highest.double().numpy()
        table = calibration.reliability(sure, (predictions == labels).numpy())
        return cls(-of_label.numpy(), squares.clamp(min=0).numpy(), sure, table)

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        return {"log_loss": float(self.losses.mean()), "ece": self.table.error, "bins": self.table.rows()}


@dataclass(frozen=True)
class Classified:
    """Images with a model's predictions.

    Attributes:
        split: which images: `test`, …
        logits: float32 `[N, classes]`, as the network gives them.
        labels: int64 `[N]`.
        confusion: how often each label has each prediction.
        temperature: by what the logits are divided before they become probabilities.
        unknown: whether each is predicted as none of the classes, bool `[N]`; None of a model that has no threshold.
    """

    split: str
    logits: Tensor
    labels: Tensor
    confusion: ConfusionCounts
    temperature: float = 1.0
    unknown: Tensor | None = None

    @cached_property
    def resampled(self) -> tuple[Floats, Floats]:
        """Confusion matrices of the bootstrap, as `bootstrap.confusions` has them."""
        return bootstrap.confusions(self.confusion)

    @cached_property
    def calibrated(self) -> Probabilities:
        """The probabilities at the temperature."""
        return self.raw if self.temperature == 1 else Probabilities.of(self.logits / self.temperature, self.labels)

    @cached_property
    def raw(self) -> Probabilities:
        """Those of the logits as they are."""
        return Probabilities.of(self.logits, self.labels)

    def mean(self, name: str, values: Floats) -> MetricValue:
        """The mean of a number of each image, of which less is better, with its bootstrap interval."""
        interval = bootstrap.of_mean(values, self.labels.numpy())
        return MetricValue(name, self.split, float(values.mean()), *interval, higher_is_better=False)

    def proportion(self, name: str, correct: int) -> MetricValue:
        """The share of the images for which something holds, with Wilson's 95 % interval."""
        n = len(self.labels)
        return MetricValue(name, self.split, correct / n, *wilson(correct, n))


def accuracy(of: Classified) -> MetricValue:
    """Share of images whose most probable class is the label."""
    return of.proportion("accuracy", int(of.confusion.correct.sum()))


def loss(of: Classified) -> MetricValue:
    """Mean cross-entropy of the logits as they are, before the temperature, nats."""
    value = float(functional.cross_entropy(of.logits, of.labels))
    return MetricValue("loss", of.split, value, higher_is_better=False)


def balanced_accuracy(of: Classified) -> MetricValue:
    """Mean recall of the classes, 0..1; a class without images has no recall and is left out."""
    interval = recall_interval(of.confusion, of.resampled)
    return MetricValue("balanced_accuracy", of.split, mean_recall(of.confusion), *interval)


def macro_f1(of: Classified) -> MetricValue | None:
    """Mean F1 of the classes, 0..1, as `mean_f1`; None where all images are of one class: its precision is 1 whatever
    the model."""
    if int((of.confusion.images > 0).sum()) < 2:
        return None
    interval = f1_interval(of.confusion, of.resampled)
    return MetricValue("macro_f1", of.split, mean_f1(of.confusion), *interval)


def top5_accuracy(of: Classified) -> MetricValue | None:
    """Share of images whose label is among the five most probable classes.

    None below ten classes, where it says little: guessing alone would reach more than a half.
    """
    if of.logits.shape[1] < 10:
        return None
    named = of.logits.topk(5).indices
    return of.proportion("top5_accuracy", int((named == of.labels[:, None]).any(1).sum()))


def log_loss(of: Classified) -> MetricValue:
    """Mean negative log-likelihood of the labels after the temperature, nats."""
    return of.mean("log_loss", of.calibrated.losses)


def brier(of: Classified) -> MetricValue:
    """The Brier score after the temperature: a mean squared distance to the label, 0 (best) to 2."""
    return of.mean("brier", of.calibrated.brier)


def ece(of: Classified) -> MetricValue:
    """The expected calibration error after the temperature, 0..1: bins of equal numbers of images, debiased.

    Without an interval: resamples of a calibrated model are not calibrated. `ece_floor` is what to compare it with.
    """
    return MetricValue("ece", of.split, of.calibrated.table.error, higher_is_better=False)


def ece_floor(of: Classified) -> MetricValue:
    """What `ece` would be of a calibrated model with as many images: the mean of draws, and where 95 % of them lie."""
    floor = calibration.floor(of.calibrated.highest)
    return MetricValue("ece_floor", of.split, floor.mean, floor.low, floor.high, higher_is_better=False)


def unknown_false_alarms(of: Classified) -> MetricValue | None:
    """Share of images that are predicted as `unknown`, though they are of the classes; None without a threshold."""
    if of.unknown is None:
        return None
    return dataclasses.replace(of.proportion("unknown_false_alarms", int(of.unknown.sum())), higher_is_better=False)


# Each gives None where its figure does not exist for these images.
METRICS: tuple[Callable[[Classified], MetricValue | None], ...] = (
    accuracy,
    loss,
    balanced_accuracy,
    macro_f1,
    top5_accuracy,
    log_loss,
    brier,
    ece,
    ece_floor,
    unknown_false_alarms,
)
FEW = (accuracy, loss)  # what is needed of a model that is not the run's result


@dataclass(frozen=True)
class Scores:
    """How predictions compare with labels.

    Attributes:
        metrics: all figures of `METRICS` that exist for these images.
        confusion: how often each label has each prediction.
        per_class: precision, recall, f1 (0..1; 0 where undefined) and images of each class.
        predictions, probabilities: of each image, the most probable class and its probability.
        calibration: `log_loss`, `ece` and the `bins` of the reliability table, `before` and `after` the temperature;
            empty where few figures were requested.
        unknown_scores: split → of each image; empty of a model that has none.
    """

    metrics: tuple[MetricValue, ...]
    confusion: ConfusionCounts
    per_class: dict[str, dict[str, float]]
    predictions: list[int]
    probabilities: list[float]
    calibration: dict[str, Any]
    unknown_scores: dict[str, list[float]] = field(default_factory=dict)

    def metric(self, name: str) -> MetricValue:
        """The figure of this name."""
        return next(metric for metric in self.metrics if metric.name == name)

    @property
    def loss(self) -> float:
        """Mean cross-entropy before the temperature, nats."""
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


def scores(
    logits: Tensor,
    labels: Tensor,
    classes: Sequence[str],
    split: str = "test",
    temperature: float = 1.0,
    *,
    few: bool = False,
    unknown: Tensor | None = None,
    threshold: float | None = None,
) -> Scores:
    """Compares logits (`[N, classes]`) with labels (int64 `[N]`) of the images of a split.

    `temperature`: the model's. `few`: accuracy and loss are enough. `unknown`: the unknown score of each image, where
    the model has one, and `threshold`: above which it is predicted as unknown, where the model has one.
    """
    logits, labels = logits.cpu(), labels.cpu()
    probabilities, predictions = (logits / temperature).softmax(1).max(1)
    k = len(classes)
    confusion = ConfusionCounts.of(labels.numpy(), predictions.numpy(), k)
    right, of_label, of_prediction = map(torch.from_numpy, (confusion.correct, confusion.images, confusion.predicted))

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
    beyond = None if unknown is None or threshold is None else unknown.cpu() > threshold
    known = Classified(split, logits.float(), labels, confusion, temperature, beyond)
    return Scores(
        metrics=tuple(found for metric in (FEW if few else METRICS) if (found := metric(known)) is not None),
        confusion=confusion,
        per_class={c: {"precision": p, "recall": r, "f1": f, "images": m} for c, p, r, f, m in columns},
        predictions=predictions.tolist(),
        probabilities=probabilities.tolist(),
        calibration={} if few else {"before": known.raw.to_dict(), "after": known.calibrated.to_dict()},
        unknown_scores={} if unknown is None else {split: unknown.tolist()},
    )
