"""What a run found, as `summary.json` has it, and the folder that it lies in."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlx.core.choose_by import better
from tlx.core.data_frames import frame
from tlx.core.errors import Diverged, LeftUnmeasured, Pruned
from tlx.core.metric import MetricValue, of_summary
from tlx.reporting.notebook_card import card
from tlx.reporting.run_display import facts_of
from tlx.reporting.text_table import near

if TYPE_CHECKING:
    from pandas import DataFrame

# The status of a run that an exception has ended; the first that fits.
ENDINGS = {
    LeftUnmeasured: "unmeasured",
    KeyboardInterrupt: "interrupted",
    Pruned: "pruned",
    Diverged: "diverged",
}


@dataclass
class Summary:
    """What a run found; the content of `summary.json`, and the folder it lies in."""

    folder: Path
    # finished | failed | interrupted | pruned | unmeasured (trained, and another candidate was chosen) | diverged (its
    # last good epoch is measured, where there is one)
    status: str = "running"
    error: str = ""
    command: str = ""
    began: float | None = None  # seconds since the epoch
    choices: dict[str, str] = field(default_factory=dict)  # what is chosen of each group, as the run's folder calls it
    requested: dict[str, str] = field(default_factory=dict)  # the overrides as typed, key → value
    identity: str = ""
    mlflow_run_id: str = ""
    metrics: list[dict[str, Any]] = field(
        default_factory=list
    )  # all figures of the saved model, as `MetricValue` has them
    # The same figures under the names of their own that every version writes:
    test_accuracy: float | None = None  # 0..1
    test_accuracy_interval: list[float] | None = None  # 95 %, Wilson
    accuracy_before_training: float | None = None  # of the test set
    test_loss: float | None = None  # nats
    val_accuracy: float | None = None  # in the best epoch
    val_loss: float | None = None  # in the best epoch, nats
    choose_by: str = ""  # the figure of the validation images that chose the epoch
    best_epoch: int | None = None  # from 1, over all phases
    epochs: int = 0
    not_converged: str = ""  # what to change where the training was too short
    seconds: dict[str, float] = field(default_factory=dict)  # by part (clock.PARTS), and `total`, their sum
    images_per_second: float | None = None  # in training
    classes: list[str] = field(default_factory=list)
    images: dict[str, int] = field(default_factory=dict)  # train, val, test
    splits: dict[str, str] = field(default_factory=dict)  # the folder that each is read from, or how it was made
    range: list[float] | None = None  # values that are black and white in images of more than 8 bits, where any trains
    notes: list[str] = field(default_factory=list)  # how the data was read, and groups split
    copies: dict[str, Any] = field(default_factory=dict)  # images that are there more than once, as `tlx.copies` has it
    skipped: list[list[str]] = field(default_factory=list)  # [path, reason]
    precision: str = ""
    device: str = ""
    features: dict[str, int] = field(default_factory=dict)  # cached `rows`; `read`: those of earlier runs among them
    per_class: dict[str, dict[str, float]] = field(default_factory=dict)
    # `temperature`, the split that it is `fitted_on`, and how many `images` that has; of the test images `log_loss`
    # (nats), `ece` and the `bins` of the reliability table, each `before` and `after` the temperature; whether
    # `val_loss` is "before" or "after" it.
    calibration: dict[str, Any] = field(default_factory=dict)
    # Of images of none of the classes: the stated `rate` of false alarms, the `threshold` of the score (null: too few
    # images to say), how many `images` it is from and which (`fitted_on`), how many `reference` images the saved model
    # has, and how many `neighbours` of them are looked at.
    unknown: dict[str, Any] = field(default_factory=dict)
    # Label × prediction; none of more than 100 classes: predictions.csv says the same.
    confusion: list[list[int]] = field(default_factory=list)
    after: dict[str, dict[str, Any]] = field(default_factory=dict)  # test figures after each phase, where requested
    # Of a model that is fitted again on training and validation images: `images`, how many; `epochs` of each phase;
    # `train_loss` of each epoch, nats.
    refit: dict[str, Any] = field(default_factory=dict)
    # Of each phase whose rate was found by a range test: `lr`, and the test's `rates` and `losses` (nats; `smooth`).
    learning_rates: dict[str, Any] = field(default_factory=dict)
    source: str | None = None  # the folder of the source task's run

    @classmethod
    def of(cls, folder: Path, found: Mapping[str, Any]) -> "Summary":
        """The summary in a run's folder, whose file holds `found`; what another version wrote beside it is left out."""
        names = {field.name for field in dataclasses.fields(cls)} - {"folder"}
        return cls(folder, **{name: value for name, value in found.items() if name in names})

    def measured(self, split: str, metrics: Sequence[MetricValue]) -> None:
        """Sets the figures of a split in place of those that are there."""
        others = [one for one in self.metrics if one["split"] != split]
        self.metrics = [*others, *(metric.to_dict() for metric in metrics)]

    def best(self, rows: Sequence[Mapping[str, Any]], epoch: int) -> None:
        """Sets the epoch whose model is saved, one of `rows`, and its figures of the validation images."""
        row = next(row for row in rows if row["epoch"] == epoch)
        found = {name: row[name] for name in row if name.startswith("val_")}
        self.best_epoch, self.val_accuracy, self.val_loss = epoch, found["val_accuracy"], found["val_loss"]
        self.measured(
            "val",
            [
                MetricValue(name.removeprefix("val_"), "val", value, higher_is_better=better(1, 0, name))
                for name, value in found.items()
            ],
        )

    def __repr__(self) -> str:
        accuracy = next((one for one in of_summary(self.to_dict()) if one.key == "test_accuracy"), None)
        found = "" if accuracy is None else f", test accuracy {accuracy.shown(self.images.get('test', 0))}"
        return f"<run {self.status}{found}, {near(self.folder)}>"

    def _repr_html_(self) -> str:
        """For a notebook."""
        error = f": {self.error}" if self.error else ""
        return card(f"tlx run, {self.status}{error}", [*facts_of(self), ("command", self.command)])

    def to_frame(self) -> "DataFrame":
        """The figures as a table: `name, split, value, low, high, higher_is_better`, a row each."""
        return frame(self.metrics, [one.name for one in dataclasses.fields(MetricValue)])

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        return {name: value for name, value in dataclasses.asdict(self).items() if name != "folder"}
