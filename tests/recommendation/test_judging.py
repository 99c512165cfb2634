"""How candidates are judged: what is known of the estimator, and what a claim of a difference is worth."""

import numpy as np
import pytest

from tlx.core.statistics import wilson
from tlx.recommendation.judging import distinguishable, fine_tuned, probed

IMAGES, VAL = 244, 49


def drawn(share: float, seed: int, n: int = IMAGES) -> np.ndarray:
    return (np.random.default_rng(seed).random(n) < share).astype(float)


def test_what_changes_nothing_is_judged_as_its_probe() -> None:
    correct = drawn(0.9, 0)
    probe = probed(correct, correct, VAL)
    same = fine_tuned(probe, correct[-VAL:], correct[-VAL:])
    assert (same.score, same.accuracy) == (probe.score, probe.accuracy)
    assert same.low <= probe.low < probe.accuracy < probe.high <= same.high
    assert (probe.low, probe.high) == wilson(correct.sum(), IMAGES)
    assert distinguishable([(probe, same)]) == [False]


def test_a_gain_counts_as_far_as_it_is_above_its_standard_error() -> None:
    loss = np.random.default_rng(1).gamma(1.0, 0.3, IMAGES)
    correct = (loss < 0.69).astype(float)
    probe = probed(correct, -loss, VAL)
    noise = np.random.default_rng(2).normal(0, 0.2, VAL)
    noise -= noise.mean()
    error = noise.std(ddof=1) / np.sqrt(VAL)
    for gain in (0.0, 0.5 * error, -0.9 * error):
        assert fine_tuned(probe, correct[-VAL:], -loss[-VAL:] + noise + gain).score == pytest.approx(probe.score)
    for gain in (3 * error, -3 * error):
        counted = fine_tuned(probe, correct[-VAL:], -loss[-VAL:] + noise + gain).score - probe.score
        assert counted == pytest.approx(gain * (1 - 1 / 9))


def test_the_estimate_of_a_fine_tuned_one_is_nearer_than_its_own_accuracy() -> None:
    """It is right and wrong on much the same images as the probe, so the probe of all images tells of it."""
    own, estimated = [], []
    for seed in range(300):
        random = np.random.default_rng(seed)
        hard = random.random(IMAGES)
        probe = (hard < 0.90).astype(float)
        tuned = np.where(random.random(IMAGES) < 0.05, random.random(IMAGES) < 0.92, hard < 0.92).astype(float)
        found = fine_tuned(probed(probe, probe, VAL), tuned[-VAL:], tuned[-VAL:])
        own.append(tuned[-VAL:].mean() - 0.92)
        estimated.append(found.accuracy - 0.92)
        assert found.low <= found.accuracy <= found.high
    assert np.std(estimated) < 0.8 * np.std(own)
    assert abs(np.mean(estimated)) < 0.01


def test_equal_candidates_are_claimed_to_differ_in_few_cases() -> None:
    claims = 0
    for seed in range(200):
        judged = [probed(drawn(0.9, 10 * seed + i), drawn(0.9, 10 * seed + i), VAL) for i in range(5)]
        claims += any(distinguishable([(judged[0], other) for other in judged[1:]]))
    assert claims <= 0.06 * 200
    far = probed(drawn(0.6, 1), drawn(0.6, 1), VAL)
    assert distinguishable([(probed(drawn(0.9, 0), drawn(0.9, 0), VAL), far)]) == [True]
