"""A run's folder and its MLflow run: what is written when, and how a run ends whatever happens."""

import contextlib
import dataclasses
import io
import json
import logging
import logging.handlers
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from tlx.config.schema import Config
from tlx.core.activity import doing
from tlx.core.atomic_files import atomic, tidy, unwritable
from tlx.core.csv_cells import Table
from tlx.core.errors import Diverged, FaultyData, Pruned, RequestError, shown, unicode
from tlx.core.folder_lock import LOCK, alone
from tlx.core.stopwatch import Clock
from tlx.datasets.images import Images
from tlx.datasets.splits import Data
from tlx.runs import run_pictures
from tlx.runs.output_layout import new_folder
from tlx.runs.run_log import RunLog
from tlx.runs.run_summary import ENDINGS, Summary
from tlx.runs.tracked_run import TrackedRun
from tlx.tracking import run_facts
from tlx.tracking.tracker import Tracker
from tlx.training.checkpoint import Keeper, read

if TYPE_CHECKING:
    from torch import nn

    from tlx.inference.predictor import Prediction
    from tlx.training.metrics import Scores
    from tlx.training.train_state import TrainState

KEPT = {"accuracy_before_training", "after", "began", "calibration", "choices"}  # of the summary, by a checkpoint
KEPT |= {"epochs", "features", "learning_rates", "refit", "requested", "unknown"}
log = logging.getLogger("tlx")


