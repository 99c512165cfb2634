"""Figures agree with the libraries that everybody checks against."""

import csv
import io
import os

import numpy as np
import pytest
import torch
from scipy.stats import binomtest, fisher_exact
from sklearn import metrics

from tlx.core.choose_by import RULES
from tlx.core.statistics import exact, visible, visible_in_words, wilson
from tlx.training.evaluation import CHOOSING, temperature, validation
from tlx.training.metrics import METRICS, scores


@pytest.mark.parametrize(("correct", "n"), [(0, 10), (10, 10), (1, 1), (144, 153), (7, 18), (9_400, 10_000)])
def test_the_interval_is_wilsons(correct: int, n: int) -> None:
    expected = binomtest(correct, n).proportion_ci(method="wilson")
    assert wilson(correct, n) == pytest.approx((expected.low, expected.high), abs=1e-12)
    low, high = wilson(correct, n)
    assert 0 <= low <= correct / n + 1e-12 <= high + 2e-12 <= 1 + 2e-12
    assert high - low > 0


@pytest.mark.parametrize(("correct", "n"), [(144, 153), (60, 60), (9, 153), (75, 153), (470, 500)])
def test_differences_that_are_not_visible_are_those_of_exact_tests(correct: int, n: int) -> None:
    unpaired, paired = visible(correct, n)
    better = max(correct, n - correct)
    p = [fisher_exact([[better, n - better], [better - k, n - better + k]]).pvalue for k in range(better + 1)]
    assert unpaired == next(k for k, value in enumerate(p) if value <= 0.05) / n
    assert unpaired >= paired == 6 / n


def test_what_is_not_visible_is_said_in_words() -> None:
    assert exact(0, 6) < 0.05 < exact(0, 5)
    assert visible(3, 4)[1] == 1.0
    assert visible_in_words(144, 153) == (
        "with 153 images, accuracy differences under 7.2 points are not visible between models measured on different "
        "images, nor under 3.9 points on the same images"
    )


def test_figures_of_validation_images_are_sklearns() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(200, 5), torch.randint(0, 3, (200,))
    logits[:, 2] -= 9  # a class that is never predicted
    logits[:, 4] -= 9  # and one that is neither label nor prediction
    predicted, true = logits.argmax(1).numpy(), labels.numpy()
    expected = {
        "val_loss": float(torch.nn.functional.cross_entropy(logits / temperature(logits, labels), labels)),
        "val_accuracy": metrics.accuracy_score(true, predicted),
        "val_macro_f1": metrics.f1_score(true, predicted, average="macro"),
        "val_balanced_accuracy": metrics.recall_score(true, predicted, average="macro", labels=np.unique(true)),
    }
    for rule in RULES:
        found = validation(logits, labels, rule)
        assert set(found) == {"val_loss", "val_accuracy", rule}
        assert found == pytest.approx({name: expected[name] for name in found})
        plain = validation(logits, labels, rule, scaled=False)
        assert plain == {**found, "val_loss": float(torch.nn.functional.cross_entropy(logits, labels))}
        assert validation(5 * logits, labels, rule)["val_loss"] < plain["val_loss"] * 1.5


def test_of_many_images_an_epochs_temperature_is_that_of_a_part_and_the_loss_hardly_differs() -> None:
    torch.manual_seed(0)
    n = 4 * CHOOSING
    labels = torch.arange(n) % 10  # as of a data set that is sorted, or dealt in turn
    logits = 2 * torch.randn(n, 10) + 4 * torch.nn.functional.one_hot(labels, 10)
    best = float(torch.nn.functional.cross_entropy(logits / temperature(logits, labels), labels))
    found = validation(logits, labels, "val_loss")
    assert best < found["val_loss"] < best * 1.001
    assert validation(logits, labels, "val_loss") == found
    assert found["val_accuracy"] == float((logits.argmax(1) == labels).float().mean()), "of all images"


def test_figures_are_sklearns() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(200, 4), torch.randint(0, 3, (200,))  # the last class has no image
    logits[:, 2] -= 9  # and one is never predicted
    classes = ["a", "b", "c", "d"]
    found = scores(logits, labels, classes)
    predicted, true = logits.argmax(1).numpy(), labels.numpy()
    assert found.accuracy == pytest.approx(metrics.accuracy_score(true, predicted))
    assert found.loss == pytest.approx(
        metrics.log_loss(true, logits.double().softmax(1).numpy(), labels=range(4)), rel=1e-5
    )
    assert np.array_equal(found.confusion.matrix(), metrics.confusion_matrix(true, predicted, labels=range(4)))
    columns = metrics.precision_recall_fscore_support(true, predicted, labels=range(4), zero_division=0)
    for name, *expected in zip(classes, *columns, strict=True):
        assert list(found.per_class[name].values()) == pytest.approx(expected)
    assert found.predictions == predicted.tolist()
    assert found.probabilities == pytest.approx(logits.softmax(1).max(1).values.tolist())
    assert found.interval == wilson(round(found.accuracy * 200), 200)


