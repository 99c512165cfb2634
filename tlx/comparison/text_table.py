"""A comparison as text: the table for a person, narrow or wide, and the CSV."""

import io
from collections.abc import Iterator, Sequence
from typing import Any

from tlx.comparison.comparison import EACH_OTHER, Comparison, Configuration, Pair
from tlx.comparison.flips import Flip
from tlx.comparison.paired_tests import Difference
from tlx.core.choose_by import RULES, shown
from tlx.core.csv_cells import Table
from tlx.core.errors import printable, unicode
from tlx.reporting.fitted_table import UNBROKEN, Column, fitted
from tlx.reporting.text_table import aligned, duration, near

COLUMNS = [
    *("configuration", "chosen", "runs", "test_accuracy", "low", "high", "sd", "val_accuracy", "seconds", "trainable"),
    *("cached", "difference", "difference_low", "difference_high", "p", "p_corrected", "folder"),
    # Beside what the contract of the file says: over what the interval is one, and which test p comes from.
    *("interval_over", "test_images", "method"),
]
LEFT_OUT = 20  # runs that are named
SHOWN = 30  # configurations that a terminal shows
WRAPPED = 20  # cells that a configuration's name and its difference to the chosen one are wrapped to
# The columns that a narrow table is without, those that matter least last.
LEAST = ("runs", *RULES, "sd", "time", "trainable parameters", "cache hits")


def text(comparison: Comparison, width: int | None = None) -> str:
    """The table, and below it how to read it and what was left out.

    `width`: of the screen, characters; where the table is wider, cells are wrapped and the columns of least importance
    are left out, and where that is not enough each configuration has lines of its own. Of more than `SHOWN`
    configurations it has the first by validation.
    """
    every = len(comparison.configurations)
    some = every if width is None else min(every, SHOWN)
    rows = [head(comparison), *(tuple(cells(comparison, place)) for place in range(some))]
    lines = [f"{line}  {row[-1]}" for line, row in zip(aligned([row[:-1] for row in rows], 1), rows, strict=True)]
    how = notes(comparison)
    if width is not None and max(map(len, lines)) > width:
        narrow = fitted(_columns(comparison, rows), width)
        lines, absent = (_stacked(rows), []) if narrow is None else narrow
        if absent:
            names = [column.name for column in absent]
            how = [line for line in how if line.partition(":")[0] not in names]
            how.append(f"not shown in {width} columns: {', '.join(names)}; a wider terminal or --csv has them")
    if some < every:
        how.append(f"the first {some} of {every:,} configurations by validation are shown; --csv and the page have all")
    more = [*chosen(comparison), *folders(comparison, some), *how, *left_out(comparison)]
    lines += ["" if lines[-1] else None, *more]  # type: ignore[list-item]
    return "\n".join(line for line in lines if line is not None)


def _stacked(rows: Sequence[Sequence[str]]) -> list[str]:
    """Each configuration in lines of its own."""
    lines, longest = list[str](), max(map(len, rows[0][1:]))
    for row in rows[1:]:
        lines += [row[0], *(f"  {name:<{longest}}  {cell}" for name, cell in zip(rows[0][1:], row[1:], strict=True))]
        lines.append("")
    return lines


def _columns(comparison: Comparison, rows: Sequence[Sequence[str]]) -> list[Column]:
    """The table by columns; over what an interval is one has a column of its own, which is left out first."""
    texts = dict(zip(rows[0], zip(*rows[1:], strict=True), strict=True))
    first, last = rows[0][0], rows[0][-1]
    split = [cell.partition(" over ") for cell in texts["95 % interval"]]
    stars = [marks(comparison)[one.interval_of] for one in comparison.configurations[: len(rows) - 1]]
    spans = [f"{span}{mark}" for (span, _, _), mark in zip(split, stars, strict=True)]
    columns = [Column(first, texts[first], wraps=WRAPPED, flush_left=True)]
    for name in rows[0][1:-1]:
        if name == "95 % interval":
            columns.append(Column(name, spans))
            columns.append(Column("interval over", [over for _, _, over in split], len(LEAST) + 1, flush_left=True))
        else:
            columns.append(Column(name, texts[name], LEAST.index(name) + 1 if name in LEAST else 0))
    differences = [cell.replace(", p ", f", p{UNBROKEN}") for cell in texts[last]]
    return [*columns, Column(last, differences, wraps=WRAPPED, flush_left=True)]


def head(comparison: Comparison) -> tuple[str, ...]:
    """The names of the table's columns."""
    figures = dict.fromkeys((comparison.rule, "val_accuracy"))
    columns = ("configuration", "test accuracy", "95 % interval", "sd", "runs", *figures, "time")
    return (*columns, "trainable parameters", "cache hits", "difference to the chosen")


