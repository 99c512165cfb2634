"""What a person sees: the plan before a run, where it stands while it goes on, and what it found.

Progress goes to stderr: on a terminal a live line (`screen`) that reads the trainer's `Progress` a few times a second
(the trainer knows nothing of it), elsewhere one plain line an epoch. Results go to stdout.
"""

import logging
import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from tlx.core import activity
from tlx.core.choose_by import RULES
from tlx.core.errors import lookalikes, printable
from tlx.core.metric import of_summary
from tlx.reporting.figures_in_words import TOGETHER, worth
from tlx.reporting.line_width import cells
from tlx.reporting.log_lines import HANDLER, lines
from tlx.reporting.screen import live
from tlx.reporting.text_table import aligned, duration, near

LONG = 3  # so many frozen stages in a row are one line of the plan
SHOWN = 0.01  # of a run's time, from which a part of it is named
MOST = 20  # classes in the closing table
# Of an epoch: what is left out first.
LEAST = ("rate", "lr", "l2", "train_loss", "seconds", *RULES[2:], "phase", "val_loss")
log = logging.getLogger("tlx")


class ShownProgress(Protocol):
    """Where a run stands: plain values that are read from another thread."""

    batch: int
    batches: int
    loss: Any  # number or 0-d tensor, nats
    images_per_second: float

    @property
    def phase(self) -> str:
        """The name of the phase."""

    @property
    def epoch(self) -> int:
        """Epochs done, over all phases."""

    @property
    def epochs(self) -> int:
        """Epochs planned."""

    @property
    def val_accuracy(self) -> float:
        """Of the last epoch, 0..1."""

    @property
    def best_epoch(self) -> int:
        """The best one; 0: none yet."""

    @property
    def eta(self) -> float:
        """Seconds left; NaN where unknown."""


class ShownSummary(Protocol):
    """What is known about a run, as `summary.json` has it; filled while the run goes on."""

    folder: Path
    accuracy_before_training: float | None
    val_accuracy: float | None
    best_epoch: int | None
    choose_by: str
    epochs: int
    seconds: dict[str, float]
    images_per_second: float | None
    images: dict[str, int]
    splits: dict[str, str]
    notes: list[str]
    copies: dict[str, Any]
    classes: list[str]
    skipped: list[list[str]]
    precision: str
    device: str
    per_class: dict[str, dict[str, float]]
    mlflow_run_id: str
    refit: dict[str, Any]
    calibration: dict[str, Any]


class Display:
    """Shows a run while the block lasts; what stays is logged, and comes to the screen by that way alone.

    Args:
        progress: read from another thread, never written.
        summary: what is known before training: images, classes, device, precision, folder.
        plan: a mapping a phase, as `plan.json` has it.
    """

    def __init__(self, progress: ShownProgress, summary: ShownSummary, plan: Sequence[Mapping[str, Any]]) -> None:
        self.progress, self.summary, self.plan = progress, summary, plan
        self._within = ExitStack()

    def __enter__(self) -> "Display":
        self._within.enter_context(lines())
        if HANDLER.level == logging.INFO:
            self._within.enter_context(live())
        self._within.enter_context(activity.doing(self.now))
        for line in (*opening(self.summary), *(line for phase in self.plan for line in plan_lines(phase))):
            log.info("%s", line)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._within.close()

    def row(self, row: Mapping[str, Any]) -> None:
        """Shows a finished epoch."""
        line = partial(epoch_line, row, self.progress.epochs, best=self.progress.best_epoch == row["epoch"])
        log.info("%s", line(), extra={"fitting": line})

    def now(self) -> activity.State:
        """What is going on, how long still, how good, how fast; and the share done, None where that is not known."""
        now = self.progress
        if not now.batches or now.epoch >= now.epochs:
            return activity.State(("measuring" if now.epochs and now.epoch >= now.epochs else "preparing",))
        loss = float(now.loss)
        facts = [f"{now.phase}: epoch {min(now.epoch + 1, now.epochs)} of {now.epochs}"]
        facts += [f"{duration(now.eta)} left"] if not math.isnan(now.eta) else []
        facts += [f"val_accuracy {now.val_accuracy:.1%}"] if not math.isnan(now.val_accuracy) else []
        facts += [f"batch {now.batch} of {now.batches}"]
        facts += [f"loss {loss:.4f}"] if not math.isnan(loss) else []
        facts += [f"{now.images_per_second:.0f} images/s"] if not math.isnan(now.images_per_second) else []
        return activity.State(facts, min((now.epoch + now.batch / now.batches) / now.epochs, 1.0), now.eta)


