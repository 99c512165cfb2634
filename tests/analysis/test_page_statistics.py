"""Weak segments and the map of features: what is planted is found, and what is not there is not."""

from math import comb

import numpy as np
import pytest

from tlx.analysis.feature_clusters import clusters
from tlx.analysis.feature_map import feature_map, principal
from tlx.analysis.weak_segments import CLUSTER, weak_segments
from tlx.core.statistics import at_most


@pytest.mark.parametrize(
    ("found", "drawn", "marked", "of"), [(0, 3, 4, 9), (2, 3, 4, 9), (5, 10, 12, 15), (3, 3, 4, 9)]
)
def test_the_test_is_fishers(found: int, drawn: int, marked: int, of: int) -> None:
    ways = sum(comb(marked, k) * comb(of - marked, drawn - k) for k in range(found + 1) if drawn - k <= of - marked)
    assert at_most(found, drawn, marked, of) == pytest.approx(ways / comb(of, drawn))


def test_a_dark_quarter_of_which_few_are_correct_is_found() -> None:
    rng = np.random.default_rng(0)
    facts = {"brightness": rng.uniform(0, 255, 400), "size": rng.uniform(0, 1, 400), "same": np.ones(400)}
    correct = rng.random(400) < np.where(facts["brightness"] < 60, 0.5, 0.95)
    found = weak_segments(facts, correct)
    assert [segment.fact for segment in found.weak] == ["brightness"]
    segment = found.weak[0]
    assert segment.low == facts["brightness"].min()
    assert segment.high < 75
    assert segment.corrected >= segment.p
    assert found.tested == 8
    assert segment.images + segment.rest == 400
    assert segment.correct + segment.rest_correct == correct.sum()


def test_by_chance_a_segment_is_weak_in_at_most_one_data_set_of_twenty() -> None:
    rng = np.random.default_rng(1)
    weak = [weak_segments({f"{i}": rng.random(120) for i in range(4)}, rng.random(120) < 0.9).weak for _ in range(200)]
    assert sum(map(bool, weak)) <= 18  # 10 are expected at most; above 18 in one of 200 such tests


def test_values_that_are_no_numbers_and_few_images_are_in_no_segment() -> None:
    values = np.full(100, np.nan)
    assert weak_segments({"sharpness": values}, np.ones(100, bool)).tested == 0
    assert weak_segments({"brightness": np.arange(12.0)}, np.ones(12, bool)).tested == 0


def test_a_cluster_of_which_few_are_correct_is_found_with_its_images() -> None:
    rng = np.random.default_rng(3)
    kinds = np.arange(300) % 5
    features = 6 * np.eye(40)[kinds] + rng.standard_normal((300, 40)) * 0.5
    correct = rng.random(300) < np.where(kinds == 2, 0.3, 0.95)
    grouped = clusters(features)
    found = weak_segments({"size": rng.random(300)}, correct, grouped.of)
    assert {segment.fact for segment in found.weak} == {CLUSTER}
    images = np.concatenate([np.flatnonzero(grouped.of == segment.low) for segment in found.weak])
    assert set(kinds[images]) == {2}
    assert len(images) > 30
    for number, typical in enumerate(grouped.typical):
        assert set(grouped.of[typical]) == {number}
    assert np.array_equal(clusters(features).of, grouped.of)
    by_chance = [bool(weak_segments({}, rng.random(300) < 0.9, grouped.of).weak) for _ in range(100)]
    assert sum(by_chance) <= 12


@pytest.mark.parametrize("n", [1, 39, 100])
def test_few_or_equal_images_have_a_cluster_each(n: int) -> None:
    for features in (np.ones((n, 4)), np.random.default_rng(0).random((n, 4))):
        found = clusters(features)
        assert found.of.shape == (n,)
        assert found.of.min() >= 0
        assert weak_segments({}, np.zeros(n, bool), found.of).weak == []


def test_the_map_has_the_two_directions_of_most_variance() -> None:
    rng = np.random.default_rng(2)
    basis = np.linalg.qr(rng.standard_normal((50, 50)))[0]
    features = (rng.standard_normal((300, 50)) * np.array([9.0, 5.0, *([0.5] * 48)])) @ basis
    found = principal(features)
    values = np.linalg.svd(features - features.mean(0), compute_uv=False) ** 2
    np.testing.assert_allclose(found.explained, values[:2] / values.sum(), rtol=1e-6)
    assert found.places.min() == 0
    assert found.places.max() == 1
    along = (features @ basis.T)[:, 0]
    assert abs(np.corrcoef(along, found.places[:, 0])[0, 1]) > 0.999
    assert np.array_equal(principal(features).places, found.places)


def test_the_map_is_umaps_where_it_is_installed() -> None:
    pytest.importorskip("umap.umap_", reason="UMAP is not installed", exc_type=ImportError)
    rng = np.random.default_rng(2)
    features = rng.standard_normal((60, 20)) + 9 * np.repeat(np.eye(2, 20), 30, axis=0)
    found = feature_map(features)
    assert found.explained is None
    assert found.places.shape == (60, 2)
    assert found.places.min() == 0
    assert found.places.max() == 1
    middles = found.places[:30].mean(0), found.places[30:].mean(0)
    spread = max(found.places[:30].std(), found.places[30:].std())
    assert np.linalg.norm(middles[0] - middles[1]) > 3 * spread
    assert np.array_equal(feature_map(features).places, found.places)


@pytest.mark.parametrize("shape", [(1, 5), (3, 1), (4, 5)])
def test_few_or_equal_images_have_a_place(shape: tuple[int, int]) -> None:
    for features in (np.ones(shape), np.arange(shape[0] * shape[1], dtype=float).reshape(shape)):
        places = feature_map(features).places
        assert places.shape == (shape[0], 2)
        assert np.isfinite(places).all()
