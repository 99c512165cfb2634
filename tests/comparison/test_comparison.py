"""Runs side by side: sound tests of their differences, and a table, a picture and a page that say them plainly."""

import csv
import html
import io
import itertools
import json
import math
import re
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image

from bench import claims
from tlx.cli import compare
from tlx.cli.main import main
from tlx.comparison import comparison, crossed_effects, outputs, paired_tests, text_table
from tlx.comparison.flips import flips, lead
from tlx.comparison.origin import Origin
from tlx.comparison.page_flips import SHOWN
from tlx.comparison.text_table import points
from tlx.core import statistics
from tlx.core.errors import RequestError
from tlx.core.statistics import wilson
from tlx.runs.run_reader import read
from tlx.sweeps import run_folders, sweep_manifest, sweep_summary
from tlx.sweeps.named_runs import runs_named

Make = Callable[..., Path]


@pytest.fixture
def made(tmp_path: Path) -> Make:
    """Writes a run's folder as a run leaves it."""

    def make(
        name: str,
        correct: Sequence[int],
        *,
        seed: int = 0,
        overrides: Sequence[str] = (),
        values: dict[str, Any] | None = None,
        files: Sequence[str] = (),
        test: str = "the images",
        val_loss: float | None = None,
        learns: int = 500,
        **summary: Any,
    ) -> Path:
        folder = tmp_path / name
        (folder / "model").mkdir(parents=True)
        n, share = len(correct), sum(correct) / len(correct)
        tree = {"seed": seed, "output": str(tmp_path), "training": {"lr": 1e-3}, "dataset": {"fold": None}}
        tree |= values or {}
        requested = dict(word.split("=", 1) for word in (f"seed={seed}", "tracking=none", *overrides))
        found = {
            "status": "finished", "error": "", "requested": requested, "test_accuracy": share,
            "test_accuracy_interval": [max(0.0, share - 0.1), min(1.0, share + 0.1)], "val_accuracy": 0.75,
            "best_epoch": 1,
            "seconds": {"data": 1.0, "features": 2.0, "training": 3.0 + seed, "evaluation": 4.0, "total": 99.0},
            "images": {"train": 100, "val": 20, "test": n},
        }  # fmt: skip
        first = [{"stage": "body", "learns": 0}, {"stage": "head", "learns": 30}]
        deeper = [{"stage": "body", "learns": learns}, {"stage": "head", "learns": 30}]
        (folder / "config.yaml").write_text(json.dumps(tree))  # JSON is YAML
        (folder / "summary.json").write_text(json.dumps(found | summary))
        (folder / "plan.json").write_text(json.dumps([{"stages": first}, {"stages": deeper}]))
        loss = 1 - share if val_loss is None else val_loss  # validation and test agree where nothing else is said
        row = {"phase": "probe", "val_loss": loss, "val_accuracy": 0.7, "train_loss": 1.0}
        (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(row | {'epoch': e})}\n" for e in (1, 2)))
        (folder / "model" / "model.json").write_text(json.dumps({"data": {"test": test}}))
        with (folder / "predictions.csv").open("w", newline="") as stream:
            table = csv.writer(stream)
            table.writerow(["sample", "file", "label", "prediction", "probability", "correct"])
            for i, right in enumerate(correct):
                file = files[i] if files else f"test/{i}"
                table.writerow([i, file, "cat", "cat" if right else "dog", "0.900000", right])
        return folder

    return make


@pytest.fixture
def run_compare(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[str, str]]:
    """Runs the subcommand: its stdout and stderr."""

    def run(*words: object) -> tuple[str, str]:
        capsys.readouterr()
        assert compare.SUBCOMMAND.main([str(word) for word in words]) == 0
        return capsys.readouterr()

    return run


def drawn(rng: np.random.Generator, n: int, share: float) -> list[int]:
    return [int(x < share) for x in rng.random(n)]


# ---------------------------------------------------------------- statistics


@pytest.mark.parametrize(("df", "t"), [(1, 12.7062), (2, 4.30265), (4, 2.77645), (30, 2.04227), (1e6, 1.95997)])
def test_students_t_is_that_of_the_tables(df: float, t: float) -> None:
    assert statistics.quantile(df) == pytest.approx(t, rel=1e-5)
    assert statistics.two_sided(t, df) == pytest.approx(0.05, abs=1e-6)
    assert statistics.two_sided(0, df) == 1
    assert statistics.two_sided(math.inf, df) == 0


def test_mcnemar_is_a_binomial_test_of_the_images_that_differ() -> None:
    for won, lost in itertools.product(range(6), range(6)):
        n = won + lost
        thrown = [sum(throw) for throw in itertools.product((0, 1), repeat=n)]
        p = sum(abs(heads - n / 2) >= abs(won - n / 2) for heads in thrown) / len(thrown)
        found = paired_tests.one(np.array([1.0] * won + [-1.0] * lost + [0.0] * 20))
        assert found.p == pytest.approx(p)
        assert found.mean == pytest.approx((won - lost) / (n + 20))
        assert found.low < found.mean < found.high


def test_holms_values_keep_their_order_and_are_never_smaller() -> None:
    assert statistics.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert statistics.holm([]) == []
    rng = np.random.default_rng(0)
    for _ in range(50):
        p = rng.random(6).tolist()
        raised = statistics.holm(p)
        assert all(a <= b <= min(1.0, 6 * a) for a, b in zip(p, raised, strict=True))
        assert np.all(np.diff(np.array(raised)[np.argsort(p)]) >= 0)
        turn = rng.permutation(6)
        assert statistics.holm([p[i] for i in turn]) == pytest.approx([raised[i] for i in turn])


def test_the_two_sides_and_the_order_of_runs_and_images_make_no_difference() -> None:
    rng = np.random.default_rng(1)
    d = rng.choice([-1.0, 0, 1], p=[0.05, 0.8, 0.15], size=(4, 60))
    found, turned = paired_tests.crossed(d), paired_tests.crossed(-d)
    assert (turned.mean, turned.low, turned.high) == pytest.approx((-found.mean, -found.high, -found.low))
    assert turned.p == pytest.approx(found.p)
    shuffled = paired_tests.crossed(d[rng.permutation(4)][:, rng.permutation(60)])
    assert (shuffled.p, shuffled.low) == pytest.approx((found.p, found.low))
    assert (found.p < 0.05) == (found.low > 0 or found.high < 0)