def opening(summary: ShownSummary) -> Iterator[str]:
    """What is about to happen: data, device, and what was left out of the data."""
    classes = _some([printable(str(c)) for c in summary.classes], 6)
    yield f"images: {counted(summary.images, summary.splits)}; {len(summary.classes)} classes: {classes}"
    yield from summary.notes
    yield from doubts(summary.classes, summary.copies)
    if summary.skipped:
        names = _some([f"{path} ({reason})" for path, reason in summary.skipped], 3)
        yield f"skipped: {_files(summary.skipped)}: {names}"
    yield f"device: {summary.device}, {summary.precision}; folder: {near(summary.folder)}"


def doubts(classes: Sequence[str], copies: Mapping[str, Any]) -> Iterator[str]:
    """What looks wrong with the data: names of classes that look alike, and images that are there more than once."""
    if same := [" and ".join(map(repr, names)) for names in lookalikes(map(str, classes))]:
        yield (
            f"classes: {_some(same, 3)} differ only in case, spaces or invisible characters; if they are one "
            "class, put their images into one folder"
        )
    yield from copies.get("lines", ())


def counted(images: Mapping[str, int], splits: Mapping[str, str]) -> str:
    """How many images each split has, and where they come from: `195 train (train/), 49 val (created from train/)`."""
    return ", ".join(
        f"{number} {split}{f' ({splits[split]})' if split in splits else ''}" for split, number in images.items()
    )


def plan_lines(phase: Mapping[str, Any]) -> list[str]:
    """A phase of `plan.json` as aligned lines."""
    lines = aligned(plan_rows(phase), left=1)
    return [f"phase {phase['phase']}: {plan_share(phase)}", *(f"  {line}" for line in lines)]


