"""The answer of a recommendation: in its folder as summary, model and page, and as a table for a person."""

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlx.core.atomic_files import atomic
from tlx.core.choose_by import DEFAULT
from tlx.core.errors import shown, unicode
from tlx.recommendation import answer_page
from tlx.recommendation.recommender import RankedCandidate, Recommender
from tlx.reporting.text_table import aligned, duration, near
from tlx.runs.run_summary import Summary

if TYPE_CHECKING:
    from tlx.recommendation.journal import Step

__all__ = ["HEAD", "Answer", "cells", "write"]
HEAD = ("candidate", "accuracy", "95 % interval", "training", "a prediction", "size", "against the chosen")


@dataclass(frozen=True)
class Answer:
    """What was found.

    Attributes:
        folder: of the recommendation.
        run: the folder of the chosen run.
        summary: as `summary.json` has it.
        lines: for a person: the table, the choice and its reason, what comes next.
    """

    folder: Path
    run: Path
    summary: Mapping[str, Any]
    lines: Sequence[str]

    @property
    def choice(self) -> list[str]:
        """The overrides of the chosen candidate."""
        return list(self.summary["choice"])

    def __str__(self) -> str:
        return "\n".join(self.lines)

    def __repr__(self) -> str:
        return f"<recommendation {' '.join(self.choice)}, {near(self.folder)}>"


def write(
    work: Recommender, ranked: Sequence[RankedCandidate], final: "Step", command: str, widening: Sequence[str]
) -> Answer:
    """Writes the files of a recommendation, each whole; the summary last, for it says that all are there."""
    folder, run = work.folder, work.folder / final["folder"]
    found = Summary.of(run, json.loads((run / "summary.json").read_text(encoding="utf-8")))
    spent = work.journal.spent
    summary = {
        "choice": final["overrides"],
        "reason": sentence(ranked),
        "ranking": [_row(work, one) for one in ranked],
        "test_accuracy": found.test_accuracy,
        "test_accuracy_interval": found.test_accuracy_interval,
        "seconds": round(spent, 1),
        "budget_seconds": work.request.seconds,
        "not_tried": sorted(set(work.steps.left_out)),
        "refused": work.refused,
        "run": final["folder"],
        "command": final["command"],
        "requested": command,
        "choose_by": work.trials.rule,
        "status": "finished",
    }
    with atomic(folder / "model") as copy:
        shutil.copytree(run / "model", copy, copy_function=_linked)
    notes = [*_notes(work, ranked), *widening]
    page = answer_page.page(ranked, HEAD, [cells(one, place) for place, one in enumerate(ranked)], summary, notes)
    with atomic(folder / "report.html") as file:
        file.write_text(unicode(page), encoding="utf-8")
    with atomic(folder / "summary.json") as file:
        file.write_text(json.dumps(summary, indent=1, ensure_ascii=False), encoding="utf-8")
    return Answer(folder, run, summary, list(_lines(ranked, summary, notes, folder)))


def cells(one: RankedCandidate, place: int) -> list[str]:
    """A row of the table."""
    against = "chosen" if place == 0 else "not distinguishable" if one.same else "worse beyond chance"
    judged = one.judged
    return [
        one.candidate.name,
        f"{judged.accuracy:.1%}",
        f"{judged.low:.1%} to {judged.high:.1%}",
        duration(one.seconds),
        f"{one.ms:.1f} ms",
        f"{one.mb:.1f} MB",
        against,
    ]


def sentence(ranked: Sequence[RankedCandidate]) -> str:
    """The choice and its reason."""
    best, others = ranked[0], ranked[1:]
    name = f"{best.candidate.member.name} with {best.candidate.strategy.name}"
    if not others:
        return f"{name}: there was nothing to compare it with in this time"
    worse = sum(not one.same for one in others)
    same = [one for one in others if one.same]
    reason = f"best of {len(ranked)} candidates by validation ({best.judged.accuracy:.1%})"
    if worse:
        reason += f", {worse} of them worse beyond chance"
    if same:
        names = ", ".join(one.candidate.name for one in same[:3])
        reason += f"; not distinguishable from {names}{', …' if len(same) > 3 else ''}"
        faster = min(same, key=lambda one: one.ms)
        if faster.ms < 0.7 * best.ms:
            reason += f", of which {faster.candidate.member.name} predicts {best.ms / faster.ms:.1f} times as fast"
    return f"{name}: {reason}"


def _row(work: Recommender, one: RankedCandidate) -> dict[str, Any]:
    judged = one.judged
    return {
        "overrides": list(work.planned(one).overrides),
        "name": one.candidate.name,
        "val_accuracy": judged.accuracy,
        "low": judged.low,
        "high": judged.high,
        "score": judged.score,
        "images": one.images,
        "knn_accuracy": one.knn,
        "seconds": round(one.seconds, 2),
        "parameters": one.parameters,
        "mb": one.mb,
        "ms_per_image": one.ms,
        "distinguishable": not one.same,
    }


def _notes(work: Recommender, ranked: Sequence[RankedCandidate]) -> list[str]:
    notes = []
    if work.trials.rule == DEFAULT:
        notes.append("chosen by validation log loss after the temperature; the accuracy is shown for people")
    if skipped := [
        name for name in dict.fromkeys(work.steps.left_out) if not name.startswith(("cost", "measure", "audit"))
    ]:
        some = ", ".join(skipped[:4]) + (", …" if len(skipped) > 4 else "")
        notes.append(f"no time was left for: {some}; more --minutes only adds")
    return notes + [f"{name}: left out: {why}" for name, why in work.refused.items()]


def _lines(
    ranked: Sequence[RankedCandidate], summary: Mapping[str, Any], notes: Sequence[str], folder: Path
) -> Iterator[str]:
    rows = [HEAD, *(cells(one, place) for place, one in enumerate(ranked))]
    yield from aligned([[row[0], row[-1], *row[1:-1]] for row in rows], left=2)
    yield ""
    yield f"chosen: {summary['reason']}"
    low, high = summary["test_accuracy_interval"]
    accuracy = summary["test_accuracy"]
    yield f"test accuracy {accuracy:.1%} (95 % interval {low:.1%} to {high:.1%}), looked at for the chosen one alone"
    yield from notes
    spent, budget = duration(summary["seconds"]), duration(summary["budget_seconds"])
    yield f"time: {spent} of {budget}; page: {near(folder / 'report.html')}"
    yield f"train it again: {shown(summary['command'])}"


def _linked(source: str, target: str) -> None:
    """A second name of a file, or a copy where the disk has none."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