def scores(share: float, wide: float) -> list[float]:
    """The shares that are as far from `share` as Wilson allows: (share - x)² = wide · x (1 - x)."""
    return sorted(np.roots([1 + wide, -2 * share - wide, share**2]).real.tolist())


def width(images: float, variance: float, by_image: float, by_run: float, chance: float, runs: int) -> float:
    """Half width² ÷ the variance of a prediction, from the variances of the mean, with an image by chance in it."""
    subtracted = (1 - 0.9 / math.sqrt(runs - 1)) * chance + 0.1 * max(by_image - chance, 0)
    half = 1.959964**2 * (by_image + 0.25 / images**2) + statistics.quantile(runs - 1) ** 2 * max(
        by_run - subtracted, 0
    )
    return half / (variance + 0.25 / images)


def by_table(rows: Sequence[Sequence[float]]) -> float:
    """`width` of runs on the same images, by sums of squares."""
    runs, images = len(rows), len(rows[0])
    mean = sum(map(sum, rows)) / runs / images
    of_run = [sum(row) / images - mean for row in rows]
    of_image = [sum(column) / runs - mean for column in zip(*rows, strict=True)]
    rest = sum(
        (rows[r][i] - mean - of_run[r] - of_image[i]) ** 2 for r, i in itertools.product(range(runs), range(images))
    )
    variance = sum((value - mean) ** 2 for row in rows for value in row) / runs / images
    by_run, by_image = sum(x * x for x in of_run) / (runs - 1) / runs, sum(x * x for x in of_image) / images**2
    return width(images, variance, by_image, by_run, rest / (runs - 1) / runs / images**2, runs)


def test_runs_with_images_of_their_own_are_as_uncertain_as_nadeau_and_bengio_say() -> None:
    runs = [np.array([1.0] * k + [0.0] * (1000 - k)) for k in (10, 60, 110)]
    found = paired_tests.apart(runs, ratio=0.25)
    alone = 0.06 * 0.94 / 3000
    wide = width(3000, 0.06 * 0.94, alone, 0.05**2 * (1 / 3 + 0.25), alone, 3)
    (low, high), (_, other) = scores(0.06, wide), scores(0.0, wide)
    assert (found.mean, found.high) == pytest.approx((0.06, high))
    assert found.low == pytest.approx(0.06 - math.hypot(0.06 - low, other))
    assert found.p > 0.05
    alike = paired_tests.apart([np.array([1.0, 0, 0, 0])] * 3, ratio=0.25)
    assert alike.p > 0.05, "three runs that say the same of a handful of images are no proof"


def test_the_interval_of_several_runs_is_that_of_their_variance_components() -> None:
    rng = np.random.default_rng(8)
    for runs, images in ((2, 20), (3, 50), (10, 30)):
        correct = (rng.random((runs, images)) < rng.random(images) * rng.random((runs, 1)) ** 0.2).astype(float)
        found = crossed_effects.share_interval(crossed_effects.of_the_same_images(correct))
        assert found == pytest.approx(tuple(scores(correct.mean(), by_table(correct.tolist()))))


def by_bootstrap(d: np.ndarray, rng: np.random.Generator, times: int = 200) -> float:
    """What the percentiles of a bootstrap over seeds and images would say."""
    runs, images = d.shape
    seeds = rng.multinomial(runs, [1 / runs] * runs, times) / runs
    drawn = ((seeds @ d) * rng.multinomial(images, [1 / images] * images, times)).sum(1) / images
    return float(2 * min((drawn <= 0).mean(), (drawn >= 0).mean()))


def test_two_runs_with_the_same_difference_are_as_uncertain_as_their_images() -> None:
    d = np.zeros((2, 153))
    d[:, :6] = [[0, 1, 0, 1, -1, 0], [1, 0, -1, -1, 1, 1]]
    found = paired_tests.crossed(d)
    assert found.mean == pytest.approx(1 / 153)
    assert found.low < 0 < found.high < 0.05
    assert 0.2 < found.p < 1


def test_no_table_of_differences_is_taken_for_certainty() -> None:
    every = itertools.product((-1.0, 0.0, 1.0), repeat=2)
    for columns in itertools.combinations_with_replacement(every, 3):  # their order makes no difference
        for images in (3, 30):
            d = np.zeros((2, images))
            d[:, :3] = np.transpose(columns)
            found = paired_tests.crossed(d)
            alone = math.sqrt(float(np.var(d.mean(0))) / images)
            assert 0 <= found.p <= 1
            assert (found.p < 0.05) == (found.low > 0 or found.high < 0)
            assert -1 <= found.low <= found.mean <= found.high <= 1
            assert found.high - found.low >= 2.5 * alone
            assert found.high > found.low


@pytest.mark.parametrize("kind", claims.KINDS)
@pytest.mark.parametrize("runs", [2, 5])
def test_a_difference_that_is_none_is_claimed_as_seldom_as_promised(kind: str, runs: int) -> None:
    """`python -m bench.claims` has the whole table; this would see 5 % become 15."""
    rng = np.random.default_rng(7)
    for name in claims.MEASURES:
        if name.startswith("difference, several"):
            shares = claims.covered(rng, name, kind, runs, 60, 150)
            assert min(shares) >= 0.87
            assert np.mean(shares) >= 0.93


def test_the_accuracy_of_several_runs_is_that_of_other_seeds_and_images() -> None:
    rng = np.random.default_rng(10)
    for name in claims.MEASURES:
        if name.startswith("accuracy, several"):
            for kind in ("images", "both", "seeds"):
                assert np.mean(claims.covered(rng, name, kind, 5, 150, 150)) >= 0.92


@pytest.mark.parametrize("kind", ["difference", "accuracy"])
def test_one_run_speaks_of_its_model(kind: str) -> None:
    rng = np.random.default_rng(9)
    (name,) = [name for name in claims.MEASURES if name.startswith(f"{kind}, one run")]
    assert min(claims.covered(rng, name, "runs", 1, 60, 300)) >= 0.9


def test_a_bootstrap_or_one_run_each_would_claim_more() -> None:
    rng = np.random.default_rng(2)
    noise = claims.Noise(own=0.4, luck=0.3, rest=0.7)
    draws = claims.drawn(rng, 250, 3, 300, noise).lead(1.5, 0.0)
    claimed = np.mean([paired_tests.crossed(d).p < 0.05 for d in draws])
    assert claimed <= 0.08
    assert np.mean([by_bootstrap(d, rng) < 0.05 for d in draws]) > claimed + 0.05
    assert np.mean([paired_tests.one(d[0]).p < 0.05 for d in draws]) > 0.3, (
        "one run each says nothing about configurations"
    )