class Record:
    """Writes what a run reports: files in its folder, whole or absent, and the same in MLflow.

    Nothing is written before `open`, so that a wrong request leaves nothing behind.
    """

    writes = True

    def __init__(
        self,
        folder: Path,
        tracker: Tracker,
        command: str,
        clock: Clock,
        *,
        within_sweep: bool = False,
        key: str = "",
    ) -> None:
        """`clock`: what counts the run's time. `within_sweep`: the folder is there and somebody has seen to it that
        nobody else works in it. `key`: the MLflow run's name for good; a sweep's job begins with the sweep's."""
        self.folder, self.tracker, self.clock, self.within_sweep = folder, tracker, clock, within_sweep
        self.tracked = TrackedRun(tracker, key)
        self.summary = Summary(folder, command=shown(command))
        self.rows: list[dict[str, Any]] = []
        self.opened = False
        self.state: dict[str, Any] = {}  # what every checkpoint says
        self.served: Counter[str] = Counter()  # of this process: the `rows` that were cached, and those `read`
        self._served: Mapping[str, int] = {}  # of the run before it was interrupted
        self._within = ExitStack()
        self._log = RunLog()

    def claim(self, folder: Path) -> dict[str, Any]:
        """Takes over the folder of an interrupted run; returns what its checkpoint says.

        Raises:
            RequestError: another process works there, or the checkpoint cannot be used.
        """
        if not self.within_sweep:
            self._within.enter_context(alone(folder))
        self.folder = self.summary.folder = folder
        return read(folder)

    def open(
        self,
        name: str,
        config: Config,
        plan: list[dict[str, Any]],
        data: Data,
        known: Mapping[str, Any],
        before: dict[str, Any] | None,
        served: Counter[str],
    ) -> None:
        """Makes the folder and the MLflow run, or goes on with those of an interrupted run.

        Args:
            known: values of the summary that are there before training.
            before: what the checkpoint said, of a run that goes on.
            served: the feature cache's count of the rows of this process; it grows.
        """
        self.served = served
        if before is None:
            self.folder = self.summary.folder = new_folder(self.folder, reuse=self.within_sweep)
            if not self.within_sweep:
                self._within.enter_context(alone(self.folder))
        tidy(self.folder)
        if before is not None:
            self.tracked.key, self.rows = before["key"], before["rows"]
        self.opened = True
        for key, value in known.items():
            setattr(self.summary, key, value)
        self._keeper = Keeper(self.folder)
        tree = dataclasses.asdict(config)
        if before is not None:
            for key in KEPT & before["summary"].keys():
                setattr(self.summary, key, before["summary"][key])
            self._served = self.summary.features
            self.write("metrics.jsonl", "".join(f"{json.dumps(row)}\n" for row in self.rows))
        self.state = {
            "key": self.tracked.key,
            "name": name,
            "command": self.summary.command,
            "cwd": str(Path.cwd()),
            "config": tree,
            "identity": self.summary.identity,
            "data": data.fingerprint,
        }
        if before is None:
            self.keep()
        self._log.attach(self.folder)
        self.write("config.yaml", shown(OmegaConf.to_yaml(OmegaConf.create(tree))))
        self.write("plan.json", json.dumps(plan, indent=1))
        self._write_summary()
        self.tracked.start(self.summary, name, data)

    def keep(self, net: "nn.Module | None" = None, state: "TrainState | None" = None) -> None:
        """Writes the checkpoint: where the run stands, between two epochs."""
        self._count()
        found = {name: getattr(self.summary, name) for name in KEPT}
        self._keeper.keep(
            {**self.state, "rows": self.rows, "summary": found, "seconds": self.clock.total()}, net, state
        )

    def _count(self) -> None:
        counts = {name: self._served.get(name, 0) + self.served[name] for name in ("rows", "read")}
        self.summary.features = counts if counts["rows"] else {}

    def flush(self) -> None:
        """Writes the checkpoint that was put off, if one was."""
        self._keeper.flush()

    @property
    def kept(self) -> int:
        """How many epochs the checkpoint has."""
        return self._keeper.epoch

    def row(self, row: Mapping[str, Any]) -> None:
        """Keeps an epoch."""
        self.rows.append(dict(row))
        self.summary.epochs = row["epoch"]
        try:
            with (self.folder / "metrics.jsonl").open("a", encoding="utf-8") as lines:
                lines.write(json.dumps(row) + "\n")
        except OSError as error:
            raise unwritable(self.folder / "metrics.jsonl", error) from error
        self.tracker.changed()

    def look(self, when: str, scores: "Scores", images: Images, *, table: bool) -> None:
        """Records the figures of the test set: `before` training, after a phase of that name, or `after` all.

        Every look is logged; `table` writes the predictions too.
        """
        low, high = scores.interval
        log.info("test set, %s: accuracy %.4f [%.4f, %.4f], loss %.4f", when, scores.accuracy, low, high, scores.loss)
        figures = {"test_accuracy": scores.accuracy, "test_accuracy_interval": [low, high], "test_loss": scores.loss}
        if when == "before":
            self.summary.accuracy_before_training = scores.accuracy
        elif when == "after":
            for key, value in figures.items():
                setattr(self.summary, key, value)
            self.summary.per_class, self.summary.confusion = scores.per_class, scores.confusion.written()
            self.summary.measured("test", scores.metrics)
        else:
            self.summary.after[when] = figures
        if table:
            file = "predictions.csv" if when == "after" else f"predictions-{when}.csv"
            self.write(file, scores.table(images.files, images.labels.tolist(), self.summary.classes))
        self._write_summary()
        self.tracker.changed()

    def best(self, epoch: int) -> None:
        """Keeps which epoch's model is saved, and its figures."""
        self.summary.best(self.rows, epoch)

    def close(self, scores: "Scores", images: Images, state: "TrainState", status: str = "finished") -> None:
        """Keeps the pictures and the summary of a run that is through; `status`: how it has ended."""
        summary = self.summary
        self.best(state.best_epoch)
        summary.images_per_second = len(self.rows) / sum(1 / float(row["images_per_second"]) for row in self.rows)
        with self.clock.part("pictures"), doing("drawing the pictures"):
            run_pictures.draw(summary, self.rows, scores, images)
        with self.clock.part("tracking"), doing("waiting for MLflow"):
            summary.mlflow_run_id = self.tracker.run_id
        summary.status, summary.seconds = status, self.clock.total()
        self._write_summary()

    def samples(self, predictions: Sequence["Prediction"]) -> None:
        """Keeps what was predicted for images that were drawn for it."""
        text = io.StringIO()
        table = Table(text)
        table.row(["file", "prediction", "probability"])
        for p in predictions:
            file = Path(p.file).relative_to(self.folder).as_posix()
            table.row([file, p.prediction, f"{p.probability:.6f}"])
            log.info("%s: %s (%.1f %%)", file, p.prediction, 100 * p.probability)
        self.write("samples.csv", text.getvalue())

    def write(self, name: str, text: str) -> None:
        """A text file of the run's folder, whole or not at all; what is no Unicode in it becomes an escape."""
        with atomic(self.folder / name) as path:
            path.write_text(unicode(text), encoding="utf-8", newline="")

    @contextmanager
    def ending(self, name: str) -> Iterator[None]:
        """However the block ends, the folder and MLflow say so, and nothing stays open.

        `name`: what MLflow calls a sweep's job that fails before it begins.
        """
        self._log.begin()
        removed = False
        try:
            yield
        except BaseException as error:
            status = next((word for kind, word in ENDINGS.items() if isinstance(error, kind)), "failed")
            killed, self.summary.status = isinstance(error, KeyboardInterrupt), status
            self.summary.error = " ".join(str(error).split()) or type(error).__name__
            # A second Ctrl-C ends the waiting for MLflow, and takes nothing from what the first one says.
            with contextlib.suppress(KeyboardInterrupt):
                if not self.opened and self.within_sweep and not killed:
                    self.tracked.start(self.summary, name)
                with doing("waiting until MLflow has everything"):
                    self._ended()
                    self.tracked.finish(self.summary.error)
                if self.opened and isinstance(error, Pruned | Diverged | FaultyData):  # nobody goes on with it
                    self._through()
            # A request that could not be run leaves nothing behind, but for a sweep's job.
            removed = (isinstance(error, RequestError) or killed) and not self.rows and not self.within_sweep
            raise
        else:
            try:
                with self.clock.part("tracking"), doing("waiting until MLflow has everything"):
                    self.tracked.finish(self.summary.error)
                self._waited()
                # Last: a run without a checkpoint is one that is through, in MLflow too.
                self._through()
            except KeyboardInterrupt:
                again = "the same command" if self.within_sweep else f"python -m tlx resume {self.folder}"
                raise KeyboardInterrupt(
                    f"{self.folder} has all of the run, MLflow may not: {again} makes up for that"
                ) from None
        finally:
            if self.opened:
                (self.folder / run_facts.LOCK).unlink(missing_ok=True)
                if not self.within_sweep:
                    (self.folder / LOCK).unlink(missing_ok=True)
            self._within.close()
            self._log.close()
            if removed and self.opened:
                shutil.rmtree(self.folder, ignore_errors=True)

    def _waited(self) -> None:
        """Adds to the summary the time that the page took, and that for which MLflow was waited for."""
        self.summary.seconds = self.clock.total()
        self._write_summary()

    def _through(self) -> None:
        self._keeper.drop()
        (self.folder / LOCK).unlink(missing_ok=True)

    def _ended(self) -> None:
        """The summary of a run that did not come to its end."""
        if not self.opened and not (self.within_sweep and self.folder.is_dir()):
            return
        self.summary.mlflow_run_id, self.summary.seconds = self.tracker.run_id, self.clock.total()
        try:
            self._write_summary()
        except RequestError as unwritten:  # the disk is full: the first error is the one to report
            log.warning("%s", unwritten)

    def _write_summary(self) -> None:
        self._count()
        self.write("summary.json", json.dumps(self.summary.to_dict(), indent=1, ensure_ascii=False))
