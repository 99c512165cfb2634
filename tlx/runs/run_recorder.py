"""A run's folder and its MLflow run: what is written when, and how a run ends whatever happens."""

import contextlib
import dataclasses
import io
import json
import logging
import logging.handlers
import shutil
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from tlx.config.schema import Config
from tlx.core.atomic_files import atomic, tidy, unwritable
from tlx.core.csv_cells import Table
from tlx.core.errors import Diverged, Pruned, RequestError, shown, unicode
from tlx.core.folder_lock import LOCK, alone
from tlx.core.metric import Metric
from tlx.datasets.images import Images
from tlx.datasets.splits import Data
from tlx.runs import mlflow_log
from tlx.runs.output_layout import new_folder
from tlx.runs.run_summary import Summary
from tlx.runs.stopwatch import Clock
from tlx.tracking.tracker import Tracker
from tlx.training.checkpoint import Keeper, read

if TYPE_CHECKING:
    from torch import nn

    from tlx.inference.predictor import Prediction
    from tlx.tracking.tracker import Status
    from tlx.training.metrics import Scores
    from tlx.training.train_state import TrainState

# Of the summary, by a checkpoint.
KEPT = {"accuracy_before_training", "after", "epochs", "requested", "features", "refit"}
log = logging.getLogger("tlx")