def test_a_clear_lead_is_found() -> None:
    rng = np.random.default_rng(3)
    noise = claims.Noise(own=0.4, luck=0.3, rest=0.7)
    found = [paired_tests.crossed(d) for d in claims.drawn(rng, 50, 5, 300, noise).lead(1.5, -1.16)]
    assert np.mean([each.p < 0.05 and each.high < 0 for each in found]) > 0.9


def test_an_image_that_two_runs_were_tested_on_counts_once() -> None:
    first, second = np.array([1.0, 1, 0, 0, 0, 0, 0, 0]), np.array([0.0, 1, 1, 0, 0, 0, 0, 0])
    other = [f"b{i}" for i in range(8)]
    apart = paired_tests.apart([first, second], 0.25, [[f"a{i}" for i in range(8)], other])
    same = paired_tests.apart([first, second], 0.25, [other, other])
    assert apart.mean == same.mean
    assert same.high - same.low > apart.high - apart.low
    assert paired_tests.apart([first, second], 0.25).low == apart.low


# ---------------------------------------------------------------- what belongs together


def test_runs_that_differ_in_their_seed_are_one_configuration(made: Make) -> None:
    folders = [
        made(f"{lr}-{seed}", [1] * (15 + seed) + [0] * (5 - seed), seed=seed,
             overrides=["dataset=x", f"training.lr={lr}"],
             values={"training": {"lr": lr}, "runtime": {"threads": str(seed)}})
        for lr in (0.1, 0.2)
        for seed in (2, 0, 1)
    ]  # fmt: skip
    found = comparison.compared(folders)
    assert [one.label for one in found.configurations] == ["training.lr=0.1", "training.lr=0.2"]
    for one in found.configurations:
        assert [run.values.get("seed") for run in one.runs] == [None] * 3
        assert [run.draw for run in one.runs] == [(0, None), (1, None), (2, None)]
        assert (one.n, one.mean, one.sd, one.seconds, one.trained) == (3, *map(pytest.approx, (0.8, 0.05)), 11.0, 530)
        rows = [[1.0] * (15 + seed) + [0.0] * (5 - seed) for seed in range(3)]
        assert one.interval == pytest.approx(tuple(scores(0.8, by_table(rows))))
        assert one.interval_of == "runs and images"
    assert found.pair(0, 1).p == 1
    assert found.pair(1, 0).words(1) == "not distinguishable"


def test_one_run_keeps_its_own_interval_and_what_was_not_requested_by_all_names_it(made: Make) -> None:
    a = made("a", [1] * 9 + [0], overrides=["strategy=full"], values={"strategy": {"weights": "none"}})
    b = made("b", [1] * 8 + [0] * 2)
    found = comparison.compared([b, a])
    assert [one.label for one in found.configurations] == ["strategy=full", "the defaults"]
    assert found.configurations[0].interval == pytest.approx((0.8, 1.0))
    assert (found.configurations[0].interval_of, found.configurations[0].sd) == ("images", None)


def test_a_single_configuration_is_named_by_what_was_chosen_for_it(made: Make) -> None:
    overrides = ["training.lr=1", "head=mlp", "backbone=small_cnn", "dataset.limit.test=2"]
    chosen, plain = made("chosen", [1, 0], overrides=overrides), made("plain", [1, 0], overrides=["training.lr=1"])
    assert [one.label for one in comparison.compared([chosen]).configurations] == ["backbone=small_cnn head=mlp"]
    assert [one.label for one in comparison.compared([plain]).configurations] == ["all runs"]


def test_runs_that_agree_have_the_interval_of_their_images(made: Make) -> None:
    from tlx.comparison.plot import _spread
    from tlx.comparison.text_table import notes, table, text

    alike = [made(f"a{s}", [1, 1, 1, 0], seed=s) for s in range(3)]
    apart = [made(f"b{s}", [1] * s + [0] * (4 - s), seed=s, values={"x": 1}) for s in range(2)]
    found = comparison.compared([*alike, *apart])
    first, second = found.configurations
    assert (first.n, first.sd, first.interval_of) == (3, 0, "runs and images")
    assert first.interval == pytest.approx(wilson(3, 4))
    assert second.interval_of == "runs and images"
    assert "30.1% to 95.4% over runs and 4 images" in text(found)
    assert [row["interval_over"] for row in csv.DictReader(io.StringIO(table(found)))] == ["runs and images"] * 2
    assert notes(found)[0].startswith("95 % interval over runs and images: the accuracy to expect of other seeds and")
    assert _spread([0.5]) == [0]
    for values in ([0.75] * 3, [0.5, 0.75, 0.5], [0.1] * 40):
        moved = _spread(values)
        assert len({*zip(values, moved, strict=True)}) == len(values), "each run has a dot of its own"
        assert max(map(abs, moved)) < 0.15


def test_folds_have_the_interval_of_all_their_images(made: Make) -> None:
    from tlx.comparison.text_table import notes, table, text

    def fold(name: str, number: int, right: int) -> Path:
        return made(f"{name}{number}", [1] * right + [0] * (8 - right), files=[f"{number}/{i}" for i in range(8)],
                    values={"dataset": {"fold": number}, "head": name}, test=f"fold {number}",
                    overrides=[f"head={name}"])  # fmt: skip

    equal = [fold("a", number, 4) for number in range(3)]
    other = [fold("b", number, number) for number in range(3)]
    found = comparison.compared([*equal, *other])
    assert {(one.interval_of, one.test_images) for one in found.configurations} == {("runs and all images", 24)}
    alike, apart = (one.interval for one in found.configurations)
    assert alike == pytest.approx(wilson(12, 24))
    alone = 1 / 8 * 7 / 8
    wide = width(24, alone, alone / 24, (1 / 8) ** 2 * (1 / 3 + 8 / 100), alone / 24, 3)
    assert apart == pytest.approx(tuple(scores(1 / 8, wide)))
    assert apart[0] < wilson(3, 24)[0] < wilson(3, 24)[1] < apart[1], "these runs differ"
    said = text(found)
    assert "31.4% to 68.6% over runs and all 24 images" in said
    assert "*" not in said, "one kind of interval needs no mark"
    of_intervals = [note for note in notes(found) if "95 % interval over" in note]
    assert of_intervals == [
        "95 % interval over runs and all images: the accuracy to expect of other folds and other images; "
        "Wilson, with the variance of both, over the test images of all folds together"
    ]
    assert not any("on these test images" in note for note in notes(found)), "each fold has its own"
    assert [row["interval_over"] for row in csv.DictReader(io.StringIO(table(found)))] == ["runs and all images"] * 2


