"""The best values of some keys by validation, in a study that can be resumed."""

import hashlib
import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tlx.config.command_line import command
from tlx.config.identity import key, results
from tlx.config.unread_keys import refuse
from tlx.core import activity
from tlx.core.atomic_files import unwritable
from tlx.core.choose_by import score, shown
from tlx.core.errors import Diverged, Pruned, RequestError, said
from tlx.core.metric import of_summary
from tlx.core.trees import flat
from tlx.reporting.line_width import width
from tlx.reporting.run_display import epoch_line
from tlx.reporting.text_table import duration
from tlx.runs import output_layout
from tlx.runs.run_name import run_name
from tlx.search import search_space, trial_report
from tlx.search.optuna_study import FILE, SearchTrial, Study
from tlx.sweeps import sweep, sweep_manifest, sweep_summary
from tlx.sweeps.sweep_plan import Planned, single
from tlx.sweeps.sweep_progress import SweepProgress
from tlx.tracking import tracker

THROUGH = ("finished", "pruned")
IN_A_ROW = 3  # failures one after the other end the search: the next trial would fail, too


class Search:
    """A command line, checked, with the study and the sweep that it means.

    Raises:
        RequestError: a space that cannot be searched, or another search under this name.
    """

    def __init__(self, overrides: Sequence[str], trials: int, config_dir: str | None) -> None:
        self.trials, self.config_dir = trials, config_dir
        fixed, self.axes = search_space.read(overrides)
        self.fixed = [override for override in fixed if not override.startswith("sweep.name=")]
        first, folder = self._checked(fixed)
        requested = {**dict(flat(results(first.config))), **search_space.described(self.axes)}
        name = first.config.sweep.name
        if name is None:
            name = f"search-{hashlib.sha256(json.dumps(requested, default=str).encode()).hexdigest()[:8]}"
            first, folder = single([*first.overrides, f"sweep.name={name}"], config_dir)
        if (folder / sweep_manifest.FILE).is_file() and not (folder / FILE).is_file():
            raise RequestError(f"sweep.name={name}: holds a sweep that is no search; take another name")
        tracker.open(first.config.tracking, output_layout.output(first.config))  # a wrong address leaves nothing behind
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unwritable(folder, error) from error

        def plan(point: Sequence[str]) -> Planned:
            return replace(single([*self.fixed, *point], config_dir)[0], name=" ".join(point))

        self.study = Study(folder, self.axes, requested, first.config.seed, plan, first.config.evaluation.choose_by)
        self._same_images(folder)
        flags = ["--trials", str(trials)]
        typed = command(["search", *overrides, *flags], config_dir)
        self.whole = sweep.open_sweep([first], folder, typed, config_dir, growing=True)
        for axis in self.axes:
            print(f"search {axis.key}: {axis}", file=sys.stderr)

    def run(self) -> str:
        """Runs what is missing; why it gave up, if it did.

        Raises:
            RequestError: a trial's, where none has worked so far.
        """
        failures, progress = 0, SweepProgress("trial", self.trials)
        while (trial := self.study.next(self.trials)) is not None:
            through = sum(one.status in THROUGH for one in self.study.found())
            head = f"trial {trial.number} ({through} of {self.trials} are finished)"
            print(f"\n{head}: {trial.planned.name}", file=sys.stderr)
            later = ["trial"] * (self.trials - through - 1)
            with trial.within, activity.whole(progress.now), progress.job(through, "trial", later):
                error = self._trial(trial)
            failures = failures + 1 if error else 0
            if isinstance(error, RequestError) and not through:
                raise error
            if failures == IN_A_ROW:
                return f"gave up after {IN_A_ROW} trials that failed one after the other"
        return ""

    def close(self, failed: str) -> int:
        """Prints and keeps what was found; the exit code. `failed`: why the search gave up, if it did."""
        found, folder, unwritten = self.study.found(), self.whole.folder, list[str]()
        finished = any(one.status == "finished" for one in found)
        print(f"\n{failed and failed + ': '}{self.standing()}", file=sys.stderr)
        if finished:
            best = trial_report.show(found, self.axes, folder, self.study.choose_by)
            point = self._point(best.values)
            print(f"again: {command([*self.fixed, *point], self.config_dir)}")
            with sweep_summary.failing("MLflow's figures of the search", unwritten):
                sweep_manifest.write(folder, {"chosen": " ".join(point)})
                self.whole.measured(_test_figures(folder / best.facts["folder"]), len(found))
        with sweep_summary.failing("the search's table and picture", unwritten):
            trial_report.write(found, self.axes, folder, self.study.choose_by)
        good = finished and not failed and not unwritten
        self.whole.end("finished" if good else "failed")
        return 0 if good else 1

    def standing(self) -> str:
        """How far the search is, in words."""
        counts = Counter(one.status for one in self.study.found())
        through = counts["finished"] + counts["pruned"]
        words = [f"{through} of {self.trials} trials are finished"]
        words += [f"{counts[status]} {status}" for status in ("pruned", "failed", "running") if counts[status]]
        if self.study.points is not None and through >= len(self.study.points) < self.trials:
            words.append("which is the whole search space")
        return f"{', '.join(words)}, in {self.whole.folder}"

    def _trial(self, trial: SearchTrial) -> Exception | None:
        """Runs it, or finds that done, and reports it to the study; why it failed, if it did."""
        from tlx.runs import run as job
        from tlx.runs import run_state

        planned, folder = trial.planned, self.whole.folder / trial.planned.folder

        def watch(row: Mapping[str, Any]) -> None:
            print(epoch_line(row, row["epochs"], width(sys.stderr)), file=sys.stderr)
            self.study.report(trial, _rows(folder), row["epochs"])

        self.whole.add(planned)
        part = job.Within(f"{self.whole.book()['mlflow_key']}/{planned.key[:16]}", quiet=True)
        status, failure = "finished", None
        try:
            if run_state.finished(folder) is None and not _pruned(folder):
                job.run(
                    planned.config, folder, command=planned.command, name=run_name(folder, planned.typed, planned.name),
                    within=part, resume=True, watch=watch, typed=planned.typed,
                )  # fmt: skip
            status = "pruned" if _pruned(folder) else "finished"
        except (Pruned, Diverged) as error:  # whoever chooses values learns that these are bad
            status = "pruned"
            print(said(error), file=sys.stderr)
        except Exception as error:
            status, failure = "failed", error
            print(f"trial {trial.number} failed: {said(error)}\n  again: {planned.command}", file=sys.stderr)
        rule = self.study.choose_by
        facts = _facts(folder, status, rule)
        self.study.settle(trial, status, facts, score(facts, rule) if status == "finished" else None)
        if status == "finished":
            best = trial_report.ranked(self.study.found())[0]
            known = {f"best_{name}": best.facts[name] for name in dict.fromkeys(("val_accuracy", rule))}
            self.whole.measured(known, trial.number)
            compared = "the best so far" if best.number == trial.number else f"best so far: trial {best.number}"
            figures = ", ".join(f"{name} {shown(facts[name], name)}" for name in dict.fromkeys((rule, "val_accuracy")))
            said_of = f"{figures}, {duration(facts['seconds'])}"
            print(f"trial {trial.number}: {said_of}; {compared}", file=sys.stderr)
        return failure

    def _point(self, values: Sequence[str]) -> list[str]:
        return search_space.typed(self.axes, values)

    def _checked(self, fixed: Sequence[str]) -> tuple[Planned, Path]:
        """The trial of every axis's first value and the sweep's folder; the other ends were tried beside it.

        Raises:
            RequestError: a key or value is unknown or out of range, changes nothing, or changes the images.
        """
        start = [axis.ends()[0] for axis in self.axes]
        first, folder = single([*fixed, *self._point(start)], self.config_dir)
        if first.config.seeds is not None or first.config.folds is not None:
            raise RequestError("search: a trial is one run; leave out seeds and folds, and repeat the best with them")
        tried = [first.typed]
        for i, axis in enumerate(self.axes):
            for value in axis.ends()[1:]:
                point = [*start[:i], value, *start[i + 1 :]]
                other = single([*fixed, *self._point(point)], self.config_dir)[0]
                tried.append(other.typed)
                if (other.config.dataset, other.config.seed) != (first.config.dataset, first.config.seed):
                    raise RequestError(f"{axis.key}: is not searched: trials are compared on the same images and seed")
                if key(other.config) == key(first.config):
                    raise RequestError(f"{axis.key}: is not searched: {start[i]} and {value} give the same result")
        refuse(tried)
        if first.launcher != "basic":
            raise RequestError(
                f"launch={first.launcher}: a search runs one trial at a time; for more, give its command several times"
            )
        return first, folder

    def _same_images(self, folder: Path) -> None:
        """The images and weights are those that the study's trials have seen, if there is anything left to do.

        Raises:
            RequestError: they are others.
        """
        found = self.study.found()
        if sum(one.status in THROUGH for one in found) < self.trials:
            from tlx.runs import run_state

            for one in (one for one in found if one.status == "finished"):
                planned = self.study.plan(tuple(self._point(one.values)))
                if (done := run_state.finished(folder / planned.folder)) is not None:
                    run_state.unchanged(planned.config, done, folder / planned.folder)
                    break


def _rows(folder: Path) -> list[dict[str, Any]]:
    file = folder / "metrics.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    return [json.loads(line) for line in lines]


def _summary(folder: Path) -> dict[str, Any]:
    file = folder / "summary.json"
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return found


def _pruned(folder: Path) -> bool:
    return _summary(folder).get("status") in ("pruned", "diverged")


def _test_figures(folder: Path) -> dict[str, float]:
    """The figures of a finished trial's test images, with their intervals."""
    found = [metric.flat() for metric in of_summary(_summary(folder)) if metric.split == "test"]
    return {name: value for figures in found for name, value in figures.items()}


def _facts(folder: Path, status: str, rule: str) -> dict[str, Any]:
    """What the study keeps of a trial: of the epoch whose model is kept, or of the last one."""
    summary, rows = _summary(folder), _rows(folder)
    kept = [row for row in rows if status != "finished" or row["epoch"] == summary["best_epoch"]]
    row = {name: kept[-1][name] for name in dict.fromkeys(("val_accuracy", "val_loss", rule))} if kept else {}
    seconds = summary.get("seconds", {}).get("total", sum(row["seconds"] for row in rows))
    return {**row, "epochs": len(rows), "seconds": seconds, "error": summary.get("error", "")}