class Record:
    """Keeps what a run says: files in its folder, whole or absent, and the same in MLflow.

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
        parent: str | Tracker | None = None,
    ) -> None:
        """`clock`: what counts the run's time. `within_sweep`: the folder is there and somebody has seen to it that
        nobody else works in it. `key` and `parent`: the MLflow run's name for good, and the run that it belongs to."""
        self.folder, self.tracker, self.clock, self.within_sweep = folder, tracker, clock, within_sweep
        self.key, self.parent = key or uuid.uuid4().hex, parent
        self.summary = Summary(folder, command=shown(command))
        self.rows: list[dict[str, Any]] = []
        self.opened, self.log_model = False, True
        self.register: str | None = None
        self.state: dict[str, Any] = {}  # what every checkpoint says
        self.served: Counter[str] = Counter()  # of this process: the `rows` that were cached, and those `read`
        self._served: Mapping[str, int] = {}  # of the run before it was interrupted
        self._within = ExitStack()
        # What is said before the folder is there waits here; its capacity counts only once it has a target.
        self._early = logging.handlers.MemoryHandler(0, logging.CRITICAL + 1, flushOnClose=False)
        self._log: logging.Handler | None = None

    def claim(self, folder: Path) -> dict[str, Any]:
        """Takes the folder of an interrupted run for this one: what its checkpoint says.

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
            self.key, self.rows = before["key"], before["rows"]
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
            "key": self.key,
            "name": name,
            "command": self.summary.command,
            "cwd": str(Path.cwd()),
            "config": tree,
            "identity": self.summary.identity,
            "data": data.fingerprint,
        }
        if before is None:
            self.keep()
        self._log = _LogFile(self.folder / "tlx.log", encoding="utf-8", errors="backslashreplace")
        self._log.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        log.addHandler(self._log)
        log.removeHandler(self._early)
        self._early.setTarget(self._log)
        self._early.flush()
        self.log_model, self.register = config.tracking.model, config.tracking.register
        self.write("config.yaml", shown(OmegaConf.to_yaml(OmegaConf.create(tree))))
        self.write("plan.json", json.dumps(plan, indent=1))
        tags = {"tlx.identity": self.summary.identity, "tlx.command": self.summary.command}
        if self.summary.source is not None:
            found = json.loads((Path(self.summary.source) / "summary.json").read_text(encoding="utf-8"))
            tags["tlx.source"] = found["mlflow_run_id"]
        self._start(name, mlflow_log.parameters(tree), tags, data)
        if before is not None:
            for row in self.rows:  # those that MLflow has are not written again
                mlflow_log.epoch(self.tracker, row)
        self.tracker.dataset(data.name, data.fingerprint, data.source, self.summary.images, data.classes)
        for file in ("config.yaml", "plan.json"):
            self.tracker.artifact(self.folder / file)

    def _start(
        self, name: str, parameters: Mapping[str, Any], tags: Mapping[str, str], data: Data | None = None
    ) -> None:
        lock = None
        if self.folder.is_dir() and self.tracker.uri:
            lock = self.folder / mlflow_log.LOCK
            began = mlflow_log.facts(self.folder).get("began", time.time())
            known = {"key": self.key, "name": name, "began": began, "sent": False}
            if data is not None:
                known["data"] = {"name": data.name, "digest": data.fingerprint, "source": data.source}
            where = {"uri": shown(self.tracker.uri), "experiment": self.tracker.experiment}
            mlflow_log.remember(self.folder, **known, **where)
        self.tracker.start(name, parameters, tags, self.parent, key=self.key, lock=lock)

    def _finish(self, status: "Status", error: str | None = None) -> None:
        """Ends the MLflow run; what MLflow could not take is remembered in the folder."""
        why = self.tracker.finish(status, error)
        if (self.folder / mlflow_log.FILE).is_file():
            known = {"ended": time.time(), "run_id": self.tracker.run_id}
            mlflow_log.remember(self.folder, **known, sent=not why, reason=why)
            if why:
                log.info("what MLflow has not got is in the folder; to send it: python -m tlx sync %s", self.folder)

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
        mlflow_log.epoch(self.tracker, row)

    def look(self, when: str, scores: "Scores", images: Images, *, table: bool) -> None:
        """Keeps what the test set said: `before` training, after a phase of that name, or `after` all.

        Every look is logged; `table` writes the predictions too.
        """
        low, high = scores.interval
        log.info("test set, %s: accuracy %.4f [%.4f, %.4f], loss %.4f", when, scores.accuracy, low, high, scores.loss)
        figures = {"test_accuracy": scores.accuracy, "test_accuracy_interval": [low, high], "test_loss": scores.loss}
        if when == "before":
            self.summary.accuracy_before_training = scores.accuracy
            self.tracker.metrics({"accuracy_before_training": scores.accuracy}, 0)
        elif when == "after":
            for key, value in figures.items():
                setattr(self.summary, key, value)
            self.summary.per_class, self.summary.confusion = scores.per_class, scores.confusion
            self._metrics("test", scores.metrics)
            self.tracker.metrics(mlflow_log.test_figures(self.summary.to_dict()), self.summary.epochs)
        else:
            self.summary.after[when] = figures
            self.tracker.metrics({f"test_accuracy_after_{when}": scores.accuracy}, self.summary.epochs)
        if table:
            self._predictions("predictions.csv" if when == "after" else f"predictions-{when}.csv", scores, images)

    def _metrics(self, split: str, metrics: Sequence[Metric]) -> None:
        """Puts the figures of a split into the summary, in place of those that are there."""
        others = [one for one in self.summary.metrics if one["split"] != split]
        self.summary.metrics = [*others, *(metric.to_dict() for metric in metrics)]

    def best(self, epoch: int) -> None:
        """Keeps which epoch's model is saved, and its figures."""
        figures = mlflow_log.best_figures(self.rows, epoch)
        self.summary.best_epoch = epoch
        self.summary.val_accuracy, self.summary.val_loss = figures["best_val_accuracy"], figures["best_val_loss"]
        self._metrics("val", mlflow_log.val_metrics(figures))
        self.tracker.metrics(figures, self.summary.epochs)

    def close(self, scores: "Scores", images: Images, state: "TrainState", status: str = "finished") -> None:
        """Keeps the pictures, the model and the summary of a run that is through.

        `status`: only a model of a `finished` run goes into the registry.
        """
        summary = self.summary
        self.best(state.best_epoch)
        summary.images_per_second = summary.images["train"] * len(self.rows) / _training_seconds(summary, self.rows)
        with self.clock.part("pictures"):
            self._pictures(scores, images)
        with self.clock.part("tracking"):
            self.tracker.artifact(self.folder / "metrics.jsonl")
            summary.mlflow_run_id = self.tracker.run_id
        summary.status, summary.seconds = status, self.clock.total()
        self._summary()
        if self.log_model:  # after the files that say whether it becomes champion
            self.tracker.model(self.folder, self.register if status == "finished" else None)

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
        self.tracker.artifact(self.folder / "samples.csv")
        self.tracker.artifact(self.folder / "samples")

    def write(self, name: str, text: str) -> None:
        """A text file of the run's folder, whole or not at all; what is no Unicode in it becomes an escape."""
        with atomic(self.folder / name) as path:
            path.write_text(unicode(text), encoding="utf-8", newline="")

    @contextmanager
    def ending(self, name: str) -> Iterator[None]:
        """However the block ends, the folder and MLflow say so, and nothing stays open.

        `name`: what MLflow calls a sweep's job that fails before it begins.
        """
        log.addHandler(self._early)
        try:
            yield
        except BaseException as error:
            killed, pruned = isinstance(error, KeyboardInterrupt), isinstance(error, Pruned)
            diverged = isinstance(error, Diverged)
            self.summary.status = (
                "interrupted" if killed else "pruned" if pruned else "diverged" if diverged else "failed"
            )
            self.summary.error = " ".join(str(error).split()) or type(error).__name__
            # A second Ctrl-C ends the waiting for MLflow, and takes nothing from what the first one says.
            with contextlib.suppress(KeyboardInterrupt):
                if not self.opened and self.within_sweep and not killed:
                    self._start(name, {}, {"tlx.command": self.summary.command})
                self._leave(isinstance(error, RequestError) or killed)
                self._keep_log()
                self._finish("KILLED" if killed or pruned else "FAILED", self.summary.error)
                if pruned or diverged:  # nobody goes on with it
                    self._through()
            raise
        else:
            try:
                with self.clock.part("tracking"):
                    self._keep_log()
                    self._finish("FINISHED")
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
                (self.folder / mlflow_log.LOCK).unlink(missing_ok=True)
                if not self.within_sweep:
                    (self.folder / LOCK).unlink(missing_ok=True)
            self._within.close()
            for handler in (self._early, self._log):
                if handler is not None:
                    log.removeHandler(handler)
                    handler.close()

    def _waited(self) -> None:
        """Adds to the summary the time for which MLflow was waited for, where there was any."""
        self.summary.seconds = self.clock.total()
        if self.tracker.run_id:
            self.write("summary.json", self._text())

    def _through(self) -> None:
        self._keeper.drop()
        (self.folder / LOCK).unlink(missing_ok=True)

    def _keep_log(self) -> None:
        """The log among the artifacts, with all but what MLflow itself has still to say."""
        if self.opened and (self.folder / "tlx.log").is_file():
            self.tracker.artifact(self.folder / "tlx.log")

    def _leave(self, nothing_done: bool) -> None:
        """A folder that says how the run ended; none for a request that could not be carried out, but a sweep's job."""
        if nothing_done and not self.rows and not self.within_sweep:
            if self.opened:
                shutil.rmtree(self.folder, ignore_errors=True)
            return
        if not self.opened and not self.folder.is_dir():
            return
        self.summary.mlflow_run_id, self.summary.seconds = self.tracker.run_id, self.clock.total()
        try:
            self._summary()
        except RequestError as unwritten:  # the disk is full: the first error is the one to tell
            log.warning("%s", unwritten)

    def _summary(self) -> None:
        from tlx.reporting.run_plots import card

        self.write("summary.json", self._text())
        self.tracker.note(card(self.summary.to_dict()))
        self.tracker.artifact(self.folder / "summary.json")

    def _text(self) -> str:
        self._count()
        return json.dumps(self.summary.to_dict(), indent=1, ensure_ascii=False)

    def _predictions(self, file: str, scores: "Scores", images: Images) -> None:
        self.write(file, scores.table(images.files, images.labels.tolist(), self.summary.classes))
        self.tracker.artifact(self.folder / file)

    def _pictures(self, scores: "Scores", images: Images) -> None:
        import numpy as np

        from tlx.reporting import run_plots

        classes, labels = self.summary.classes, images.labels.tolist()
        shown = run_plots.choose(labels, scores.predictions, scores.probabilities)

        def predictions() -> None:
            run_plots.predictions(
                [images.decode(i) for i in shown],
                [labels[i] for i in shown],
                [scores.predictions[i] for i in shown],
                [scores.probabilities[i] for i in shown],
                classes,
                self.folder / "predictions.png",
            )

        with ThreadPoolExecutor(1) as beside:  # decoding and Pillow's work leave Python's lock
            drawn = beside.submit(predictions)
            run_plots.curves(self.rows, self.folder / "curves.png", self.summary.choose_by)
            run_plots.confusion(np.array(scores.confusion), classes, self.folder / "confusion.png")
            drawn.result()
        for name in ("curves", "confusion", "predictions"):
            file = self.folder / f"{name}.png"
            self.tracker.artifact(file, mlflow_log.place(file))


