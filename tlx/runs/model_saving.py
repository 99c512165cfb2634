"""The model of a run: tried out before training, written after it, and what is said of it where a run ends early."""

import json
from typing import TYPE_CHECKING

from tlx.config.schema import Backbone, Head
from tlx.core.activity import doing
from tlx.core.errors import Diverged
from tlx.runs.prepare import Job
from tlx.runs.run_recorder import Record

if TYPE_CHECKING:
    from tlx.backbones.staged_network import Net
    from tlx.datasets.preprocessing import Preprocessing
    from tlx.inference.saved_model import Format
    from tlx.inference.unknown_score import UnknownScore
    from tlx.training.metrics import Scores
    from tlx.training.train_state import TrainState


def try_out(job: Job) -> None:
    """Finds out before training whether the model can be saved and opened again.

    Raises:
        RequestError: it cannot.
    """
    from tlx.inference import saved_model

    saved_model.try_out(*_content(job))


def save(record: Record, job: Job, state: "TrainState", unknown: "UnknownScore | None" = None) -> None:
    """Writes the network as it is now, the best epoch's, into the run's folder; on the first rank alone.

    Until the training is through its temperature is 1, and it has no `unknown`, the score for images of no class.
    """
    from tlx.inference import saved_model

    if not record.writes:
        return
    config, data = job.config, job.data
    made_of = {"name": data.name, "fingerprint": data.fingerprint, "seed": config.seed}
    made_of |= {"test": data.test_fingerprint, "val": data.val_fingerprint}
    facts = {"data": made_of, "identity": record.summary.identity, "epoch": state.best_epoch}
    facts["temperature"] = record.summary.calibration.get("temperature", 1.0)
    if record.summary.refit:
        facts["refit"] = {key: record.summary.refit[key] for key in ("images", "epochs")}
    images = {"train": data.train.digests(), "val": data.val.digests()}
    saved_model.save(record.folder / "model", *_content(job), facts, images, unknown)


def describe(record: Record, scores: "Scores", images: int) -> None:
    """Writes into the saved model what was measured of it, on so many test images."""
    from tlx.inference import saved_model

    if not record.writes:
        return
    metrics = {
        "test_accuracy": scores.accuracy,
        "test_accuracy_interval": list(scores.interval),
        "test_loss": scores.loss,
        "test_images": images,
    }
    saved_model.describe(record.folder / "model", {"metrics": metrics})


def interrupted(record: Record, job: Job, state: "TrainState") -> str:
    """Saves the best epoch of an interrupted run; what its folder holds then, in words.

    A second interruption ends the saving; what is said is true all the same.
    """
    from tlx.training.snapshots import restore

    if not record.rows:
        return "nothing was trained yet, and nothing is kept"
    measured = record.summary.test_accuracy is not None
    try:
        # Without a best epoch the checkpoint's tensors are not all there yet.
        if state.best_epoch and state.best and not measured and _epoch(record) != state.best_epoch:
            with doing("saving the model of the best epoch"):
                restore(job.net, state.best)
                save(record, job, state)
        if any(row["epoch"] == state.best_epoch for row in record.rows):
            record.best(state.best_epoch)
        record.flush()
    except KeyboardInterrupt:
        pass
    kept, epoch = record.kept, _epoch(record)
    after = "" if kept == len(record.rows) else f" after epoch {kept}"
    again = f"to resume{after}: python -m tlx resume {record.folder}"
    if record.within_sweep:
        again = f"running the same command again resumes it{after}"
    model = "but no model, which was not saved yet"
    if epoch is not None:
        which = f"epoch {epoch}" if epoch else "an earlier epoch"
        model = f"and the model of {which}{'' if measured else ' (its test accuracy was not measured)'}"
    return f"{len(record.rows)} of {state.epochs} epochs are done; {record.folder} has them, {model}; {again}"


def diverged(record: Record, error: Diverged, state: "TrainState") -> str:
    """What is said of a run that ends because its loss is no number any more, after an epoch that was good."""
    accuracy = record.summary.test_accuracy
    figure = "" if accuracy is None else f" (test accuracy {accuracy:.1%})"
    return f"{error}; the model of epoch {state.best_epoch}{figure} is kept in {record.folder}"


def _content(job: Job) -> tuple["Net", Backbone, Head, tuple[str, ...], "Preprocessing", "Format"]:
    """What the model's folder is made of."""
    from tlx.inference.saved_model import Format

    plan = next(iter(job.plans.values()))
    how = Format(job.precision, plan.rows[plan.cut].stage, exact=job.config.features.mode == "exact")
    return job.net, job.config.backbone, job.config.head, tuple(job.data.classes), job.preprocessing, how


def _epoch(record: Record) -> int | None:
    """The epoch whose model is in the run's folder; None where there is none."""
    from tlx.inference.saved_model import DESCRIPTION

    file = record.folder / "model" / DESCRIPTION
    if not file.is_file():
        return None
    found: int = json.loads(file.read_text(encoding="utf-8")).get("epoch", 0)
    return found
