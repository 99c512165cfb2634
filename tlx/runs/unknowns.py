"""What a run's model knows of images that are of none of its classes: reference images, a threshold, and their worth.

The threshold is set by images that the features have not learned from: the validation images and, where the features
are as they came with the backbone, also the training images, each without itself. It is the rank
⌈(n + 1)(1 - rate)⌉ of n such scores, so that a new image of the same kind exceeds it with a probability of at most
`rate` (split conformal prediction: Vovk et al. 2005; Papadopoulos et al. 2002).
"""

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tlx.core.activity import doing
from tlx.core.int8_rows import quantised
from tlx.core.stopwatch import Clock
from tlx.datasets.images import Images, Labels
from tlx.inference.unknown_score import UnknownScore
from tlx.runs.build_features import pixels_of
from tlx.runs.prepare import Job
from tlx.runs.run_recorder import Record
from tlx.training.evaluation import seen

if TYPE_CHECKING:
    from tlx.features.batches import Rows
    from tlx.features.feature_cache import FeatureCache

__all__ = ["fit"]
MOST = 2_000  # reference images, and validation images that set the threshold
NEAREST = 5  # of the reference images


def fit(record: Record, job: Job, features: "FeatureCache", clock: Clock) -> UnknownScore | None:
    """The unknown score of the network as it is, and what the summary says of it; None where none is requested.

    After a refit no image is held out: where the features have been trained, the threshold is that of the network
    before it, as the temperature is.
    """
    rate, data = job.config.evaluation.unknown.rate, job.data
    if rate is None:
        return None
    with clock.part("evaluation"), doing("looking how far images are from the training images"):
        chosen, refitted = evenly(data.train.labels, MOST), bool(record.summary.refit)
        known = _features(job, features, "train", chosen)
        k = min(NEAREST, max(1, len(chosen) // (2 * len(data.classes))))
        score = UnknownScore(quantised(known).to(known.device), k, None)
        held_out = {}
        if not refitted:
            val = evenly(data.val.labels, MOST)
            held_out["val"] = score(_features(job, features, "val", val)).cpu().numpy()
        if not _trained(job):
            held_out["train"] = _without_itself(score, known, _groups(data.train, chosen))
        if held_out:
            scores = np.concatenate(list(held_out.values()))
            found = {"threshold": threshold(scores, rate), "images": len(scores), "fitted_on": " and ".join(held_out)}
            record.summary.unknown = {"rate": rate, **found}
        record.summary.unknown |= {"reference": len(chosen), "neighbours": k}
        score.threshold = record.summary.unknown.get("threshold")
    return score


def threshold(scores: NDArray[np.floating], rate: float) -> float | None:
    """The score that at most the share `rate` of new images exceeds, from those of images that nothing has learned
    from; None where these are too few to say."""
    rank = math.ceil((len(scores) + 1) * (1 - rate) - 1e-9)
    return None if rank > len(scores) else float(np.clip(np.sort(scores)[rank - 1], 0, 2))


def evenly(labels: Labels, most: int) -> Labels:
    """The places of at most about `most` images, int64, ascending: of each class its share, and one at least, evenly
    spread over its images."""
    share = min(1.0, most / max(len(labels), 1))
    chosen = []
    for label in np.unique(labels):
        places = np.flatnonzero(labels == label)
        chosen.append(places[np.linspace(0, len(places) - 1, math.ceil(share * len(places))).round().astype(np.int64)])
    found: Labels = np.sort(np.concatenate(chosen))
    return found


def _trained(job: Job) -> bool:
    """Whether what the last stage is given may have learned from the training images: here, or where it came from."""
    last = len(list(job.net.children())) - 1
    return job.config.backbone.weights not in ("imagenet", "none") or min(p.cut for p in job.plans.values()) < last


def _without_itself(score: UnknownScore, known: Tensor, groups: Labels) -> NDArray[np.floating]:
    """The scores of the reference images, each against those of other groups."""
    own = torch.from_numpy(groups).to(known.device)
    found = []
    for some in torch.split(torch.arange(len(known), device=known.device), 256):
        cosines = score.cosines(known[some]).masked_fill(own[some][:, None] == own, -1.0)
        found.append(1 - cosines.topk(score.neighbours, dim=1).values.mean(1))
    return torch.cat(found).cpu().numpy()


def _groups(images: Images, chosen: Labels) -> Labels:
    """A number for each chosen image, the same for those of one group."""
    names = [(images.groups[i] if images.groups else "") or i for i in chosen.tolist()]
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return np.array([numbers[name] for name in names], np.int64)


def _features(job: Job, features: "FeatureCache", split: str, chosen: Labels) -> Tensor:
    """What the last stage is given of some images of a split, float32 [N, D], as when the model is measured."""
    cut = next(iter(job.plans.values())).cut
    images = getattr(job.data, split)
    if cut == 0 or len(images) <= MOST or features.cached(job.net, cut, split) is not None:
        rows, index = features.rows(job.net, cut, split), torch.from_numpy(chosen)
    else:  # of more images no rows are cached for it
        rows, index = _computed(job, images.subset(chosen)), torch.arange(len(chosen))
    return seen(job.net[cut:], rows, job.precision, index)


def _computed(job: Job, images: Images) -> "Rows":
    """The rows of images in front of the first cut, computed as they are requested."""
    from tlx.features.batches import Through
    from tlx.features.frozen_forward import Forward

    cut = next(iter(job.plans.values())).cut
    exact = job.config.features.mode == "exact"
    return Through(Forward(job.net[:cut], job.precision, exact=exact), pixels_of(job, images))
