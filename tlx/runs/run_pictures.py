"""The pictures of a finished run: learning curves, confusion matrix, reliability diagram, a grid of predictions."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from tlx.datasets.images import Images
from tlx.runs.run_summary import Summary

if TYPE_CHECKING:
    from tlx.training.metrics import Scores


def draw(summary: Summary, rows: Sequence[Mapping[str, Any]], scores: "Scores", images: Images) -> None:
    """Writes `curves.png`, `confusion.png`, `reliability.png` and `predictions.png` into the run's folder.

    `rows`: the epochs. `scores`: of the test set, whose images are `images`.
    """
    from tlx.reporting import reliability_plot, run_plots

    classes, labels = summary.classes, images.labels.tolist()
    shown = run_plots.choose(labels, scores.predictions, scores.probabilities)

    def predictions() -> None:
        run_plots.predictions(
            [images.decode(i) for i in shown],
            [labels[i] for i in shown],
            [scores.predictions[i] for i in shown],
            [scores.probabilities[i] for i in shown],
            classes,
            summary.folder / "predictions.png",
        )

    with ThreadPoolExecutor(1) as beside:  # decoding and Pillow's work leave Python's lock
        drawn = beside.submit(predictions)
        run_plots.curves(rows, summary.folder / "curves.png", summary.choose_by)
        run_plots.confusion(scores.confusion, classes, summary.folder / "confusion.png")
        reliability_plot.reliability(summary.calibration, len(classes), summary.folder / "reliability.png")
        drawn.result()
