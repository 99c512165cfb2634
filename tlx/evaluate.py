"""What a network's answers are worth: loss, accuracy with its interval, per-class figures."""

import io
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from tlx import ranks
from tlx.cells import Table
from tlx.errors import unicode
from tlx.forward import as_input, rows_per_pass
from tlx.intervals import wilson
from tlx.lanes import for_passes, side_by_side
from tlx.parallel import gathered
from tlx.rows import Rows
from tlx.runtime import autocast

PASSES = 4  # that a thread does at a time: handing over a small tail's pass takes longer than the pass


def logits(net: nn.Module, rows: Rows, precision: str) -> Tensor:
    """What `net`, in evaluation mode, answers to all rows in order: float32 `[N, classes]` on the rows' device.

    Ranks take a stretch of the rows each, and get the answers to all of them.
    """
    net.eval()
    device, n = rows.y.device, len(rows.y)
    mine = torch.arange(n)[ranks.part(n)]
    asked = mine if len(mine) else torch.arange(1)  # a rank that has none sees how wide an answer is

    def answers(some: Iterable[Tensor]) -> list[Tensor]:
        with torch.no_grad(), autocast(device, precision):
            return [net(as_input(x, precision)).float() for x in some]

    passes = rows.batches(torch.split(asked, rows_per_pass(device)), epoch=0)
    given = iter(lambda: [x for x, _ in itertools.islice(passes, PASSES)], [])
    found = itertools.chain.from_iterable(side_by_side(answers, given, for_passes(device)))
    return gathered(torch.cat(list(found))[: len(mine)], n)


def validation(answers: Tensor, labels: Tensor, rule: str) -> dict[str, float]:
    """The validation images' loss (nats) and accuracy, and the figure that `evaluation.choose_by` names (0..1).

    Args:
        answers: logits `[N, classes]`.
        labels: int64 `[N]`.
        rule: val_macro_f1 is the mean F1 of the classes that are a label or a prediction, val_balanced_accuracy the
            mean recall of the classes that are a label.
    """
    predictions = answers.argmax(1)
    right = predictions == labels
    found = {
        "val_loss": float(functional.cross_entropy(answers, labels)),
        "val_accuracy": float(right.float().mean()),
    }
    if rule not in found:
        count = partial(torch.bincount, minlength=answers.shape[1])
        of_label, both = count(labels).double(), count(labels).double() + count(predictions)
        correct = count(labels[right]).double()
        shares = {
            "val_macro_f1": (2 * correct / both)[both > 0],
            "val_balanced_accuracy": (correct / of_label)[of_label > 0],
        }
        found[rule] = float(shares[rule].mean())
    return found


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
