"""The page of a recommendation."""

from collections.abc import Mapping, Sequence
from typing import Any

from tlx.core.errors import shown
from tlx.recommendation.recommender import RankedCandidate
from tlx.reporting import html_pages
from tlx.reporting.scatter_chart import Point, scatter
from tlx.reporting.text_table import duration

__all__ = ["page"]


def page(
    ranked: Sequence[RankedCandidate],
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    summary: Mapping[str, Any],
    notes: Sequence[str],
) -> str:
    """The page, self-contained. `rows`: the cells of each candidate, as `head` names them."""
    low, high = summary["test_accuracy_interval"]
    points = [
        Point(
            str(place + 1), one.candidate.name, one.ms, one.judged.accuracy, one.judged.low, one.judged.high,
            "chosen" if place == 0 else "close" if one.same else "apart",
        )
        for place, one in enumerate(ranked)
    ]  # fmt: skip
    return html_pages.page(
        "recommendation.html",
        title=ranked[0].candidate.name,
        sentence=summary["reason"],
        measured=f"Test accuracy {summary['test_accuracy']:.1%} (95 % interval {low:.1%} to {high:.1%}), looked at for "
        "the chosen one alone.",
        facts=[
            ("time", f"{duration(summary['seconds'])} of {duration(summary['budget_seconds'])}"),
            ("train it again", shown(str(summary["command"]))),
            ("command", shown(str(summary["requested"]))),
            ("its run", str(summary["run"])),
        ],
        head=head,
        rows=[[[f"{place}  {row[0]}"], *([cell] for cell in row[1:])] for place, row in enumerate(rows, 1)],
        notes=notes,
        chart=scatter(points, "validation accuracy", "ms a prediction, logarithmic"),
    )
