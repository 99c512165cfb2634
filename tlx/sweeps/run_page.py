"""All that is said of one run beside its figures: how it stands, what it was, which files it has."""

import contextlib
import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from tlx.core.disk_size import bytes_of, size
from tlx.core.errors import printable, shown
from tlx.reporting.run_display import counted, plan_lines
from tlx.reporting.text_table import aligned, near
from tlx.sweeps.run_list import ListedRun
from tlx.tracking import run_facts
from tlx.training.checkpoint import FILE as CHECKPOINT

__all__ = ["about"]
MOST = 10  # classes that are named


def about(run: ListedRun) -> list[str]:
    """How the run stands, what was typed and chosen, its images, its phases and its files, as lines."""
    lines = aligned([(name, printable(text)) for name, text in _facts(run)], left=2)
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # it may have stopped before its plan
        for phase in json.loads((run.folder / "plan.json").read_text(encoding="utf-8")):
            lines += ["", *plan_lines(phase)]
    files = [(file.name + ("/" if file.is_dir() else ""), size(bytes_of(file))) for file in _files(run.folder)]
    return [*lines, "", *aligned([("file", "size"), *files], left=1), ""]


def _facts(run: ListedRun) -> Iterator[tuple[str, str]]:
    summary = run.summary
    error = summary.get("error")
    yield "status", f"{run.status}{f': {error}' if error else ''}"
    if run.status != "running" and (run.folder / CHECKPOINT).exists() and not run.sweep:
        yield "", f"to resume: python -m tlx resume {near(run.folder)}"
    if run.began:
        ended = run_facts.facts(run.folder).get("ended")
        until = f"  (ended {_moment(ended)})" if isinstance(ended, int | float) else ""
        yield "began", f"{_moment(run.began)}{until}"
    if summary.get("command"):
        yield "command", shown(str(summary["command"]))
    if run.choices:
        yield "choices", " ".join(f"{group}={choice}" for group, choice in run.choices.items())
    if run.sweep:
        yield "sweep", run.sweep
    if summary.get("source"):
        yield "source task", str(summary["source"])
    if isinstance(images := summary.get("images"), dict) and images:
        yield "images", counted(images, summary.get("splits") or {})
    if classes := summary.get("classes"):
        more = f", … ({len(classes) - MOST} more)" if len(classes) > MOST else ""
        yield "classes", f"{len(classes)}: {', '.join(map(str, classes[:MOST]))}{more}"
    for note in [*_texts(summary.get("notes")), *_texts([summary.get("not_converged")])]:
        yield "note", note


def _texts(found: Any) -> list[str]:
    return [str(one) for one in found or () if one]


def _moment(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds):%Y-%m-%d %H:%M:%S}"


def _files(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