def test_class_averages_are_over_the_classes_that_scikit_learn_takes() -> None:
    # Recall: a 2 of 4, b 3 of 3, c 0 of 1; d has no image, though one image of a is taken for it.
    labels = [0, 0, 0, 0, 1, 1, 1, 2]
    predicted = [0, 0, 1, 3, 1, 1, 1, 0]
    logits = torch.nn.functional.one_hot(torch.tensor(predicted), 4).float()
    found = scores(logits, torch.tensor(labels), list("abcd"))
    assert found.metric("balanced_accuracy").value == pytest.approx((2 / 4 + 3 / 3 + 0 / 1) / 3)
    # F1 = 2 x correct / (images + predictions): a 4 of 4 + 3, b 6 of 3 + 4, c 0 of 1 + 0, d 0 of 0 + 1.
    assert found.metric("macro_f1").value == pytest.approx((4 / 7 + 6 / 7 + 0 + 0) / 4)
    assert found.metric("balanced_accuracy").value == pytest.approx(
        metrics.recall_score(labels, predicted, labels=[0, 1, 2], average="macro")
    )
    assert found.metric("macro_f1").value == pytest.approx(metrics.f1_score(labels, predicted, average="macro"))
    figures = {rule: validation(logits, torch.tensor(labels), rule)[rule] for rule in RULES}
    for name in ("balanced_accuracy", "macro_f1"):  # one definition for both
        assert figures[f"val_{name}"] == found.metric(name).value
    for name in ("balanced_accuracy", "macro_f1"):
        low, high = found.metric(name).low, found.metric(name).high
        assert low is not None
        assert high is not None
        assert 0 <= low < found.metric(name).value < high <= 1
        assert found.metric(name).higher_is_better


def test_log_loss_and_brier_score_are_sklearns_after_the_temperature_and_the_loss_is_before_it() -> None:
    torch.manual_seed(0)
    logits, labels = 3 * torch.randn(200, 4), torch.randint(0, 4, (200,))
    found = scores(logits, labels, list("abcd"), temperature=1.7)
    probabilities = (logits.double() / 1.7).softmax(1).numpy()
    assert found.loss == pytest.approx(float(torch.nn.functional.cross_entropy(logits, labels)))
    assert found.metric("log_loss").value == pytest.approx(metrics.log_loss(labels, probabilities), rel=1e-5)
    brier = metrics.brier_score_loss(labels, probabilities, labels=range(4), scale_by_half=False)
    assert found.metric("brier").value == pytest.approx(brier, rel=1e-5)
    assert found.calibration["before"]["log_loss"] == pytest.approx(found.loss, rel=1e-5)
    assert found.calibration["after"]["log_loss"] == found.metric("log_loss").value
    assert found.calibration["after"]["ece"] == found.metric("ece").value
    assert sum(one["images"] for one in found.calibration["after"]["bins"]) == 200
    assert found.predictions == scores(logits, labels, list("abcd")).predictions
    assert found.probabilities == pytest.approx(probabilities.max(1).tolist(), rel=1e-5)
    for name in ("log_loss", "brier"):
        one = found.metric(name)
        assert one.low is not None
        assert one.high is not None
        assert one.low < one.value < one.high
        assert not one.higher_is_better


def test_few_figures_are_accuracy_and_loss() -> None:
    found = scores(torch.eye(3), torch.arange(3), list("abc"), few=True)
    assert [one.name for one in found.metrics] == ["accuracy", "loss"]
    assert found.interval == wilson(3, 3)


def test_where_all_images_are_of_one_class_there_is_no_macro_f1() -> None:
    found = scores(torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0]]), torch.tensor([0, 0, 0]), ["a", "b"])
    assert {one.__name__ for one in METRICS} - {metric.name for metric in found.metrics} == {
        "macro_f1",
        "top5_accuracy",
        "unknown_false_alarms",
    }
    assert found.metric("balanced_accuracy").value == pytest.approx(2 / 3)


@pytest.mark.parametrize("classes", [9, 10, 30])
def test_top_five_is_a_share_of_images_from_ten_classes_on(classes: int) -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(200, classes), torch.randint(0, classes, (200,))
    found = {metric.name: metric for metric in scores(logits, labels, [*map(str, range(classes))]).metrics}
    assert ("top5_accuracy" in found) == (classes >= 10)
    if classes >= 10:
        better = (logits > logits.gather(1, labels[:, None])).sum(1)  # classes before the label
        correct = int((better < 5).sum())
        top = found["top5_accuracy"]
        assert top.value == correct / 200
        assert top.value == pytest.approx(metrics.top_k_accuracy_score(labels, logits, k=5, labels=range(classes)))
        assert (top.low, top.high) == wilson(correct, 200)


def test_the_table_has_a_row_for_each_image_whatever_it_is_called() -> None:
    found = scores(torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0]]), torch.tensor([0, 1, 1]), ["a,b", "ç"])
    files = ['x "1".png', os.fsdecode(b"\xff.png"), "new\nline.png"]
    text = found.table(files, [0, 1, 1], ["a,b", "ç"])
    assert text.encode("utf-8")
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert [row["file"] for row in rows] == [files[0], "\\udcff.png", files[2]]
    assert [(row["sample"], row["label"], row["prediction"], row["correct"]) for row in rows] == [
        ("0", "a,b", "a,b", "1"), ("1", "ç", "ç", "1"), ("2", "ç", "a,b", "0")
    ]  # fmt: skip
    assert [row["probability"] for row in rows] == [f"{p:.6f}" for p in found.probabilities]
    with pytest.raises(ValueError, match="zip"):
        found.table(files[:2], [0, 1, 1], ["a,b", "ç"])
