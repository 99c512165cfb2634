"""Runs side by side: what a configuration is, what its runs found together, and how each pair of them differs."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Any

import numpy as np

from tlx.comparison.configuration_labels import labels
from tlx.comparison.crossed_effects import of_other_images, of_the_same_images, share_interval
from tlx.comparison.flips import lead
from tlx.comparison.paired_tests import Difference, difference
from tlx.core.choose_by import DEFAULT, RULES
from tlx.core.errors import RequestError
from tlx.core.metric import of_summary
from tlx.core.statistics import holm
from tlx.runs.run_reader import Run, read, state

LEVEL = 0.05  # of all claims together
SAME = "not distinguishable"
EACH_OTHER = 48  # configurations that are tested against each other, the first by validation


@dataclass(frozen=True)
class Configuration:
    """Runs that differ in their seed and fold only.

    Attributes:
        label: what sets it apart from the others.
        runs: in the order of their seeds; `n` of them.
        mean: of the test accuracy, 0..1.
        sd: its standard deviation over the runs; None for one run.
        interval: 95 %.
        interval_of: `images`: Wilson's over the images of one run. `runs and images`: of the accuracy that is expected
            over seeds and images. `runs and all images`: the same where the runs have test images of their own, as in a
            cross-validation.
        val_accuracy: mean, in each run's best epoch.
        figure: mean of what chooses, in each run's best epoch.
        seconds: that data, features, training and evaluation of a run took, median.
        trained: parameters that learned in some phase.
        reused: share of the features that were read and not computed; None where unknown.
        test_images: how many different ones, of all runs.
    """

    label: str
    runs: list[Run]
    mean: float
    sd: float | None
    interval: tuple[float, float]
    interval_of: str
    val_accuracy: float
    figure: float
    seconds: float
    trained: int
    reused: float | None
    test_images: int

    @property
    def n(self) -> int:
        """How many runs."""
        return len(self.runs)

    @property
    def test_means(self) -> dict[str, float]:
        """The mean over the runs of each figure of the test images that all of them have, by its key."""
        every = [[one for one in of_summary(run.summary) if one.split == "test"] for run in self.runs]
        found = [{one.key: one.value for one in each} for each in every]
        return {key: fmean(each[key] for each in found) for key in found[0] if all(key in each for each in found)}

    def run(self, rule: str) -> Run:
        """The run that validation chooses among them."""
        return min(self.runs, key=lambda run: _rank(run.validation(rule) or 0.0, rule))


@dataclass(frozen=True)
class Pair:
    """Two configurations, by their places in the comparison; the first is the one that comes first in it.

    Attributes:
        matched: the runs that are compared, one of each.
        found: the first's lead; None where no two runs have the same test images.
        p: after Holm's correction for all pairs of the comparison.
    """

    first: int
    second: int
    matched: list[tuple[Run, Run]]
    found: Difference | None
    p: float | None = None

    def words(self, seen_from: int) -> str:
        """What can be said of one of the two (`seen_from`) against the other."""
        if self.found is None or self.p is None:
            return "other test images, no paired test"
        if self.p >= LEVEL:
            return SAME
        return "better" if (self.found.mean > 0) == (seen_from == self.first) else "worse"


@dataclass(frozen=True)
class Comparison:
    """Finished runs side by side.

    Attributes:
        configurations: the one that validation chooses first, and so on; the test images have no part in that.
        pairs: the chosen one with each, and every two of the first `EACH_OTHER`: of a thousand configurations there
            are half a million pairs, and a correction for all of them would leave nothing to find.
        left_out: folder and reason of what has no place in it.
        rule: the figure of the validation images that chooses (`choice.RULES`).
        alike: whether the configurations have the same seeds and folds, validated on the same images.
    """

    configurations: list[Configuration]
    pairs: list[Pair]
    left_out: list[tuple[Path, str]]
    rule: str
    alike: bool

    def pair(self, one: int, other: int) -> Pair:
        """The pair of two places, in any order.

        Raises:
            KeyError: they are not tested against each other.
        """
        return self._by_places[min(one, other), max(one, other)]

    @cached_property
    def kinds(self) -> dict[str, int]:
        """What the intervals are over (`Configuration.interval_of`), the most frequent first, and how many are."""
        return dict(Counter(one.interval_of for one in self.configurations).most_common())

    @cached_property
    def _by_places(self) -> dict[tuple[int, int], Pair]:
        return {(pair.first, pair.second): pair for pair in self.pairs}

    @cached_property
    def tested(self) -> int:
        """How many pairs the correction is for."""
        return sum(pair.found is not None for pair in self.pairs)


@dataclass(frozen=True)
class Ranked:
    """Configurations in the order in which validation chooses them; `left_out` and `rule` as in `Comparison`."""

    configurations: list[Configuration]
    left_out: list[tuple[Path, str]]
    rule: str


def ranked(folders: Sequence[Path]) -> Ranked:
    """The runs in these folders as configurations, the chosen one first; what is not finished is left out.

    Raises:
        RequestError: none is finished, or a file of one is broken.
    """
    left_out = [(folder, why) for folder in folders if (why := state(folder))]
    unfinished = {folder for folder, _ in left_out}
    groups: dict[str, dict[Any, Run]] = {}
    for run in (read(folder) for folder in folders if folder not in unfinished):
        group = groups.setdefault(run.configuration, {})
        same = group.setdefault(run.draw, run)
        if same is not run:  # a second look at one draw is no second draw
            left_out.append((run.folder, f"same configuration and seed as {same.folder}"))
    if not groups:
        why = f"{left_out[0][0]}: {left_out[0][1]}" if left_out else "no folder was given"
        raise RequestError(f"no finished run to compare ({why}{_more(len(left_out) - 1)})")
    runs = [sorted(group.values(), key=lambda run: _order(run.draw)) for group in groups.values()]
    rule = _rule([run for each in runs for run in each])
    together = [_configuration(label, each, rule) for label, each in zip(labels(runs), runs, strict=True)]
    together.sort(key=lambda one: (_rank(one.figure, rule), one.trained, one.label))
    return Ranked(together, left_out, rule)


def compared(folders: Sequence[Path]) -> Comparison:
    """The runs in these folders; what is not finished is listed and left out.

    Raises:
        RequestError: none is finished, or a file of one is broken.
    """
    found = ranked(folders)
    together = found.configurations
    pairs = [_pair(together, i, j) for i, j in _places(len(together))]
    raised = iter(holm([pair.found.p for pair in pairs if pair.found is not None]))
    pairs = [pair if pair.found is None else replace(pair, p=next(raised)) for pair in pairs]
    drawn = [{run.draw: (run.val, run.summary["images"].get("val")) for run in one.runs} for one in together]
    return Comparison(together, pairs, found.left_out, found.rule, all(each == drawn[0] for each in drawn))


def _places(configurations: int) -> Iterator[tuple[int, int]]:
    """The pairs that are tested, by their places."""
    among = min(configurations, EACH_OTHER)
    yield from combinations(range(among), 2)
    yield from ((0, place) for place in range(among, configurations))


def _rule(runs: Sequence[Run]) -> str:
    """What chooses between the runs: their own rule, or the default where they have several."""
    rules = {run.choose_by for run in runs}
    rule = rules.pop() if len(rules) == 1 else DEFAULT
    return rule if rule in RULES and all(run.validation(rule) is not None for run in runs) else DEFAULT


def _rank(figure: float, rule: str) -> float:
    """Lower is better."""
    return figure if rule == "val_loss" else -figure


def _configuration(label: str, runs: list[Run], rule: str) -> Configuration:
    accuracies = [run.accuracy for run in runs]
    interval, over = _interval(runs)
    several = runs if over == "runs and all images" else runs[:1]
    images = len({file for run in several for file in run.predicted.files})
    known = [run.reused for run in runs if run.reused is not None]
    return Configuration(
        label,
        runs,
        fmean(accuracies),
        stdev(accuracies) if len(runs) > 1 else None,
        interval,
        over,
        fmean(float(run.summary["val_accuracy"]) for run in runs),
        fmean(run.validation(rule) or 0.0 for run in runs),
        median(run.seconds for run in runs),
        max(run.trained for run in runs),
        fmean(known) if known else None,
        images,
    )


def _interval(runs: Sequence[Run]) -> tuple[tuple[float, float], str]:
    """The interval of a configuration's accuracy, and over what it is one."""
    if len(runs) == 1:
        low, high = runs[0].summary["test_accuracy_interval"]
        return (float(low), float(high)), "images"
    correct = [np.array(run.predicted.correct, dtype=np.float64) for run in runs]
    if all(run.same_images(runs[0]) for run in runs):
        found, over = of_the_same_images(np.stack(correct)), "runs and images"
    else:
        found = of_other_images(correct, _ratio(runs), [run.predicted.files for run in runs])
        over = "runs and all images"
    low, high = share_interval(found)
    return (float(low), float(high)), over