def test_seeds_whose_test_images_overlap_have_no_more_images_than_there_are(made: Make) -> None:
    from tlx.comparison.text_table import notes

    def seed(number: int, names: Sequence[int]) -> Path:
        files = [f"images/{i}" for i in names]
        return made(f"{number}", [int(i % 4 > 0) for i in names], seed=number, files=files, test=f"of {number}")

    (twice,) = comparison.compared([seed(0, range(40)), seed(1, range(39, -1, -1))]).configurations
    assert (twice.test_images, twice.interval) == (40, pytest.approx(wilson(30, 40)))
    found = comparison.compared([seed(2, range(40)), seed(3, range(20, 60))])
    (half,) = found.configurations
    assert half.test_images == 60
    assert wilson(45, 60)[0] > half.interval[0] > wilson(30, 40)[0], "as 53 images: 80 predictions, some of one image"
    assert notes(found)[0].endswith(
        "over the test images of all seeds together; an image that several runs were tested on counts as one"
    )


def test_another_kind_of_interval_carries_a_mark(made: Make) -> None:
    from tlx.comparison.text_table import cells, notes

    several = [
        made(f"{h}{s}", [1] * (s + h) + [0] * (15 - s - h), seed=s, values={"x": h}) for h in (9, 7) for s in range(3)
    ]
    found = comparison.compared([*several, made("single", [1] * 9 + [0] * 6, values={"x": 1})])
    over = [list(cells(found, place))[2] for place in range(3)]
    assert [cell.endswith("images *") for cell in over] == [one.n == 1 for one in found.configurations]
    assert sum(note.startswith("* 95 % interval over images: Wilson") for note in notes(found)) == 1
    assert sum(note.startswith("95 % interval over runs and images: the accuracy") for note in notes(found)) == 1


def test_validation_chooses_and_the_test_images_do_not(made: Make) -> None:
    from tlx.comparison.text_table import chosen, table, text

    def runs(head: str, losses: Sequence[float], right: int, **more: Any) -> list[Path]:
        correct, same = [1] * right + [0] * (20 - right), {"overrides": [f"head={head}"], "values": {"head": head}}
        return [made(f"{head}{s}", correct, seed=s, val_loss=loss, **same, **more) for s, loss in enumerate(losses)]

    folders = [*runs("a", [0.2, 0.6], 18), *runs("b", [0.4, 0.2], 12), *runs("c", [0.35, 0.25], 15, learns=40)]
    found = comparison.compared(folders)
    assert (found.rule, found.alike) == ("val_loss", True)
    # The mean over seeds; c equals b and has fewer parameters; a has the highest test accuracy and the lowest loss.
    assert [one.label for one in found.configurations] == ["head=c", "head=b", "head=a"]
    (sentence,) = chosen(found)
    assert sentence.startswith("chosen by validation (val_loss): head=c, test accuracy 75.0% (")
    assert sentence in text(found)
    rows = list(csv.DictReader(io.StringIO(table(found))))
    expected = "configuration chosen runs test_accuracy low high sd val_accuracy seconds trainable cached difference "
    expected += "difference_low difference_high p p_corrected folder"
    assert list(rows[0])[:17] == expected.split()
    assert [row["chosen"] for row in rows] == ["1", "0", "0"]
    assert [row["difference"] for row in rows] == ["", *(f"{float(r['test_accuracy']) - 0.75:.6g}" for r in rows[1:])]
    assert all(float(r["difference_low"]) < float(r["difference"]) < float(r["difference_high"]) for r in rows[1:])
    assert [Path(row["folder"]).name for row in rows] == ["c1", "b1", "a0"]
    (single,) = comparison.compared(folders[:2]).configurations
    assert chosen(comparison.compared([single.runs[0].folder])) == [], "there is nothing to choose from"


