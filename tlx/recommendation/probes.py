"""A network's frozen features of training and validation images, and what a linear probe and kNN make of them."""

import collections
import dataclasses
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from tlx.analysis.out_of_fold import out_of_fold
from tlx.core import calibration
from tlx.core.activity import doing
from tlx.core.thread_pool import for_passes, side_by_side
from tlx.datasets.images import Images, Labels, joined
from tlx.datasets.stratified_splits import order
from tlx.features.frozen_forward import Forward, rows_per_pass
from tlx.features.pooled_rows import pooled
from tlx.runs.build_features import features_of
from tlx.runs.prepare import Job

if TYPE_CHECKING:
    from tlx.features.batches import Rows

__all__ = ["NetworkCost", "ProbePredictions", "measured", "probe"]
FOLDS = 5
NEIGHBOURS, SHARPNESS = 10, 0.07  # of kNN; as DINO's evaluation weighs them (Caron et al. 2021)
PASSES = 3  # that are timed, of each worker thread
MEGABYTE = 1e6


@dataclass(frozen=True)
class NetworkCost:
    """What a network costs.

    Attributes:
        parameters: with the new head.
        mb: of its weights on disk, 10⁶ bytes.
        ms: of a prediction on this machine without the decoding, an image of many: as `predict` runs, the median of
            some passes.
    """

    parameters: int
    mb: float
    ms: float


@dataclass(frozen=True)
class ProbePredictions:
    """What probes say of images that they were not trained on; validation images last.

    Attributes:
        logits: of the linear probe after its temperature, float32 [N, classes].
        labels: int64 [N].
        knn: the classes that the nearest neighbours say, int64 [N].
        val: how many are validation images.
    """

    logits: NDArray[np.float32]
    labels: Labels
    knn: Labels
    val: int

    @property
    def correct(self) -> NDArray[np.float64]:
        """Of each image, 1 or 0."""
        found: NDArray[np.float64] = (self.logits.argmax(1) == self.labels).astype(np.float64)
        return found


def measured(job: Job) -> NetworkCost:
    """What the network of a job costs, as the saved model would predict."""
    tensors = job.net.state_dict().values()
    size, rows, workers = job.preprocessing.input_size, rows_per_pass(job.device), for_passes(job.device)
    forward = Forward(job.net, job.precision)
    batch = torch.zeros(rows, 3, size, size, dtype=torch.uint8, device=job.device)
    seconds = []
    with doing(f"timing {job.config.backbone.name}"):
        for _ in range(PASSES + 1):  # in the first one the pass is recorded, and each thread prepares its operations
            began = time.perf_counter()
            collections.deque(side_by_side(forward, [batch] * workers, workers), maxlen=0)
            if job.device.type == "cuda":
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - began)
    parameters = sum(parameter.numel() for parameter in job.net.parameters())
    mb = sum(tensor.nbytes for tensor in tensors) / MEGABYTE
    return NetworkCost(parameters, round(mb, 2), round(1000 * float(np.median(seconds[1:])) / (rows * workers), 3))


def probe(job: Job, images: int, seed: int) -> ProbePredictions:
    """Out-of-fold predictions for so many training and validation images of a job, stratified and nested by seed.

    The rows go through the cache of features: a run with the same network reads them.
    """
    sets = _some(job, images, seed)
    cut = next(iter(job.plans.values())).cut
    cache = features_of(_with(job, sets))
    rows: dict[str, Rows] = {split: cache.rows(job.net, cut, split) for split in sets}
    features = np.concatenate([pooled(rows[split], torch.arange(len(sets[split]))) for split in sets])
    labels = np.concatenate([sets[split].labels for split in sets])
    both = joined([sets["train"], sets["val"]])
    groups = np.unique(np.array(both.groups), return_inverse=True)[1] if both.groups else None
    classes = len(job.data.classes)
    with doing(f"probing the features of {job.config.backbone.name}"):
        found = out_of_fold(features, labels, classes, groups, folds=FOLDS, seed=seed)
        temperature = calibration.temperature(found.logits, labels)
        knn = nearest_classes(features, labels, found.folds, classes)
    return ProbePredictions(found.logits / np.float32(temperature), labels, knn, len(sets["val"]))


def nearest_classes(features: NDArray[np.floating], labels: Labels, folds: Labels, classes: int) -> Labels:
    """The class that the nearest images in other folds say by cosine, each with the weight exp(cosine ÷ 0.07).

    Args:
        features: [N, D].
        labels, folds: of each image, int64 [N].
        classes: their number.
    """
    rows = functional.normalize(torch.from_numpy(np.asarray(features, np.float32)), dim=1)
    y, fold = torch.from_numpy(labels), torch.from_numpy(folds)
    said = torch.zeros(len(y), dtype=torch.int64)
    for number in range(int(folds.max()) + 1):
        here, rest = (fold == number).nonzero()[:, 0], (fold != number).nonzero()[:, 0]
        for some in torch.split(here, 1024):
            near = (rows[some] @ rows[rest].T).topk(min(NEIGHBOURS, len(rest)), dim=1)
            votes = torch.zeros(len(some), classes)
            votes.scatter_add_(1, y[rest][near.indices], (near.values / SHARPNESS).exp())
            said[some] = votes.argmax(1)
    found: Labels = said.numpy()
    return found


def parts(train: int, val: int, images: int) -> tuple[int, int]:
    """Of so many images, how many train and how many validate: in the shares that all of them have."""
    of_train = min(round(images * train / (train + val)), train)
    return of_train, min(images - of_train, val)


def _some(job: Job, images: int, seed: int) -> dict[str, Images]:
    """So many training and validation images: those that `dataset.limit` takes."""
    train, val = job.data.train, job.data.val
    counts = parts(len(train), len(val), images)
    return {
        split: whole.subset(np.sort(order(whole.labels, seed)[:count]))
        for split, whole, count in zip(("train", "val"), (train, val), counts, strict=True)
    }


def _with(job: Job, sets: dict[str, Images]) -> Job:
    """The job with fewer images, and without random views of them."""
    data = dataclasses.replace(job.data, train=sets["train"], val=sets["val"])
    augmentation = dataclasses.replace(job.config.augmentation, transforms=[])
    return dataclasses.replace(job, data=data, config=dataclasses.replace(job.config, augmentation=augmentation))