def chosen(comparison: Comparison) -> list[str]:
    """Which configuration validation chooses, in a sentence; nothing where there is no choice."""
    if len(comparison.configurations) == 1:
        return []
    one = comparison.configurations[0]
    rough = "" if comparison.alike else "; not all have the same seeds and validation images: a rough choice"
    return [
        f"chosen by validation ({comparison.rule}): {printable(one.label)}, "
        f"test accuracy {one.mean:.1%} ({interval(one)}){rough}"
    ]


def folders(comparison: Comparison, most: int | None = None) -> list[str]:
    """Where each configuration's run lies (of the first `most`): of several seeds the one that validation chooses."""
    several = any(one.n > 1 for one in comparison.configurations)
    rows = [(printable(one.label), near(one.run(comparison.rule).folder)) for one in comparison.configurations[:most]]
    return [
        f"folder{' of the best seed by validation' if several else ''}:",
        *(f"  {line}" for line in aligned(rows, left=2)),
    ]


def cells(comparison: Comparison, place: int) -> Iterator[str]:
    """A configuration's row, by the columns of `head`."""
    one = comparison.configurations[place]
    yield printable(one.label)
    yield f"{one.mean:.1%}"
    yield interval(one) + marks(comparison)[one.interval_of]
    yield "-" if one.sd is None else f"{one.sd:.1%}"
    yield str(one.n)
    if comparison.rule != "val_accuracy":
        yield shown(one.figure, comparison.rule)
    yield f"{one.val_accuracy:.1%}"
    yield duration(one.seconds)
    yield f"{one.trained:,}"
    yield "-" if one.reused is None else f"{one.reused:.0%}"
    yield "chosen" if place == 0 else against(comparison.pair(0, place), place)


def interval(one: Configuration) -> str:
    """The 95 % interval, and over what it is one."""
    over = one.interval_of.removesuffix("images") + f"{one.test_images} images"
    return f"{one.interval[0]:.1%} to {one.interval[1]:.1%} over {over}"


def marks(comparison: Comparison) -> dict[str, str]:
    """What is behind an interval, by its kind: nothing for the most frequent one of the table, stars for others."""
    return {kind: f" {'*' * place}" if place else "" for place, kind in enumerate(comparison.kinds)}


def against(pair: Pair, seen_from: int) -> str:
    """One of the two against the other: the difference in points, p, and what can be said."""
    words = pair.words(seen_from)
    if pair.found is None or pair.p is None:
        return words
    return f"{points(pair.found, turned=seen_from != pair.first)}, p {p_value(pair.p)}, {words}"


def points(found: Difference, *, turned: bool = False) -> str:
    """A difference and its interval in percentage points; `turned`: the second's lead."""
    mean, low, high = (-found.mean, -found.high, -found.low) if turned else (found.mean, found.low, found.high)
    return f"{100 * mean + 0:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"


def p_value(p: float) -> str:
    """Two digits, or that it is small."""
    return "< 0.0001" if p < 0.0001 else f"{p:.2g}"


def notes(comparison: Comparison) -> list[str]:
    """How the table is to be read, as far as it applies."""
    found = [pair.found for pair in comparison.pairs if pair.found is not None]
    meanings = {"images": _over_images, "runs and images": _over_both, "runs and all images": _over_all_images}
    lines = []
    for kind, mark in marks(comparison).items():
        some = [one for one in comparison.configurations if one.interval_of == kind]
        lines.append(f"{mark.strip()}{' ' if mark else ''}95 % interval over {kind}: {meanings[kind](some)}")
    lines += ["time: of a run's data, features, training and evaluation, without starting and saving; the median run's"]
    lines += ["cache hits: share of the features that were read from an earlier run and not computed"]
    unscaled = [run for one in comparison.configurations for run in one.runs if not run.scaled]
    if comparison.rule == "val_loss" and 0 < len(unscaled) < sum(one.n for one in comparison.configurations):
        number = "one run" if len(unscaled) == 1 else f"{len(unscaled)} runs"
        lines += [f"val_loss: of {number} (of an earlier version) before the temperature, of the others after it"]
    if found:
        tests = f"{len(found)} paired tests" if len(found) > 1 else "one paired test"
        lines += [f"difference to the chosen: percentage points (95 % interval), p after Holm's correction for {tests}"]
    if any(each.runs == 1 for each in found):
        lines += ["one run each: McNemar's exact test compares these two models; seeds=5 compares configurations"]
    crossed = [each for each in found if each.runs > 1 and each.same_images]
    if crossed:
        few = "; two runs are few, take three seeds or more" if any(each.runs == 2 for each in crossed) else ""
        lines += [f"several runs: Student's t over seeds and test images, paired by both{few}"]
    if any(not each.same_images for each in found):
        lines += ["test images of their own in each run: t over runs, corrected for shared training images"]
    if len(comparison.configurations) > EACH_OTHER:
        lines += [
            f"of {len(comparison.configurations):,} configurations the first {EACH_OTHER} are tested against each "
            "other, the rest against the chosen one"
        ]
    if len(found) < len(comparison.pairs):
        lines += ["where the test images differ there is no paired test"]
    return lines


