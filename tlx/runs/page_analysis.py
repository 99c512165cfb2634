"""`analysis.json`: what a run finds for its page while features and images are at hand, so that it can be written anew.

Nothing is computed that takes long: features are those that the run has cached, facts of images those of its audit.
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tlx.analysis.audit_data import audit_data
from tlx.analysis.feature_clusters import clusters
from tlx.analysis.feature_map import feature_map
from tlx.analysis.label_errors import label_errors
from tlx.analysis.weak_segments import CLUSTER, weak_segments
from tlx.distributed import process_group
from tlx.runs.output_layout import fact_store
from tlx.runs.page_attention import attention
from tlx.runs.report_page import spared
from tlx.runs.run_files import ANALYSIS

if TYPE_CHECKING:
    from tlx.features.batches import Rows
    from tlx.features.feature_cache import FeatureCache
    from tlx.runs.prepare import Job
    from tlx.runs.run_recorder import Record
    from tlx.training.metrics import Scores

MISTAKES, NEAREST = 24, 3  # mistakes whose nearest training images are looked for, and so many of each
LOOKED = 12  # mistakes of which it is drawn where the network looks
POINTS = 1_500  # images on the map
BYTES = 1 << 30  # of cached features that are read
EPOCH = 6  # seconds of one, up to which features of training images that are not cached are computed: a third of that
FEWEST, MOST = 40, 20_000  # training images for label errors, and images times classes
ERRORS = 24  # label errors that are kept
STRANGEST = 12  # test images that are least like the training images, and images of no class that are most like them

Vectors = NDArray[np.float32]


class Found(NamedTuple):
    """Pooled features of images, and the stage in front of which they are."""

    stage: str
    images: NDArray[np.int64]
    vectors: Vectors


def analyse(record: "Record", job: "Job", features: "FeatureCache", scores: "Scores") -> None:
    """Writes `analysis.json` into the run's folder: parts that lack what they need, or that fail, are left out."""
    correct, probabilities = np.asarray(scores.predictions) == job.data.test.labels, np.asarray(scores.probabilities)
    found: dict[str, Any] = {}
    test: Found | None = None
    train: Found | None = None
    with _part("features of test images"):
        test = _cached(job, features, "test")
    with _part("features of training images"):
        train = _training(record, job, features, test)
    if test is not None:
        with _part("map"):
            found["map"] = _map(test, correct)
    if test is not None and train is not None:
        with _part("neighbours"):
            found["neighbours"] = _neighbours(job, test, train, correct, probabilities)
    if scores.unknown_scores:
        with _part("unknown"):
            found["unknown"] = _unknown(job, scores.unknown_scores)
    if train is not None and not record.within_sweep:
        with _part("label_errors"):
            found |= _label_errors(job, train)
    if not record.within_sweep:
        with _part("attention"):
            wrong = np.flatnonzero(~correct)
            wrong = wrong[np.argsort(-probabilities[wrong], kind="stable")][:LOOKED].tolist()
            found["attention"] = attention(job, wrong, [int(scores.predictions[row]) for row in wrong])
    if job.config.dataset.audit != "off" and job.config.features.store:  # its facts of images are cached
        with _part("segments"):
            found["segments"] = _segments(job, correct, test)
    record.write(ANALYSIS, json.dumps(found, ensure_ascii=False))


def _part(name: str) -> AbstractContextManager[None]:
    """What fails in it is one warning, and all other parts are written."""
    return spared(f"{ANALYSIS}: {name}")


def _training(record: "Record", job: "Job", features: "FeatureCache", test: Found | None) -> Found | None:
    """Of training images, in front of the same stage as those of test images: cached, or quick to compute."""
    train = _cached(job, features, "train", None if test is None else test.stage)
    if train is None and test is not None and _soon(record, job, features):
        train = Found(test.stage, *_read(features.rows(job.net, _stages(job).index(test.stage), "train")))
    return train


def _cached(job: "Job", features: "FeatureCache", split: str, stage: str | None = None) -> Found | None:
    """Of the images of a split, or of as many of them as are quick to read; those of the latest stage that are cached.

    `stage`: no other will do.
    """
    for cut in sorted({plan.cut for plan in job.plans.values()}, reverse=True):
        if not cut or (stage is not None and _stages(job)[cut] != stage):
            continue
        rows = features.cached(job.net, cut, split) or features.cached(job.net, cut, split, training=True)
        if rows is not None and len(rows.y) == len(getattr(job.data, split)):
            return Found(_stages(job)[cut], *_read(rows))
    return None


def _stages(job: "Job") -> list[str]:
    return [name for name, _ in job.net.named_children()]


def _soon(record: "Record", job: "Job", features: "FeatureCache") -> bool:
    """Whether a pass over the training images takes a few seconds: less than an epoch of the last phase, which began
    with the same rows."""
    cut = list(job.plans.values())[-1].cut
    alone = process_group.count() == 1 and not record.within_sweep
    known = cut == 0 or features.cached(job.net, cut, "train") is not None
    return alone and known and len(job.data.train) <= EPOCH * float(record.rows[-1]["images_per_second"])