def test_the_rule_is_that_of_the_runs_and_the_default_where_they_have_several(made: Make) -> None:
    def run(name: str, loss: float, accuracy: float, rule: str = "", **summary: Any) -> Path:
        values: dict[str, Any] = {"head": name} | ({"evaluation": {"choose_by": rule}} if rule else {})
        return made(
            name, [1, 0], val_loss=loss, val_accuracy=accuracy, overrides=[f"head={name}"], values=values, **summary
        )

    by_accuracy = [run("a", 0.1, 0.5, "val_accuracy"), run("b", 0.9, 0.8, "val_accuracy")]
    found = comparison.compared(by_accuracy)
    assert (found.rule, found.configurations[0].label) == ("val_accuracy", "head=b")
    found = comparison.compared([*by_accuracy, run("c", 0.5, 0.6)])
    assert (found.rule, found.configurations[0].label) == ("val_loss", "head=a")
    f1 = [run("d", 0.1, 0.5, "val_macro_f1"), run("e", 0.2, 0.5, "val_macro_f1")]
    assert comparison.compared(f1).rule == "val_loss", "none of them has computed it"
    for folder, value in zip(f1, (0.3, 0.4), strict=True):
        row = {"epoch": 1, "val_loss": 0.1, "val_accuracy": 0.5, "val_macro_f1": value}
        (folder / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    found = comparison.compared(f1)
    assert (found.rule, found.configurations[0].label) == ("val_macro_f1", "head=e")


def test_the_epoch_that_was_kept_counts_and_other_validation_images_are_said(made: Make) -> None:
    from tlx.comparison.text_table import chosen

    a, b = (made(name, [1, 0], overrides=[f"head={name}"], values={"head": name}, best_epoch=2) for name in "ab")
    for folder, losses in ((a, (0.1, 0.5)), (b, (0.9, 0.4))):
        rows = [{"epoch": epoch, "val_loss": loss, "val_accuracy": 0.5} for epoch, loss in enumerate(losses, 1)]
        (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    found = comparison.compared([a, b])
    assert [one.figure for one in found.configurations] == [0.4, 0.5]
    assert "rough" not in chosen(found)[0]
    model = {"data": {"test": "the images", "val": "other images"}}
    (b / "model" / "model.json").write_text(json.dumps(model))
    assert chosen(comparison.compared([a, b]))[0].endswith(
        "; not all have the same seeds and validation images: a rough choice"
    )


@pytest.mark.parametrize("width", [0.0007, 0.004, 0.06, 0.0601, 0.11, 0.15, 0.3, 1.0])
def test_what_a_tick_says_is_where_it_is(width: float) -> None:
    from matplotlib.figure import Figure

    from tlx.comparison.plot import _in_percent

    for low in (0.0, 0.4321):
        axes = Figure().add_subplot()
        axes.set_ylim(low, low + width)
        _in_percent(axes.yaxis, 6)
        ticks = axes.get_yticks()
        said = [float(axes.yaxis.get_major_formatter()(tick).rstrip("%")) / 100 for tick in ticks]
        assert said == pytest.approx(list(ticks), abs=1e-9)
        assert sum(low <= tick <= low + width for tick in ticks) >= 2


def test_runs_are_found_two_levels_below_and_not_in_what_is_kept_beside_them(
    made: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    top = tmp_path / "outputs"
    runs = [made(f"outputs/{name}", [1, 0]) for name in ("one", "day/two", "day/three")]
    for name in ("features/x", "sources/x", "mlartifacts/x", "a/b/c", ".kept/x", "one/inside"):
        made(f"outputs/{name}", [1, 0])
    assert sorted(runs_named([str(top)])) == sorted(runs)
    monkeypatch.setattr(run_folders, "MOST", 3)
    assert refused(top) == f"{top}: more than 3 folders in it; give those of runs, or one with fewer"


def test_where_the_same_was_requested_the_configuration_names_it(made: Make) -> None:
    folders = [made(f"{lr}", [1, 0], overrides=["head=mlp"], values={"training": {"lr": lr}}) for lr in (0.5, 0.25)]
    labels = {one.label for one in comparison.compared(folders).configurations}
    assert labels == {"training.lr=0.5", "training.lr=0.25"}


def test_what_is_not_finished_or_comes_twice_is_listed_and_left_out(made: Make, tmp_path: Path) -> None:
    whole, again = made("whole", [1, 0]), made("again", [1, 1])
    failed = made("failed", [1, 0], status="failed", error="no memory")
    stopped, empty = made("stopped", [1, 0]), tmp_path / "empty"
    broken = made("broken", [1, 0], status="failed", error="no disk")
    for folder in (stopped, broken):
        (folder / "checkpoint.safetensors").touch()
    begun = made("begun", [1, 0])
    (begun / "summary.json").unlink()
    found = comparison.compared([whole, failed, stopped, broken, empty, begun, again])
    assert [run.folder for one in found.configurations for run in one.runs] == [whole]
    assert found.left_out == [
        (failed, "failed: no memory"),
        (stopped, "not finished"),
        (broken, "not finished: no disk"),
        (empty, "not begun"),
        (begun, "not finished"),
        (again, f"same configuration and seed as {whole}"),
    ]
    with pytest.raises(RequestError, match=r"^no finished run to compare \(.*failed: failed: no memory, and 1 more\)$"):
        comparison.compared([failed, stopped])


def test_other_test_images_are_not_paired(made: Make) -> None:
    x = {"values": {"training": {"lr": 1}}}
    others = [
        made("drawn anew", [1, 1, 0, 0], test="others", **x),
        made("more", [1, 1, 0, 0, 0], values={"training": {"lr": 2}}),
        made("renamed", [1, 0, 0, 0], files=["a", "b", "c", "d"], values={"training": {"lr": 3}}),
    ]
    found = comparison.compared([made("first", [1, 1, 1, 0]), *others])
    assert [pair.found for pair in found.pairs] == [None] * 6
    assert {pair.words(pair.first) for pair in found.pairs} == {"other test images, no paired test"}
    moved = made("moved", [1, 0, 0, 0], files=[f"/elsewhere/{i}" for i in range(4)], values={"training": {"lr": 4}})
    assert comparison.compared([made("again", [1, 1, 1, 0]), moved]).tested == 1, "a data set may lie elsewhere"


def test_each_seed_may_have_test_images_of_its_own(made: Make) -> None:
    rng = np.random.default_rng(0)
    folders = [
        made(f"{lr}-{seed}", drawn(rng, 50, share), seed=seed, values={"training": {"lr": lr}}, test=f"of {seed}")
        for lr, share in ((0.1, 0.95), (0.2, 0.2))
        for seed in range(4)
    ]  # fmt: skip
    pair = comparison.compared(folders).pair(0, 1)
    assert pair.found is not None
    assert (pair.found.runs, pair.found.same_images, pair.words(0)) == (4, False, "better")
    assert pair.found.method == "corrected t over 4 runs with test images of their own"


def test_a_better_one_is_called_so_among_many(made: Make) -> None:
    rng = np.random.default_rng(4)
    ones = {"training.lr=0.1": 0.95, "training.lr=0.2": 0.6, "training.lr=0.3": 0.6}
    folders = [
        made(f"{lr}-{s}", drawn(rng, 200, share), seed=s, overrides=[lr], values={"training": {"lr": lr}})
        for lr, share in ones.items()
        for s in range(3)
    ]  # fmt: skip
    found = comparison.compared(folders)
    assert found.configurations[0].label == "training.lr=0.1"
    assert [found.pair(0, place).words(place) for place in (1, 2)] == ["worse", "worse"]
    assert found.pair(0, 1).words(0) == "better"
    assert found.pair(1, 2).words(2) == "not distinguishable"
    for pair in found.pairs:
        assert pair.found is not None
        assert pair.p is not None
        assert pair.p >= pair.found.p


def test_the_summary_says_how_much_was_read_from_earlier_runs(made: Make) -> None:
    assert read(made("a", [1, 0], features={"rows": 4000, "read": 1000})).reused == 0.25
    assert read(made("b", [1, 0], features={})).reused is None
    old = made("c", [1, 0], overrides=["head=mlp"])
    summary = json.loads((old / "summary.json").read_text())
    del summary["requested"]
    (old / "summary.json").write_text(json.dumps(summary | {"command": "python -m tlx head=mlp"}))
    (old / "tlx.log").write_text("INFO features: head input, val, 5 images, 1 MiB, from an earlier run, 0.0 s\n")
    assert (read(old).reused, read(old).requested) == (None, {})  # no sentence is read


# ---------------------------------------------------------------- what is shown


def side_by_side(made: Make) -> list[Path]:
    rng = np.random.default_rng(5)
    return [
        made(f"{head}-{s}", drawn(rng, 60, share), seed=s, overrides=[f"head={head}"], values={"head": head})
        for head, share in (("linear", 0.9), ("mlp", 0.4))
        for s in range(3)
    ]  # fmt: skip


def test_the_table_is_plain_text_and_says_what_its_numbers_are(
    made: Make, run_compare: Callable[..., tuple[str, str]], tmp_path: Path
) -> None:
    side_by_side(made)
    made("failed", [1, 0], status="failed", error="no \x1b[31mmemory")
    printed, said = run_compare(tmp_path)
    head, best, other, *notes = printed.splitlines()
    assert head.split("  ")[0] == "configuration"
    assert re.fullmatch(
        r"head=linear +\d\d\.\d% +[\d.]+% to [\d.]+% over runs and 60 images "
        r"+\d\.\d% +3 +0\.\d{4} +75\.0% +11 s +530 +-  chosen",
        best,
    )
    assert re.search(r"  -[\d.]+ \(-[\d.]+ to -[\d.]+\), p [\d.e<\- ]+, worse$", other)
    assert "\x1b" not in printed
    assert notes[0] == ""
    assert notes.pop(1).startswith("chosen by validation (val_loss): head=linear, test accuracy ")
    assert notes.pop(1) == "folder of the best seed by validation:"
    for head in ("linear", "mlp"):
        assert re.fullmatch(rf"  head={head} +{tmp_path}/{head}-[012]", notes.pop(1))
    assert notes[1].startswith(
        "95 % interval over runs and images: the accuracy to expect of other seeds and other images;"
    )
    assert notes[-1] == r"left out: " + str(tmp_path / "failed") + r": failed: no \x1b[31mmemory"
    assert said == "7 runs …\n"
    assert not list(tmp_path.glob("comparison*")), "a folder of loose runs is left as it is"


def test_where_the_screen_is_narrow_each_configuration_has_lines_of_its_own(made: Make) -> None:
    from tlx.comparison.text_table import text

    found = comparison.compared(side_by_side(made))
    lines = text(found, width=60).splitlines()
    assert lines[:2] == ["head=linear", f"  test accuracy             {found.configurations[0].mean:.1%}"]
    assert text(found, width=1000) == text(found)


def test_a_sweep_gets_its_files_whole_and_csv_says_what_the_table_says(
    made: Make, run_compare: Callable[..., tuple[str, str]], tmp_path: Path
) -> None:
    side_by_side(made)
    name = tmp_path / "outputs" / "sweeps" / "heads"
    name.mkdir(parents=True)
    for folder in [*tmp_path.glob("linear-*"), *tmp_path.glob("mlp-*")]:
        folder.rename(name / folder.name)
    jobs = {str(i): {"folder": folder.name} for i, folder in enumerate(name.iterdir())}
    manifest = {"version": 1, "mlflow_key": "k", "jobs": jobs | {"x": {"folder": "missing"}}}
    (name / "sweep.json").write_text(json.dumps(manifest))
    elsewhere = tmp_path / "elsewhere" / "page.html"
    elsewhere.parent.mkdir()
    printed, said = run_compare("heads", "--output", tmp_path / "outputs", "--html", elsewhere)
    assert f"left out: {name / 'missing'}: not begun" in printed
    written = [*(name / f"comparison.{kind}" for kind in ("csv", "html", "png")), elsewhere]
    assert said.splitlines() == ["7 runs …", *(f"written: {file}" for file in written)]
    assert {file.name for file in name.iterdir() if file.is_file()} == {
        "comparison.csv",
        "comparison.html",
        "comparison.png",
        "sweep.json",
    }
    own, other = ((page.parent, page.read_text()) for page in (name / "comparison.html", elsewhere))
    for place, text in (own, other):  # each page's links lead from where it lies
        links = [unquote(link) for link in re.findall(r'<a href="([^"#]+)"', text)]
        assert sorted((place / link).resolve() for link in links) == sorted(
            path.resolve() for path in name.iterdir() if path.is_dir()
        )
    assert not [link for link in re.findall(r'<a href="([^"]+)"', own[1]) if ".." in link]
    rows = list(csv.DictReader(io.StringIO((name / "comparison.csv").read_text())))
    found = comparison.compared(runs_named([str(name)]))
    for row, one in zip(rows, found.configurations, strict=True):
        assert row["configuration"] == one.label
        assert (float(row["test_accuracy"]), float(row["low"]), float(row["high"])) == pytest.approx(
            (one.mean, *one.interval), rel=1e-5
        )
    assert [row["chosen"] for row in rows] == ["1", "0"]
    with Image.open(name / "comparison.png") as picture:
        assert picture.size[0] > 1000


@pytest.mark.parametrize("broken", ["run", "png", "csv", "statistics", "nothing"])
def test_what_fails_at_a_sweeps_end_costs_nothing_else(
    made: Make, tmp_path: Path, broken: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = side_by_side(made)
    for folder in folders:
        (folder / "model" / "model.safetensors").touch()
    jobs = {str(i): {"folder": folder.name, "name": f"job {i}"} for i, folder in enumerate(folders)}
    sweep_manifest.write(tmp_path, {"command": "python -m tlx -m seeds=2"})
    if broken == "run":
        (folders[2] / "predictions.csv").write_text("")
    elif broken == "statistics":
        monkeypatch.setattr(paired_tests, "two_sided", lambda t, df: 1 / 0)
    elif broken != "nothing":
        (tmp_path / f"comparison.{broken}").mkdir()
    failed = sweep_summary.sum_up(tmp_path, jobs)
    printed, said = capsys.readouterr()
    assert said.splitlines() == [f"tlx: {line}" for line in failed]
    whole = {kind for kind in ("csv", "png", "html") if (tmp_path / f"comparison.{kind}").is_file()}
    if broken in ("run", "statistics"):
        assert len(failed) == 1
        assert failed[0].startswith("the comparison: ")
        assert not whole
        for i, folder in enumerate(folders):
            line = next(line for line in printed.splitlines() if line.startswith(f"job {i} "))
            assert f"test accuracy {read_accuracy(folder):.1%}" in line
    else:
        assert [line.partition(":")[0] for line in failed] == ([] if broken == "nothing" else [f"comparison.{broken}"])
        assert whole == {"csv", "png", "html"} - {broken}
        assert printed.startswith("configuration  ")


def read_accuracy(folder: Path) -> float:
    return float(json.loads((folder / "summary.json").read_text())["test_accuracy"])


def test_the_page_fetches_nothing_runs_nothing_and_shows_each_picture_once(made: Make, tmp_path: Path) -> None:
    hostile = "<script>alert(1)</script>\n\x1b[31m"
    files = []
    for i in range(40):
        file = tmp_path / f"<img src=x onerror=y>{i}.png"
        Image.new("RGB", (400, 200), (6 * i, 0, 0)).save(file)
        files.append(str(file))
    files[1] = "test/1"
    files[2] = str(tmp_path / "gone.png")
    names = ["a", "b", hostile]
    folders = [
        made(f"run{i}", right, files=files, overrides=[f"head={name}"], values={"head": {"name": name}})
        for i, (name, right) in enumerate(zip(names, ([1] * 40, [0] * 40, [0] * 40), strict=True))
    ]  # fmt: skip
    page, picture = tmp_path / "c" / "comparison.html", tmp_path / "c" / "comparison.png"
    of = Origin(f"python -m tlx {hostile} tracking.uri=http://me:secret@host", f"{hostile}sweep")
    assert outputs.write(comparison.compared(folders), [page, picture], of) == [page, picture]
    text = page.read_text()
    assert "secret" not in text
    assert "tracking.uri=http://me:***@host" in text
    assert not re.search(r"<script|<img src|[\"(]https?:|src=\"(?!data:)|url\((?!data:)|\x1b", text)
    assert "default-src 'none'; img-src data:" in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;\\n\\x1b[31m" in text
    assert text.count("background-image") == SHOWN - 2, (
        "one picture for each image that is there, whatever pairs it is in"
    )
    assert text.count("<figcaption>") == 2 * SHOWN
    assert all(f'<a href="./../{folder.name}">{folder}</a>' in text for folder in folders), "each run has its folder"
    assert f"A alone is correct on 40 images, {SHOWN} of them shown" in text
    assert text.count("not distinguishable") >= 2


def test_the_page_says_what_it_is_of(made: Make, tmp_path: Path) -> None:
    reader = {"name": "image_folder", "root": "/photos/Two <kinds>"}
    folders = [
        made(f"r{i}", [1, 0], seed=i, values={"dataset": {"fold": None, "reader": reader}}) for i in range(2)
    ]  # fmt: skip
    found = comparison.compared(folders)
    of = Origin("python -m tlx seeds=2", "first", datetime(2026, 3, 1, 12, 30))
    page = tmp_path / "page.html"
    outputs.write(found, [page], of)
    text = page.read_text()
    assert "<title>Comparison: Two &lt;kinds&gt;, sweep first, 2026-03-01</title>" in text
    facts = dict(re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", text))
    assert '<code class="command">python -m tlx seeds=2</code>' in text
    assert {name: html.unescape(value) for name, value in facts.items()} == {
        "data set": "Two <kinds> (image_folder, /photos/Two <kinds>)",
        "images": "100 train, 20 val, 2 test",
        "sweep": "first",
        "runs": "2 in 1 configuration",
        "date": "2026-03-01 12:30",
    }
    for table in text.split("<table")[1:]:
        head, *rows = re.findall(r"<tr>(.*?)</tr>", table.partition("</table>")[0], re.DOTALL)
        assert all(row.count("<td") == head.count("<th") for row in rows), "each column has its header"


def test_it_is_said_where_the_validation_loss_of_some_runs_is_another_one(made: Make) -> None:
    known = [{"calibration": {"val_loss": "after"}}, {"calibration": {"val_loss": "before"}}, {}]
    folders = [made(f"r{i}", [1, 0], values={"x": i}, **some) for i, some in enumerate(known)]
    words = "val_loss: of {} (of an earlier version) before the temperature, of the others after it"
    for some, number in ((folders, "2 runs"), (folders[:2], "one run"), (folders[:1], ""), (folders[1:], "")):
        text = text_table.text(comparison.compared(some))
        assert ("before the temperature" in text) == bool(number)
        assert not number or words.format(number) in text


def test_names_that_a_picture_cannot_show_are_no_error(made: Make) -> None:
    folders = [
        made(f"r{i}", [1, 0], overrides=[f"head={n}"], values={"x": n}) for i, n in enumerate(("$x_$", "\\$", "漢字"))
    ]
    from tlx.comparison.plot import picture

    assert Image.open(io.BytesIO(picture(comparison.compared(folders)))).format == "PNG"


def test_many_configurations_are_compared_and_drawn(
    made: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(6)
    folders = [made(f"{i}", drawn(rng, 20, 0.5), values={"training": {"lr": i}}) for i in range(45)]
    found = comparison.compared(folders)
    assert found.tested == len(found.pairs) == 45 * 44 / 2
    assert len(outputs.write(found, [tmp_path / f"x.{kind}" for kind in outputs.KINDS], Origin())) == 3
    few = 4
    monkeypatch.setattr(comparison, "EACH_OTHER", few)
    monkeypatch.setattr(text_table, "EACH_OTHER", few)
    found = comparison.compared(folders)
    pairs = {(pair.first, pair.second) for pair in found.pairs}
    assert pairs == {*itertools.combinations(range(few), 2), *((0, place) for place in range(1, 45))}
    assert found.tested == len(found.pairs) == few * (few - 1) / 2 + 45 - few
    assert [pair.p for pair in found.pairs] == statistics.holm([pair.found.p for pair in found.pairs if pair.found])
    words = "of 45 configurations the first 4 are tested against each other, the rest against the chosen one"
    for width, shown in ((None, 45), (200, 30), (40, 30)):
        said = text_table.text(found, width)
        assert words in said
        assert not any(re.search(rf"{one.label}\b", said) for one in found.configurations[shown:])
        assert ("the first 30 of 45 configurations by validation are shown" in said) == (shown < 45)
    assert len(text_table.rows(found)) == 46
    for typed, place in (((), "output=…"), ([Path("/proc/x.csv")], "--csv FILE")):
        with pytest.raises(RequestError, match=rf"^cannot write /proc/x\.csv: .*take another place \({place}\)"):
            outputs.write(found, [Path("/proc/x.csv")], Origin(), typed)


def test_the_images_that_flipped_are_those_that_one_run_alone_has_right(
    made: Make, run_compare: Callable[..., tuple[str, str]]
) -> None:
    a, b = made("a", [1, 1, 1, 0, 0, 1]), made("b", [1, 0, 0, 0, 1, 1])
    printed, _ = run_compare("--flipped", a, b)
    assert printed.splitlines() == [
        f"first:  {a}",
        f"second: {b}",
        "2 of 6 test images are correct in the first only, 1 in the second only: "
        f"{points(paired_tests.one(lead(read(a), read(b))))} points, p 1 (McNemar's exact test)",
        "",
        "correct in  label  first predicts  second predicts  file",
        "first       cat    cat             dog              test/1",
        "first       cat    cat             dog              test/2",
        "second      cat    dog             cat              test/4",
    ]
    assert (
        run_compare("--flipped", a, a)[0]
        .splitlines()[2]
        .startswith("0 of 6 test images are correct in the first only, 0 in")
    )
    several = flips([(read(a), read(b)), (read(a), read(a))])
    assert [(flip.file, flip.first, flip.second, flip.of) for flip in several] == [
        ("test/1", 2, 1, 2), ("test/2", 2, 1, 2), ("test/4", 0, 1, 2),
    ]  # fmt: skip


# ---------------------------------------------------------------- what is wrong with a request


def refused(*words: object) -> str:
    with pytest.raises(RequestError) as error:
        compare.SUBCOMMAND.main([str(word) for word in words])
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_wrong_name_or_folder_is_one_line(made: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert refused() == "compare: give a sweep's name, or the folders of runs"
    assert refused("heads") == (
        "heads: no such folder, and no such sweep in outputs/sweeps; there is none yet; "
        "RUN is a run's folder, latest, a sweep's name or an MLflow run id"
    )
    for name in ("heads", "lr"):
        (tmp_path / "outputs" / "sweeps" / name).mkdir(parents=True)
    assert refused("haeds") == (
        "haeds: no such folder, and no such sweep in outputs/sweeps (did you mean 'heads'?); sweeps there: heads, lr; "
        "RUN is a run's folder, latest, a sweep's name or an MLflow run id"
    )
    assert refused("./heads") == ("./heads: no such folder; give a run's folder, as in outputs/<date>/<run>, or latest")
    assert refused("heads").startswith(
        "heads: neither a run's folder (no summary.json in it) nor one that holds runs; "
    )
    run, other = made("run", [1, 0]), made("other", [1, 0], test="others")
    failed = made("failed", [1, 0], status="failed", error="no memory")
    assert refused(failed) == f"no finished run to compare ({failed}: failed: no memory)"
    assert refused(run, "--csv", "a.txt") == "--csv a.txt: the file's name must end in .csv"
    (tmp_path / "x.png").mkdir()
    assert refused(run, "--png", "x.png") == "--png x.png: is a folder; give the name of a file"
    assert refused(run, "--csv", "none/x.csv") == "--csv none/x.csv: there is no folder none; make it first"
    assert not (tmp_path / "none").exists()
    assert refused(run, "--flipped", run, run) == "--flipped takes two runs and nothing beside them"
    assert refused("--flipped", run, "outputs") == (
        "--flipped outputs: no run's folder; give one, as in outputs/<date>/<run>"
    )
    assert refused("--flipped", run, failed) == f"--flipped {failed}: failed: no memory"
    assert refused("--flipped", run, other) == f"--flipped {run} {other}: they were tested on different images"


BROKEN = [
    ("summary.json", "{", "cannot be read: Expecting property name"),
    ("summary.json", "[]", "holds list, not dict"),
    ("summary.json", '{"status": "finished"}', "test_accuracy is None, not a number from 0 to 1"),
    ("config.yaml", "a: [", "cannot be read: "),
    ("config.yaml", "- a", "no configuration of a run"),
    ("plan.json", '[{"stages": 3}]', "no plan of a run: "),
    ("metrics.jsonl", '{"epoch": 1, "val_loss": 1, "val_accuracy": 1}\n{"epo', "line 2: no epoch of a run"),
    ("predictions.csv", "", "its columns are , not sample,file,label,prediction,probability,correct"),
    ("predictions.csv", "a,b\n1,2\n", "its columns are a,b, not sample,"),
    ("predictions.csv", "sample,file,label,prediction,probability,correct\n", "holds no image"),
    (
        "predictions.csv",
        "sample,file,label,prediction,probability,correct\n0,f,a,a,1,yes\n",
        "line 2: no answer of a run",
    ),
    ("predictions.csv", None, "cannot be read: No such file or directory"),
]


@pytest.mark.parametrize(("name", "text", "why"), BROKEN, ids=[f"{i}-{name}" for i, (name, _, _) in enumerate(BROKEN)])
def test_a_broken_file_is_named_with_what_is_wrong(made: Make, name: str, text: str | None, why: str) -> None:
    folder = made("run", [1, 0])
    if text is None:
        (folder / name).unlink()
    else:
        (folder / name).write_text(text)
    said = refused(folder)
    assert said.startswith(f"{folder / name}"), said
    assert why in said


# ---------------------------------------------------------------- a real sweep


def test_a_real_sweep_is_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    limits = [f"dataset.limit.{part}={n}" for part, n in (("train", 12), ("val", 6), ("test", 20))]
    few = [*limits, "training.epochs=2", "tracking=none", "sweep.name=heads"]
    assert main(["-m", "head=linear,mlp", *few]) == 0
    capsys.readouterr()
    assert main(["compare", "heads"]) == 0
    printed = capsys.readouterr().out
    found = comparison.compared(runs_named(["heads"]))
    assert {one.label for one in found.configurations} == {"head=linear", "head=mlp"}
    reused = {one.label: one.reused for one in found.configurations}
    assert reused == {"head=linear": 0.0, "head=mlp": 1.0}, "the second head's features were those of the first"
    assert found.tested == 1
    assert found.pairs[0].found is not None
    assert found.pairs[0].found.method == "McNemar's exact test"
    assert "one run each: McNemar's exact test compares these two models" in printed
    folder = tmp_path / "outputs" / "sweeps" / "heads"
    assert all((folder / f"comparison.{kind}").is_file() for kind in ("csv", "html", "png"))