def _over_images(some: Sequence[Configuration]) -> str:
    return "Wilson, of the one run; other seeds are not in it"


def _over_both(some: Sequence[Configuration]) -> str:
    return f"the accuracy to expect of other {_draws(some)} and other images; Wilson, with the variance of both"


def _over_all_images(some: Sequence[Configuration]) -> str:
    twice = any(one.test_images < sum(len(run.predicted.files) for run in one.runs) for one in some)
    once = "; an image that several runs were tested on counts as one" if twice else ""
    return f"{_over_both(some)}, over the test images of all {_draws(some)} together{once}"


def _draws(some: Sequence[Configuration]) -> str:
    """What the runs of a configuration differ in."""
    draws = [run.draw for one in some for run in one.runs]
    names = [name for name, place in (("seeds", 0), ("folds", 1)) if len({draw[place] for draw in draws}) > 1]
    return " and ".join(names) or "runs"


def left_out(comparison: Comparison) -> list[str]:
    """What has no place in the comparison, and why."""
    some = comparison.left_out[:LEFT_OUT]
    lines = [printable(f"left out: {near(folder)}: {why}") for folder, why in some]
    rest = len(comparison.left_out) - len(some)
    return lines + ([f"left out: {rest} more"] if rest else [])


def flipped(flips: Sequence[Flip], names: tuple[str, str], found: Difference) -> str:
    """The images where two models disagree, one of them being correct; a line each."""
    won, lost = sum(flip.first > flip.second for flip in flips), sum(flip.first < flip.second for flip in flips)
    lines = [
        f"{won} of {found.images} test images are correct in the first only, {lost} in the second only: "
        f"{points(found)} points, p {p_value(found.p)} (McNemar's exact test)"
    ]
    rows = [("correct in", "label", "first predicts", "second predicts")]
    rows += [("first" if flip.first else "second", flip.label, *flip.said) for flip in flips]
    lines = [f"first:  {names[0]}", f"second: {names[1]}", *lines]
    if flips:
        files = ["file", *(flip.file for flip in flips)]
        table = aligned([tuple(map(printable, row)) for row in rows], 4)
        width = max(map(len, table))
        lines += ["", *(f"{line:<{width}}  {printable(file)}" for line, file in zip(table, files, strict=True))]
    return "\n".join(lines)


def table(comparison: Comparison) -> str:
    """`comparison.csv`: a row a configuration; shares are 0..1, times seconds, differences from the chosen one.

    Behind `COLUMNS` there is one for each further figure of the test images (`test_<name>`): its mean over the runs.
    """
    stream = io.StringIO()
    writer = Table(stream)
    columns, *found = rows(comparison)
    writer.row(columns)
    for row in found:
        writer.row(["" if cell is None else f"{cell:.6g}" if isinstance(cell, float) else cell for cell in row])
    return unicode(stream.getvalue())


def rows(comparison: Comparison) -> list[list[Any]]:
    """The rows of `comparison.csv` as values, the names of the columns first; None where there is no value."""
    means = [one.test_means for one in comparison.configurations]
    further = [name for name in dict.fromkeys(name for each in means for name in each) if name not in COLUMNS]
    found: list[list[Any]] = [[*COLUMNS, *further]]
    for place, one in enumerate(comparison.configurations):
        pair = comparison.pair(0, place) if place else None
        against = None if pair is None else pair.found
        difference: list[float | None] = [None] * 5
        if pair is not None and against is not None:
            difference = [0.0 - against.mean, 0.0 - against.high, 0.0 - against.low, against.p, pair.p]
        cells = [one.label, int(place == 0), one.n, one.mean, *one.interval, one.sd, one.val_accuracy, one.seconds]
        cells += [one.trained, one.reused, *difference, near(one.run(comparison.rule).folder)]
        cells += [one.interval_of, one.test_images, None if against is None else against.method]
        found.append([*cells, *map(means[place].get, further)])
    return found