class Silent(Record):
    """What a rank beside the first keeps: where the run stands. It writes nothing and tells nobody."""

    writes = False

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
        self.opened = True
        self.rows = list(before["rows"]) if before else []
        kept = {key: before["summary"][key] for key in KEPT & before["summary"].keys()} if before else {}
        for key, value in {**known, **kept}.items():
            setattr(self.summary, key, value)

    def keep(self, net: "nn.Module | None" = None, state: "TrainState | None" = None) -> None: ...

    def flush(self) -> None: ...

    @property
    def kept(self) -> int:
        return len(self.rows)

    def row(self, row: Mapping[str, Any]) -> None:
        self.rows.append(dict(row))

    def look(self, when: str, scores: "Scores", images: Images, *, table: bool) -> None: ...

    def close(self, scores: "Scores", images: Images, state: "TrainState", status: str = "finished") -> None: ...

    @contextmanager
    def ending(self, name: str) -> Iterator[None]:
        yield


class _LogFile(logging.FileHandler):
    """A log that cannot be written does not end the run, nor fill the screen with tracebacks."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Says nothing: a full disk is told by what else is written."""


def _training_seconds(summary: Summary, rows: Sequence[Mapping[str, Any]]) -> float:
    return sum(summary.images["train"] / float(row["images_per_second"]) for row in rows)