def plan_rows(phase: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """The stages of a phase as a table with a head; many frozen stages in a row are one line."""
    stages = list(phase["stages"])
    rows = [("stage", "parameters", "trainable", "lr")]
    i = 0
    while i < len(stages):
        run = i
        while run < len(stages) and stages[run]["frozen"]:
            run += 1
        if run - i > LONG:
            together = f"{stages[i]['stage']} … {stages[run - 1]['stage']} ({run - i} stages)"
            rows.append((together, f"{sum(s['parameters'] for s in stages[i:run]):,}", "frozen", ""))
            i = run
            continue
        stage = stages[i]
        trainable = "frozen" if stage["frozen"] else f"{stage['learns']:,}" if stage["learns"] else "statistics"
        rows.append((stage["stage"], f"{stage['parameters']:,}", trainable, _lr(stage["lr"])))
        i += 1
    return rows


def plan_share(phase: Mapping[str, Any]) -> str:
    """How much of the network a phase trains, and for how long."""
    total, learns = (sum(stage[key] for stage in phase["stages"]) for key in ("parameters", "learns"))
    share = f"{learns:,} of {total:,} parameters trainable"
    if phase.get("min_steps"):
        share = f"{phase['epochs']} epochs, at least {phase['min_steps']} steps; {share}"
    if phase.get("refit"):
        share += ", and again from the start on train and val images, for as many epochs as validation chooses"
    return share


def epoch_line(
    row: Mapping[str, Any], epochs: int | None = None, most: int | None = None, *, best: bool = False
) -> str:
    """An epoch in one line; `best` marks the best one so far by the figure that chooses.

    `most`: cells that there are; what matters least is left out, and is in `metrics.jsonl`.
    """
    of = f"/{epochs}" if epochs else ""
    facts = {
        "epoch": f"epoch {row['epoch']:>{len(str(epochs or ''))}}{of}",
        "phase": f"{row['phase']}",
        "train_loss": f"train_loss {row['train_loss']:.4f}",
    }
    if "val_loss" in row:
        facts |= {
            "val_loss": f"val_loss {row['val_loss']:.4f}",
            "val_accuracy": f"val_accuracy {row['val_accuracy']:6.1%}",
        }
    facts |= {name: f"{name} {row[name]:6.1%}" for name in RULES[2:] if name in row}
    facts |= {name: f"{name} {_lr(row[name])}" for name in ("lr", "l2") if name in row}
    facts |= {"rate": f"{row['images_per_second']:.0f} images/s"}
    facts |= {"seconds": f"{row['seconds']:.1f} s", **({"best": "best"} if best else {})}
    for name in LEAST:
        if most is None or cells("  ".join(facts.values())) <= most:
            break
        facts.pop(name, None)
    return "  ".join(facts.values())


def closing(summary: ShownSummary, file: Any = None) -> None:
    """Prints what a finished run found, on stdout: a table on a terminal, aligned text elsewhere."""
    facts = list(facts_of(summary))
    classes: list[tuple[str, ...]] = [("class", "images", "precision", "recall", "F1")]
    ranked = sorted(summary.per_class.items(), key=lambda item: item[1]["f1"])
    shown = ranked[:MOST] if len(ranked) > MOST else list(summary.per_class.items())
    for name, of in shown:
        figures = [f"{of[key]:.3f}" if of["images"] else "-" for key in ("precision", "recall", "f1")]
        classes.append((printable(name), f"{of['images']:.0f}", *figures))
    note = f"the {MOST} classes of {len(ranked)} with the lowest F1" if len(ranked) > MOST else ""
    if (file or sys.stdout).isatty():
        from tlx.reporting.rich_console import tables

        tables(facts, classes, note, file or sys.stdout)
        return
    lines = aligned(facts, left=2)
    if len(classes) > 1:
        lines += ["", *aligned(classes, left=1), *([note] if note else [])]
    print("\n".join(lines), file=file or sys.stdout)


def facts_of(summary: ShownSummary) -> Iterator[tuple[str, str]]:
    """What a run found, as (name, text)."""
    for metric in of_summary(vars(summary)):
        if metric.split == "test" and metric.name not in TOGETHER:
            yield metric.key.replace("_", " "), metric.shown(summary.images.get(metric.split, 0))
    yield from worth(vars(summary))
    if absent := [printable(name) for name, of in summary.per_class.items() if not of["images"]]:
        yield "no test image of", f"{_some(absent, 6)} ({len(absent)} of {len(summary.per_class)} classes)"
    if summary.accuracy_before_training is not None:
        yield "untrained head", f"{summary.accuracy_before_training:.1%}"
    if summary.val_accuracy is not None:
        best = f"best epoch {summary.best_epoch} of {summary.epochs}, by {summary.choose_by}"
        yield "validation", f"{summary.val_accuracy:.1%}  ({best})"
    if summary.refit:
        lasts = ", ".join(f"{phase} {number}" for phase, number in summary.refit["epochs"].items())
        yield "refit", f"the model is trained on all {summary.refit['images']} train and val images; epochs: {lasts}"
    if "total" in summary.seconds:
        total = summary.seconds["total"]
        shown = {part: s for part, s in summary.seconds.items() if part != "total" and s >= SHOWN * total}
        parts = ", ".join(f"{part} {duration(s)}" for part, s in shown.items())
        yield "time", f"{duration(total)}  ({parts})"
    if summary.images_per_second is not None:
        yield "training", f"{summary.images_per_second:,.0f} images/s on {summary.device}, {summary.precision}"
    if summary.skipped:
        yield "skipped", f"{_files(summary.skipped)}, listed in summary.json"
    if summary.mlflow_run_id:
        yield "MLflow run", summary.mlflow_run_id
    yield "folder", near(summary.folder)


def _lr(value: float | str | None) -> str:
    return "" if value is None else value if isinstance(value, str) else f"{value:.3g}"


def _files(skipped: Sequence[Sequence[str]]) -> str:
    """How many files and folders were left out: `1 file`, `2 files and 1 folder`."""
    folders = sum(os.path.isdir(path) for path, *_ in skipped)
    counts = {"file": len(skipped) - folders, "folder": folders}
    return " and ".join(f"{n} {what}{'' if n == 1 else 's'}" for what, n in counts.items() if n)


def _some(names: Sequence[str], most: int) -> str:
    return ", ".join(names[:most]) + (f", … ({len(names) - most} more)" if len(names) > most else "")
