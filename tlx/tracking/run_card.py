"""The description of a run or a sweep in MLflow's list of runs.

The process that writes to MLflow reads it: of tlx it imports `core` alone.
"""

from collections.abc import Mapping
from typing import Any

from tlx.core.choose_by import shown

BARS = "accuracies.png"  # a sweep's picture: a bar a configuration
RUN_ID = "{run_id}"  # in a description: where MLflow's id of the run is to be
MOST = 20  # configurations of a sweep that its description lists


def card(summary: Mapping[str, Any]) -> str:
    """A run's description, in Markdown; `summary` as `summary.json` has it."""
    lines = []
    if summary.get("test_accuracy") is not None:
        low, high = summary["test_accuracy_interval"]
        lines.append(f"**Test accuracy {summary['test_accuracy']:.1%}** (95 % interval {low:.1%} to {high:.1%})")
    if summary.get("accuracy_before_training") is not None:
        lines[-1:] = [
            f"{lines[-1] + ', ' if lines else ''}{summary['accuracy_before_training']:.1%} with an untrained head"
        ]
    if summary.get("error"):
        lines += ["", f"{summary['status']}: {summary['error']}"]
    if summary.get("not_converged"):
        lines += ["", str(summary["not_converged"])]
    images = ", ".join(f"{number} {part}" for part, number in summary.get("images", {}).items())
    classes = list(summary.get("classes", []))
    named = ", ".join(classes[:10]) + (" …" if len(classes) > 10 else "")
    by = f", by {summary['choose_by']}" if summary.get("choose_by") else ""
    facts = [
        ("images", images),
        ("classes", f"{len(classes)}: {named}" if classes else ""),
        ("best epoch", f"{summary['best_epoch']} of {summary['epochs']}{by}" if summary.get("best_epoch") else ""),
        ("refit", f"on all {summary['refit']['images']} train and val images" if summary.get("refit") else ""),
        ("ran on", f"{summary.get('device', '')}, {summary.get('precision', '')}".strip(", ")),
        ("folder", f"`{summary['folder']}`" if summary.get("folder") else ""),
    ]
    lines += ["", *(f"- {name}: {value}" for name, value in facts if value)]
    if summary.get("command"):
        lines += ["", "```", str(summary["command"]), "```"]
    return "\n".join(lines).strip() + "\n"


def sweep_card(book: Mapping[str, Any], *, picture: bool) -> str:
    """A sweep's description, in Markdown: the chosen configuration, the picture, a table; "" where nothing is finished.

    `book`: as its own file has it. `picture`: whether there is one.
    """
    ranking, rule = book.get("ranking", []), book.get("choose_by", "")
    if not ranking:
        return ""
    first = ranking[0]
    head = f"**{_cell(first['configuration'])}: test accuracy {_accuracy(first)}**"
    lines = [f"{head}, chosen by {rule} of {len(ranking)} configurations" if len(ranking) > 1 else head, ""]
    if picture:
        lines += [f"![test accuracies](get-artifact?path=plots/{BARS}&run_uuid={RUN_ID})", ""]
    lines += ["| configuration | test accuracy | validation accuracy | runs |", "|---|---|---|---|"]
    for one in ranking[:MOST]:
        cells = (_cell(one["configuration"]), _accuracy(one), shown(one["val_accuracy"], "val_accuracy"), one["runs"])
        lines.append(f"| {' | '.join(map(str, cells))} |")
    if len(ranking) > MOST:
        lines += ["", f"and {len(ranking) - MOST} more, in comparison.csv"]
    if book.get("command"):
        lines += ["", "```", str(book["command"]), "```"]
    return "\n".join(lines) + "\n"


def _accuracy(one: Mapping[str, Any]) -> str:
    return f"{one['test_accuracy']:.1%} (95 % interval {one['low']:.1%} to {one['high']:.1%})"


def _cell(text: str) -> str:
    """A text in a cell of a table of Markdown."""
    return text.replace("|", "\\|").replace("*", "\\*")[:120]
