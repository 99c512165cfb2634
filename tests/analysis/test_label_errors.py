import numpy as np
import pytest

from bench.labels import confidently_wrong
from tests.analysis.test_out_of_fold import clusters
from tlx.analysis.label_errors import contradicted, label_errors, mixture, softmax, wrong
from tlx.analysis.out_of_fold import out_of_fold


def drawn(n: int, classes: int, spread: float, noise: float, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits of a calibrated classifier, labels drawn from them, and which of these were then changed."""
    random = np.random.default_rng(seed)
    logits = random.normal(size=(n, classes)) * spread
    labels = (softmax(logits).cumsum(1) > random.random((n, 1))).argmax(1)
    changed = random.random(n) < noise
    return logits, np.where(changed, (labels + random.integers(1, classes, n)) % classes, labels), changed


def test_of_fifty_classifiers_that_know_their_doubt_at_most_two_lead_to_a_finding() -> None:
    """Their confidence may be off by a factor: a temperature is fitted."""
    false = 0
    for seed in range(50):
        logits, labels, _ = drawn(500, (2, 4, 10)[seed % 3], (1.0, 4.0, 12.0)[seed % 4 % 3], 0.0, seed)
        false += len(label_errors(logits * (0.6, 1.0, 1.8)[seed % 3], labels)) > 0
    assert false <= 2


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("noise", [0.02, 0.05, 0.1])
def test_the_share_of_wrong_labels_is_estimated_and_certainty_is_the_share_that_is_wrong(
    noise: float, seed: int
) -> None:
    logits, labels, changed = drawn(4000, 5, 8.0, noise, seed)
    found = label_errors(logits, labels, 0.0)
    assert found.noise == pytest.approx(noise, abs=0.012)
    top = found.certainty > 0.5
    assert changed[found.rows[top]].mean() == pytest.approx(found.certainty[top].mean(), abs=0.1)
    assert changed[found.rows[top]].sum() > 0.4 * changed.sum()
    assert (np.diff(found.certainty) <= 0).all()
    assert len(set(found.rows.tolist())) == 4000
    assert (found.suggested != labels[found.rows]).all()


@pytest.mark.parametrize("noise", [0.02, 0.05, 0.1])
def test_planted_errors_are_found_by_a_probe(noise: float) -> None:
    features, right = clusters(600, 4, apart=5.0)
    random = np.random.default_rng(0)
    planted = random.choice(600, round(600 * noise), replace=False)
    labels = right.copy()
    labels[planted] = (labels[planted] + random.integers(1, 4, len(planted))) % 4
    found = label_errors(out_of_fold(features, labels, 4).logits, labels)
    hits = np.isin(found.rows, planted)
    assert hits.mean() > 0.9
    assert hits.sum() > 0.8 * len(planted)
    assert (found.suggested[hits] == right[found.rows[hits]]).mean() > 0.9
    assert not len(label_errors(out_of_fold(features, right, 4).logits, right))


@pytest.mark.parametrize("classes", [2, 6])
@pytest.mark.parametrize("apart", [6.0, 40.0])
@pytest.mark.parametrize("noise", [0.02, 0.1])
def test_planted_errors_are_found_where_features_separate_the_classes_fully(
    noise: float, apart: float, classes: int
) -> None:
    for seed in range(2):
        features, right = clusters(400, classes, apart=apart, seed=seed)
        random = np.random.default_rng(seed)
        planted = random.choice(400, round(400 * noise), replace=False)
        labels = right.copy()
        labels[planted] = (labels[planted] + random.integers(1, classes, len(planted))) % classes
        hits = np.isin(label_errors(out_of_fold(features, labels, classes).logits, labels).rows, planted)
        assert hits.sum() >= 0.5 * len(planted)
        assert hits.mean() >= 0.9


@pytest.mark.parametrize("apart", [1.0, 2.0, 40.0])
def test_where_all_labels_are_right_none_is_contradicted_as_strongly_as_the_others_are_confirmed(apart: float) -> None:
    for seed in range(4):
        classes = (2, 5)[seed % 2]
        features, labels = clusters(300, classes, apart=apart, seed=seed)
        assert contradicted(out_of_fold(features, labels, classes).logits, labels) == 0.0


def test_a_class_that_features_do_not_know_is_not_called_mislabelled() -> None:
    """Most images have one class, and features say nothing: a probe always answers that class."""
    for seed in range(4):
        random = np.random.default_rng(seed)
        features, labels = random.normal(size=(90, 40)).astype(np.float32), (np.arange(90) < 10).astype(np.int64)
        assert not len(label_errors(out_of_fold(features, labels, 2).logits, labels))


def test_an_image_between_two_classes_is_doubted_by_confident_learning_only() -> None:
    logits, labels, _ = drawn(2000, 3, 1.0, 0.0, 0)
    assert confidently_wrong(softmax(logits), labels).sum() > 100
    assert not len(label_errors(logits, labels))


def test_without_noise_nothing_is_wrong_and_with_it_the_least_probable_label_is_most() -> None:
    probabilities = np.array([[0.98, 0.01, 0.01], [0.5, 0.5, 0.0], [0.0, 0.0, 1.0]])
    labels = np.array([1, 0, 0])
    assert not wrong(probabilities, labels, 0.0).any()
    certainty = wrong(probabilities, labels, 0.05)
    assert certainty[2] == pytest.approx(1)
    assert certainty[2] > certainty[0] > 0.5 > certainty[1]


def test_logits_far_apart_overflow_nowhere() -> None:
    logits = np.array([[1e4, -1e4], [-1e4, 1e4]] * 50, dtype=np.float32)
    assert mixture(logits, np.array([0, 1] * 50)).noise == 0
    labels = np.array([0, 1] * 50)
    labels[7] = 0
    assert label_errors(logits, labels).rows.tolist() == [7]
