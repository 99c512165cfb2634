import numpy as np
import pytest

from tlx.analysis.shortcuts import cells, predictors


def clean(n: int, classes: int, seed: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Facts that say nothing of the label: numbers, few sizes, formats, colours, rare cameras."""
    random = np.random.default_rng(seed)
    facts = {
        "brightness": random.normal(size=n),
        "size": random.choice([100, 200, 300], n, p=[0.9, 0.05, 0.05]),
        "format": random.choice([b"JPEG", b"PNG"], n),
        "colour": random.random((n, 3)),
        "camera": random.choice(np.array([f"model {i}" for i in range(n // 2)]), n),
        "constant": np.zeros(n),
    }
    return facts, random.integers(0, classes, n)


@pytest.mark.parametrize("seed", range(50))
def test_facts_that_say_nothing_are_not_found(seed: int) -> None:
    facts, labels = clean((30, 80, 300)[seed % 3], (2, 3, 8)[seed % 4 % 3], seed)
    found = list(predictors(facts, labels))
    assert [one.fact for one in found] == ["brightness", "size", "format", "colour", "camera"]
    assert not [one for one in found if one.of_all or one.of_class]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("fact", ["brightness", "size", "format", "colour", "camera"])
def test_a_fact_that_gives_the_label_away_is_found_and_no_other(fact: str, seed: int) -> None:
    facts, labels = clean(200, 2, seed)
    random = np.random.default_rng([seed, 1])
    follows = np.where(random.random(200) < 0.9, labels, 1 - labels)
    planted = {
        "brightness": follows * 3 + random.normal(size=200),
        "size": 100 + 100 * follows,
        "format": np.where(follows, b"PNG", b"JPEG"),
        "colour": np.stack([random.random(200), follows + random.random(200) / 2, random.random(200)], axis=1),
        "camera": np.where(follows, "a phone", ""),
    }
    found = [one for one in predictors(facts | {fact: planted[fact]}, labels) if one.of_all]
    assert [one.fact for one in found] == [fact]
    assert found[0].accuracy == pytest.approx(0.9, abs=0.1)
    assert found[0].chance == 0.5


def test_a_class_of_many_that_a_fact_gives_away_is_named() -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 20, 1000)
    form = np.where(labels == 7, b"PNG", b"JPEG")
    [one] = predictors({"format": form}, labels)
    assert one.of_class
    assert not one.of_all
    assert one.label == 7


def test_copies_in_a_group_do_not_make_a_shortcut() -> None:
    random = np.random.default_rng(0)
    groups = np.repeat(np.arange(25), 8)
    labels, brightness = random.integers(0, 2, 25)[groups], random.random(25)[groups]
    [apart] = predictors({"brightness": brightness}, labels, groups)
    assert not apart.of_all


def test_no_label_one_label_and_equal_facts_say_nothing() -> None:
    assert not list(predictors({"a": np.arange(9)}, np.zeros(9, np.int64)))
    assert not list(predictors({"a": np.zeros(9)}, np.arange(9) % 2))
    assert not list(predictors({"a": np.zeros(0)}, np.zeros(0, np.int64)))


@pytest.mark.parametrize("n", [2, 10, 1000])
def test_cells_are_numbered_and_few(n: int) -> None:
    random = np.random.default_rng(0)
    values = (
        random.random(n),
        np.append(random.random(n - 1), np.nan),
        random.random((n, 3)),
        np.arange(n).astype("S"),
    )
    for fact in (*values, random.integers(0, 3, n)):
        codes = cells(fact)
        assert codes.shape == (n,)
        assert set(codes.tolist()) == set(range(int(codes.max()) + 1))
        assert codes.max() < 64
