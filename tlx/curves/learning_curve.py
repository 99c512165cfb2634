"""A learning curve from what was typed: planned as a sweep, run, and what it found written into its folder."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tlx.comparison.comparison import ranked
from tlx.config.command_line import command
from tlx.config.schema import Config
from tlx.core.activity import doing
from tlx.core.data_frames import frame
from tlx.core.errors import RequestError, said
from tlx.curves import curve_files, curve_words
from tlx.curves.curve_request import CurveJob, CurveRequest, CurveSize, jobs, sizes
from tlx.curves.forecast import Forecast, forecast
from tlx.curves.measured_points import CurveSeries, series
from tlx.distributed import launch
from tlx.reporting.log_lines import lines
from tlx.reporting.screen import live
from tlx.reporting.text_table import near
from tlx.runs.output_layout import output
from tlx.runs.prepare import found
from tlx.runs.run_reader import state
from tlx.runs.split_data import split_data
from tlx.sweeps import keyed_folder, sweep
from tlx.sweeps.sweep import SweepFolder

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = ["ABOUT", "LearningCurve", "run_curve"]
ABOUT = "curve.json"


@dataclass(frozen=True)
class LearningCurve:
    """What was found.

    Attributes:
        folder: of the curve.
        series: each with its forecast.
        failed: the command of each job that failed, and why.
        best: the folder of the run with all images that validation chooses among the series; None where there is none.
    """

    folder: Path
    series: Sequence[tuple[CurveSeries, Forecast]]
    failed: Sequence[tuple[str, str]]
    best: Path | None

    def to_frame(self) -> "DataFrame":
        """A row a point, and one for what is extrapolated, with the columns of `curve.csv`.

        Raises:
            RequestError: pandas is not installed.
        """
        return frame(curve_files.rows(self.series), curve_files.COLUMNS)

    def __str__(self) -> str:
        return "\n".join(curve_words.lines(self.series))

    def __repr__(self) -> str:
        return f"<learning curve of {len(self.series)} series, {near(self.folder)}>"


@live("preparing the curve")
def run_curve(request: CurveRequest, typed: Sequence[str]) -> LearningCurve:
    """Runs what is missing of a curve, and writes what it found.

    Args:
        typed: the words after `curve`, for the command that goes on with it.

    Raises:
        RequestError: the request is wrong, or no run of it ended well.
    """
    launch.once("a curve")
    with lines(quiet=True):
        with doing("reading the data"):
            first = request.first()
            steps, pool, key = _sizes(request, first)
        line = command(["curve", *typed], request.config_dir)
        folder = keyed_folder.opened(output(first) / "curves", ABOUT, "a curve", request.name, key, line)
        with doing("composing the jobs"):
            planned = jobs(request, steps, folder.name)
            sweep.check_data([one.job for one in planned])
    whole = sweep.open_sweep([one.job for one in planned], folder, line, request.config_dir)
    try:
        whole.launch(brief=True)
        with doing("fitting the curve"):
            made = _written(whole, planned, (len(steps) - 1, pool), line)
    except KeyboardInterrupt:
        done = f"{len(whole.finished())} of {len(planned)} jobs finished, in {whole.folder}"
        print(f"{done}; running the same command again goes on", file=sys.stderr)
        whole.end("interrupted")
        raise
    except Exception as error:
        whole.end("failed", said(error))
        raise
    whole.end("failed" if made.failed else "finished")
    return made


def _sizes(request: CurveRequest, first: Config) -> tuple[list[CurveSize], int, str]:
    """The numbers of training images, how many there are, and a hash of what all series have in common."""
    data = split_data(found(first), first, first.seed, decode=())
    steps = sizes(request, data.train.labels, len(data.val), data.classes, first.seed)
    return steps, len(data.train), keyed_folder.hashed(request.in_common(), data.fingerprint)


def _written(whole: SweepFolder, planned: Sequence[CurveJob], of: tuple[int, int], line: str) -> LearningCurve:
    """What the runs found, in the folder's files. `of`: the place of the last size, and the images that there are.

    Raises:
        RequestError: no run is finished.
    """
    last, pool = of
    folders = dict[str, dict[int, list[Path]]]()
    for one in planned:
        folder = whole.folder / one.job.folder
        if not state(folder):
            folders.setdefault(one.series, {}).setdefault(one.size, []).append(folder)
    every = [series(label, of_sizes, pool) for label, of_sizes in folders.items()]
    measured = [one for one in every if one is not None]
    failed = [(job.command, why) for job, why in whole.failed()]
    if not measured:
        raise RequestError(
            f"{whole.folder}: no run of the curve ended well: {failed[0][1] if failed else 'none began'}"
        )
    found = [(one, forecast(one)) for one in measured]
    whole_size = [run.folder for one in measured for run in one.points[-1].found.runs if one.points[-1].size == last]
    best = None
    if whole_size:
        chosen = ranked(whole_size)
        best = chosen.configurations[0].run(chosen.rule).folder
    curve_files.write(whole.folder, found, line, failed, None if best is None else best.name)
    return LearningCurve(whole.folder, found, failed, best)
