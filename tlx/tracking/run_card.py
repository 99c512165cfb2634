"""A run's description in MLflow's list of runs."""

from collections.abc import Mapping
from typing import Any


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
