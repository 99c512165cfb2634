"""A trained network saved, opened again and measured."""

import dataclasses
from typing import TYPE_CHECKING

from tlx.core.activity import doing
from tlx.core.stopwatch import Clock
from tlx.runs.build_features import features_of
from tlx.runs.prepare import Job
from tlx.runs.run_recorder import Record
from tlx.runs.unknown_figures import unknown_figures

if TYPE_CHECKING:
    from tlx.features.feature_cache import FeatureCache
    from tlx.inference.predictor import Model
    from tlx.training.metrics import Scores


def as_saved(job: Job, saved: "Model", features: "FeatureCache") -> tuple[Job, "FeatureCache"]:
    """The job with the model that was opened from its files; rows are made anew where these say something else."""
    same = (saved.preprocessing, saved.precision) == (job.preprocessing, job.precision)
    job = dataclasses.replace(job, net=saved.net, preprocessing=saved.preprocessing, precision=saved.precision)
    return job, features if same else features_of(job, features)


def look(
    record: Record, job: Job, features: "FeatureCache", when: str, clock: Clock, model: "Model | None" = None
) -> "Scores":
    """Measures the test set, which chooses nothing, and keeps what it says.

    `model`: the saved one, where that is measured: with its temperature, and its score for images of no class.
    """
    from tlx.training.evaluation import logits, outputs
    from tlx.training.metrics import scores

    unknown = None if model is None else model.unknown
    temperature = 1.0 if model is None else model.temperature

    when_said = "" if when == "after" else f", {when} training" if when == "before" else f", after {when}"
    with clock.part("evaluation"), doing(f"measuring the test set{when_said}"):
        cut = next(iter(job.plans.values())).cut
        rows, net, few = features.rows(job.net, cut, "test"), job.net[cut:], when != "after"
        if unknown is None:
            found = logits(net, rows, job.precision)
            result = scores(found, rows.y, job.data.classes, temperature=temperature, few=few)
        else:
            seen, found = outputs(net, rows, job.precision)
            far = unknown(seen)
            known = {"temperature": temperature, "unknown": far, "threshold": unknown.threshold}
            result = scores(found, rows.y, job.data.classes, few=few, **known)
            if job.unknown is not None:
                others = features.rows(job.net, cut, "unknown")
                seen, of_others = outputs(net, others, job.precision)
                figures, theirs = unknown_figures(unknown, far, found, seen, of_others)
                record.summary.measured("unknown", figures)
                result.unknown_scores["unknown"] = theirs
    if when == "after":
        record.summary.calibration |= {"temperature": temperature, **result.calibration}
    table = when == "after" or job.config.evaluation.after_each_phase
    record.look(when, result, job.data.test, table=table)
    return result


def draw_samples(record: Record, job: Job, model: "Model") -> None:
    """Draws the images that `evaluation.samples` requests into the run's folder, and predicts them."""
    images = job.samples
    if images is None or images.test is None or not record.writes:
        return
    from PIL import Image

    folder = record.folder / "samples"
    folder.mkdir(exist_ok=True)
    files = []
    for i in range(len(images.test)):
        files.append(folder / f"{images.classes[images.test.labels[i]]}-{i}.png")
        Image.fromarray(images.test.decode(i)).save(files[-1])
    record.samples(model.predict(files))
