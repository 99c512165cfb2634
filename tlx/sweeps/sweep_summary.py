"""What a sweep found, at its end: printed, written beside its runs, logged. What fails of it costs nothing else."""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tlx.comparison import bar_chart, comparison, html_page, outputs, plot, text_table
from tlx.comparison import comparison as comparison_module
from tlx.comparison.origin import Origin
from tlx.core.atomic_files import atomic
from tlx.core.errors import printable, said
from tlx.reporting.text_table import aligned
from tlx.sweeps import sweep_manifest
from tlx.tracking.run_card import BARS


def sum_up(folder: Path, jobs: Mapping[str, Mapping[str, Any]], *, table: bool = True) -> list[str]:
    """Prints (with `table`), writes and logs the comparison of all jobs that finished; what failed of it, a line each.

    `jobs`: as the sweep's own file has them. Where there is no comparison, the runs' own results are printed.
    """
    failed: list[str] = []
    found = None
    with failing("the comparison", failed):
        found = comparison_module.compared([folder / job["folder"] for job in jobs.values()])
        if table:
            outputs.show(found)
    if failed:
        print("\n".join(_results(folder, jobs)))
    if found is None:
        return failed
    made: dict[str, Callable[[], bytes]] = {
        "comparison.csv": lambda: text_table.table(found).encode(),
        "comparison.png": lambda: plot.picture(found),
        "comparison.html": lambda: html_page.page(found, folder / "comparison.html", origin(folder)).encode(),
        BARS: lambda: bar_chart.picture(found),
    }
    for name, content in made.items():
        file = folder / name
        with failing(file.name, failed):
            file.unlink(missing_ok=True)  # that of an earlier launch
            whole = content()
            with atomic(file) as path:
                path.write_bytes(whole)
    with failing("MLflow's figures of the sweep", failed):
        sweep_manifest.write(folder, tracked(found))
    return failed


def origin(folder: Path) -> Origin:
    """What a sweep's comparison comes from: its name, and the command that made its runs.

    Raises:
        RequestError: the sweep's file cannot be read.
    """
    return Origin(str(sweep_manifest.read(folder).get("command", "")), folder.name)


def tracked(found: comparison.Comparison) -> dict[str, Any]:
    """What MLflow gets of a comparison, as the sweep's own file has it.

    `metrics`: the figures of the chosen configuration, at the number of all runs, so that a sweep that grows adds to
    them. `chosen`: its label. `ranking`: a row a configuration, the chosen one first.
    """
    chosen = found.configurations[0]
    low, high = chosen.interval
    figures = {
        **chosen.test_means,
        "test_accuracy": chosen.mean,
        "test_accuracy_low": low,
        "test_accuracy_high": high,
        "best_val_accuracy": chosen.val_accuracy,
    }
    ranking = [
        {
            "configuration": one.label,
            "runs": one.n,
            "test_accuracy": one.mean,
            "low": one.interval[0],
            "high": one.interval[1],
            "val_accuracy": one.val_accuracy,
        }
        for one in found.configurations
    ]
    runs = sum(one.n for one in found.configurations)
    return {"metrics": [[figures, runs]], "chosen": chosen.label, "choose_by": found.rule, "ranking": ranking}


def accuracy(summary: Mapping[str, Any]) -> str:
    """The test accuracy of a run's summary, with its interval."""
    low, high = summary["test_accuracy_interval"]
    return f"test accuracy {summary['test_accuracy']:.1%} ({low:.1%} to {high:.1%})"


def _results(folder: Path, jobs: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """A line a run that can be read: its name, what it found, where it is."""
    from tlx.runs.run_state import finished

    rows = []
    for job in jobs.values():
        try:
            if (done := finished(folder / job["folder"])) is not None:
                rows.append((printable(str(job["name"])), accuracy(done), str(folder / job["folder"])))
        except Exception as error:
            rows.append((printable(str(job["name"])), said(error), str(folder / job["folder"])))
    yield from aligned(rows, left=3) if rows else []


@contextmanager
def failing(what: str, failed: list[str]) -> Iterator[None]:
    """Whatever the block raises is a line on stderr and in `failed`, and no more."""
    try:
        yield
    except Exception as error:
        failed.append(f"{what}: {said(error)}")
        print(f"tlx: {failed[-1]}", file=sys.stderr)