def _read(rows: "Rows") -> tuple[NDArray[np.int64], Vectors]:
    import torch

    from tlx.features.pooled_rows import pooled

    total = len(rows.y)
    first, _ = next(iter(rows.batches([torch.zeros(1, dtype=torch.int64)], 0)))
    number = max(1, min(total, BYTES // max(first.nbytes, 1)))
    images = torch.linspace(0, total - 1, number).round().long()
    return images.numpy(), pooled(rows, images)


def _map(test: Found, correct: NDArray[np.bool_]) -> dict[str, Any]:
    """Places of the test images from 0 to 1,000; where there are more than `POINTS`, evenly chosen."""
    number = min(POINTS, len(test.images))
    chosen = np.linspace(0, len(test.images) - 1, number).round().astype(np.int64)
    found = feature_map(test.vectors[chosen])
    points = np.column_stack([test.images[chosen], (1000 * found.places).round().astype(np.int64)])
    shares = None if found.explained is None else [round(share, 4) for share in found.explained]
    return {"stage": test.stage, "explained": shares, "points": points.tolist()}


def _neighbours(
    job: "Job", test: Found, train: Found, correct: NDArray[np.bool_], probabilities: NDArray[np.floating]
) -> dict[str, Any]:
    """Of the most confident mistakes the nearest training images: file, class, cosine of the centred features."""
    data = job.data
    wrong = np.flatnonzero(~correct[test.images])
    wrong = wrong[np.argsort(-probabilities[test.images[wrong]], kind="stable")][:MISTAKES]
    middle = train.vectors.mean(axis=0)
    here, there = _unit(test.vectors[wrong] - middle), _unit(train.vectors - middle)
    cosines = here @ there.T
    nearest = np.argsort(-cosines, axis=1, kind="stable")[:, :NEAREST]
    found = {}
    for row, place in enumerate(wrong.tolist()):
        found[data.test.files[int(test.images[place])]] = [
            [data.train.files[i], data.classes[int(data.train.labels[i])], round(float(cosines[row, k]), 3)]
            for k, i in ((int(k), int(train.images[k])) for k in nearest[row])
        ]
    return {"stage": test.stage, "images": len(train.images), "of": found}


def _unit(vectors: Vectors) -> Vectors:
    found: Vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return found


def _unknown(job: "Job", scores: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """The unknown scores of test images and of images of none of the classes, and some of either with their files:
    test images with the largest ones, the others with the smallest."""
    kept, images = {}, {}
    for split, some in scores.items():
        chosen = np.linspace(0, len(some) - 1, min(POINTS, len(some))).round().astype(np.int64)
        kept[split] = [round(some[i], 4) for i in chosen]
        files = job.data.test.files if split == "test" or job.unknown is None else job.unknown.files
        order = np.argsort(-np.asarray(some) if split == "test" else np.asarray(some), kind="stable")[:STRANGEST]
        images[split] = [[files[i], round(some[i], 4)] for i in order.tolist()]
    return {"scores": kept, "images": images}


def _label_errors(job: "Job", train: Found) -> dict[str, Any]:
    """Training images whose label is probably wrong: file, label, what it looks like, certainty; and among how many
    images they were looked for. Nothing where there are too few or too many."""
    data, labels = job.data, job.data.train.labels[train.images]
    if not FEWEST <= len(labels) <= MOST // len(data.classes):
        return {}
    from tlx.analysis.out_of_fold import out_of_fold

    errors = label_errors(out_of_fold(train.vectors, labels, len(data.classes)).logits, labels)
    rows = zip(errors.rows.tolist(), errors.suggested.tolist(), errors.certainty.tolist(), strict=True)
    found = [
        [data.train.files[int(train.images[row])], data.classes[labels[row]], data.classes[other], round(certainty, 3)]
        for row, other, certainty in list(rows)[:ERRORS]
    ]
    return {"label_errors": found, "label_errors_among": len(labels)}


def _segments(job: "Job", correct: NDArray[np.bool_], test: Found | None) -> dict[str, Any]:
    """Test images of some brightness, size or shape, or alike, of which fewer are correct than of the others.

    `examples`: files of each weak cluster, by its number.
    """
    data = audit_data({"test": job.data.test}, job.data.classes, fact_store(job.config))
    of, typical = np.full(len(correct), -1), list[list[int]]()
    if test is not None:
        grouped = clusters(test.vectors)
        of[test.images], typical = grouped.of, grouped.typical
    places = list(data.places)
    found = weak_segments(_facts(data.facts), correct[places], of[places])
    weak = {int(segment.low) for segment in found.weak if segment.fact == CLUSTER}
    examples = {
        str(number): [job.data.test.files[int(test.images[row])] for row in typical[number]]
        for number in sorted(weak)
        if test is not None
    }
    return {"tested": found.tested, "weak": [vars(segment) for segment in found.weak], "examples": examples}


def _facts(facts: NDArray[np.void]) -> Mapping[str, NDArray[np.floating]]:
    width, height = facts["width"].astype(np.float64), facts["height"].astype(np.float64)
    return {
        "brightness": facts["mean"].astype(np.float64),
        "megapixels": width * height / 1e6,
        "width ÷ height": width / np.maximum(height, 1),
        "sharpness": facts["sharpness"].astype(np.float64),
    }