def _ratio(runs: Sequence[Run]) -> float:
    """Test images ÷ training images of a run."""
    return fmean(len(run.predicted.files) for run in runs) / fmean(run.summary["images"]["train"] for run in runs)


def _pair(together: Sequence[Configuration], i: int, j: int) -> Pair:
    first, second = together[i].runs, together[j].runs
    drawn = {run.draw: run for run in second}
    matched = [(run, drawn[run.draw]) for run in first if run.draw in drawn]
    # Where no seed is shared, seeds are as good as any to pair by: they are independent.
    matched = matched or list(zip(first, second, strict=False))
    matched = [(one, other) for one, other in matched if one.same_images(other)]
    if not matched:
        return Pair(i, j, [], None)
    leads = [lead(one, other) for one, other in matched]
    same_images = all(one.same_images(matched[0][0]) for one, _ in matched)
    ones = [one for one, _ in matched]
    files = [one.predicted.files for one in ones]
    return Pair(i, j, matched, difference(leads, same_images=same_images, ratio=_ratio(ones), files=files))


def _order(draw: tuple[Any, Any]) -> tuple[tuple[bool, float, str], ...]:
    """Numbers first, by size."""
    return tuple(
        (not isinstance(value, int), float(value) if isinstance(value, int) else 0.0, str(value)) for value in draw
    )


def _more(number: int) -> str:
    return f", and {number} more" if number > 0 else ""
