"""What a search has found: a table of the best, `search.csv` and `search.png`."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tlx.core.atomic_files import atomic
from tlx.core.choose_by import shown
from tlx.core.csv_cells import Table
from tlx.reporting.text_table import aligned, duration
from tlx.search.search_space import Axis

BEST = 5  # trials in the table
PANELS = 4  # axes in the picture
DONE, OTHER, TOP = "#1f5fa8", "#9aa4ab", "#2b7a3d"


@dataclass(frozen=True)
class TrialResult:
    """What is known about a trial."""

    number: int
    status: str  # finished | pruned | failed | running
    score: float | None  # of a finished one
    values: tuple[str, ...]
    facts: Mapping[str, Any]  # val_accuracy, val_loss, what chooses, epochs, seconds, folder, error


def ranked(found: Sequence[TrialResult]) -> list[TrialResult]:
    """The finished trials, best first; of equals the first."""
    return sorted((one for one in found if one.score is not None), key=lambda one: (-(one.score or 0.0), one.number))


def show(found: Sequence[TrialResult], axes: Sequence[Axis], folder: Path, rule: str) -> TrialResult:
    """Prints the best trials by `rule`, and the test accuracy of the chosen one; that one."""
    order, names = ranked(found), figures_of(rule)
    rows = [("trial", *names, "epochs", "time", *(axis.key for axis in axes))]
    for one in order[:BEST]:
        facts = one.facts
        figures = [*(shown(facts[name], name) for name in names), str(facts["epochs"])]
        rows.append((str(one.number), *figures, duration(facts["seconds"]), *one.values))
    print("\n".join(aligned(rows, left=0)))
    best = order[0]
    file = folder / best.facts["folder"] / "summary.json"
    if file.is_file():
        summary = json.loads(file.read_text(encoding="utf-8"))
        low, high = summary["test_accuracy_interval"]
        among = f"; the validation metric of the best of {len(found)} is too optimistic" if len(found) > 1 else ""
        print(
            f"\nchosen by validation ({rule}): trial {best.number}, test accuracy {summary['test_accuracy']:.1%} "
            f"(95 % interval {low:.1%} to {high:.1%}, {summary['images']['test']} images){among}"
        )
        print(f"folder: {file.parent}")
    return best


def figures_of(rule: str) -> list[str]:
    """The figures of the validation images that are shown of a trial, the one that chooses first."""
    return list(dict.fromkeys((rule, "val_loss", "val_accuracy")))


def write(found: Sequence[TrialResult], axes: Sequence[Axis], folder: Path, rule: str) -> list[Path]:
    """Writes `search.csv`, a line a trial, and `search.png`; their paths."""
    table, picture = folder / "search.csv", folder / "search.png"
    names = [*dict.fromkeys(("val_accuracy", "val_loss", rule)), "epochs", "seconds", "folder", "error"]
    with atomic(table) as path, path.open("w", encoding="utf-8", newline="") as stream:
        lines = Table(stream)
        lines.row(["trial", "status", *(axis.key for axis in axes), *names])
        for one in found:
            lines.row([one.number, one.status, *one.values, *(one.facts.get(name, "") for name in names)])
    _picture(found, axes, picture, rule)
    return [table, picture]


def _picture(found: Sequence[TrialResult], axes: Sequence[Axis], path: Path, rule: str) -> None:
    """What chooses, over the trials and over the values of the first axes."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    measured = [one for one in found if rule in one.facts]
    done, others = [one for one in measured if one.score is not None], [one for one in measured if one.score is None]
    groups: list[tuple[list[TrialResult], dict[str, Any]]] = [
        (others, {"facecolors": "none", "edgecolors": OTHER, "label": "pruned or failed"}),
        (done, {"color": DONE, "alpha": 0.75, "linewidths": 0, "label": "finished"}),
        (ranked(found)[:1], {"color": TOP, "s": 130, "marker": "*", "zorder": 3, "label": "best"}),
    ]
    figures = [one.facts[rule] for one in measured]
    spread = max(figures, default=1.0) - min(figures, default=0.0)
    figure = Figure(figsize=(10, 6.4), layout="constrained")
    above, below = figure.subfigures(2, 1, squeeze=False, height_ratios=(1.15, 1))[:, 0]
    first = above.subplots(1, 1)
    title = "val_loss (nats, lower is better)" if rule == "val_loss" else rule
    if done:
        best = [ranked(done[: i + 1])[0].facts[rule] for i in range(len(done))]
        numbers = [one.number for one in done]
        first.step(numbers, best, where="post", color=DONE, alpha=0.4, label="best so far")
    shown = axes[:PANELS]
    panels = below.subplots(1, len(shown), sharey=True, squeeze=False)[0]
    for group, style in groups:
        if not group:
            continue
        heights = [one.facts[rule] for one in group]
        first.scatter([one.number for one in group], heights, **style)
        for i, (axis, panel) in enumerate(zip(shown, panels, strict=True)):
            texts = [one.values[i] for one in group]
            where = [axis.choices.index(text) if axis.choices else float(text) for text in texts]
            panel.scatter(where, heights, **style)
    for panel in (first, *panels):
        panel.grid(alpha=0.25)
        panel.spines[["top", "right"]].set_visible(False)
        if rule != "val_loss":
            panel.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0 if spread > 0.06 else 1))
        panel.yaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))
        panel.margins(y=0.12)
    first.set(xlabel="trial", ylabel=title)
    first.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    first.legend(frameon=False, loc="lower right", bbox_to_anchor=(1, 1), ncols=4)
    panels[0].set_ylabel(title)
    for axis, panel in zip(shown, panels, strict=True):
        panel.set_xlabel(axis.key)
        if axis.choices:
            panel.set_xticks(range(len(axis.choices)), axis.choices)
            panel.set_xlim(-0.5, len(axis.choices) - 0.5)
        elif axis.log:
            panel.set_xscale("log")
    with atomic(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")
