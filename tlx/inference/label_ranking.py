"""Which images to label next, or to look at again: an order of images by what a model says of them.

- `uncertain`: smallest margin first, between the two most probable classes (Scheffer et al. 2001).
- `diverse`: greedy k-center on the features (Sener & Savarese 2018, "Active learning for convolutional neural
  networks: a core-set approach"), each distance times the image's uncertainty, so that what is chosen is neither sure
  nor like a training image nor like what was chosen before.
- `mistaken`: of images in class folders, the probability of the predicted class less that of the folder's, the largest
  first (Northcutt et al. 2021, "Confident learning", call it the normalised margin).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from tlx.core.errors import RequestError, precomposed
from tlx.core.thread_pool import for_passes, side_by_side
from tlx.datasets.content_digests import digest_of
from tlx.datasets.image_decoding import UnreadableImage
from tlx.datasets.image_sources import content_of
from tlx.datasets.preprocessing import as_batch
from tlx.features.frozen_forward import rows_per_pass
from tlx.features.pooled_rows import vectors
from tlx.inference import seen_images
from tlx.inference.predictor import Model, Prediction

__all__ = ["RankedImage", "RankedImages", "diverse", "learned", "ranked", "seen", "uncertainty"]

_Seen = tuple[Prediction, NDArray[np.float32] | None]


@dataclass(frozen=True)
class RankedImage:
    """An image of an order.

    Attributes:
        score: by which it was chosen, 0..1; for `diverse` at the time when it was.
        label: the folder's name, for `mistaken`; else empty.
    """

    prediction: Prediction
    score: float
    label: str = ""


@dataclass(frozen=True)
class RankedImages:
    """The first images of an order.

    Attributes:
        images: the first comes first.
        failed: what could not be read.
        aside: how many have no place in the order: of `mistaken`, those in folders that are no class.
        agreed: of `mistaken`, those that the model predicts as their folder is named.
    """

    images: Sequence[RankedImage]
    failed: Sequence[Prediction]
    aside: int = 0
    agreed: int = 0


def ranked(
    model: Model, files: Iterable[Path], order: str, most: int, watch: Callable[[], None], batch_size: int | None = None
) -> RankedImages:
    """The first `most` images of an order: `uncertain`, `diverse` or `mistaken`; `watch` is called after each image.

    Raises:
        RequestError: for `mistaken`: no image lies in a folder that is named as a class.
    """
    found, rows, failed = list[Prediction](), list[NDArray[np.float16]](), list[Prediction]()
    for prediction, features in seen(model, files, batch_size):
        watch()
        if features is None:
            failed.append(prediction)
            continue
        found.append(prediction)
        if order == "diverse":
            rows.append(features.astype(np.float16))
    return _ORDERED[order](model, found, rows, most, failed)


def seen(model: Model, files: Iterable[Path], batch_size: int | None = None) -> Iterator[_Seen]:
    """Of each image its prediction, with one of the classes however unlike it is, and the features that the model's
    last stage takes, `[D]`; None where it could not be read."""

    def of(held: list[tuple[str, Tensor | str]]) -> list[_Seen]:
        views = [view for _, view in held if isinstance(view, Tensor)]
        answers = iter(zip(*_both(model, as_batch(views)), strict=True) if views else ())
        made = list[_Seen]()
        for name, view in held:
            if isinstance(view, Tensor):
                features, answer = next(answers)
                made.append((model._prediction(name, *answer, unknown=False), features.numpy()))
            else:
                made.append((Prediction(name, error=view), None))
        return made

    batches = model._batches(model._views(files), batch_size or rows_per_pass(model.device))
    for some in side_by_side(of, batches, for_passes(model.device)):
        yield from some


def _both(model: Model, x: Tensor) -> tuple[Tensor, Iterable[tuple[list[float], float | None]]]:
    features, logits, scores = model.with_features(x)
    return vectors(features.float()).cpu(), model._answers(logits, scores)


def uncertainty(probabilities: NDArray[np.floating]) -> NDArray[np.float64]:
    """1 less the margin between the two most probable classes, 0..1, of each row `[N, C]` of probabilities."""
    if probabilities.shape[1] < 2:
        return np.zeros(len(probabilities))
    best = np.partition(probabilities.astype(np.float64), -2, axis=1)[:, -2:]
    return 1 - (best[:, 1] - best[:, 0])


def diverse(features: Tensor, weights: Tensor, covered: Tensor | None, most: int) -> tuple[list[int], list[float]]:
    """Rows that are chosen one after the other, and the score of each when it was.

    The score is the weight times the cosine distance (0..1) to the nearest of what is covered: at first the training
    images, then also what was chosen.

    Args:
        features: `[N, D]`.
        weights: `[N]`, 0..1.
        covered: `[R, D]`, of training images; None or empty: nothing is covered, and the largest weight comes first.
        most: rows, at most.
    """
    directions = functional.normalize(features.float())
    away = torch.ones(len(directions))
    if covered is not None and len(covered):
        known = functional.normalize(covered.float())
        for start in range(0, len(directions), 4096):
            part = slice(start, start + 4096)
            away[part] = ((1 - (directions[part] @ known.T).amax(1)) / 2).clamp(0, 1)
    chosen, scores, left = list[int](), list[float](), torch.ones(len(directions), dtype=torch.bool)
    for _ in range(min(most, len(directions))):
        score = torch.where(left, weights * away, -1.0)
        best = int(score.argmax())
        chosen.append(best)
        scores.append(float(score[best]))
        left[best] = False
        away = torch.minimum(away, ((1 - directions @ directions[best]) / 2).clamp(0, 1))
    return chosen, scores


def _uncertain(
    model: Model, found: list[Prediction], rows: Sequence[object], most: int, failed: list[Prediction]
) -> RankedImages:
    scores = uncertainty(_table(model, found))
    order = np.argsort(-scores, kind="stable")[:most].tolist()
    return RankedImages([RankedImage(found[i], float(scores[i])) for i in order], failed)


def _diverse(
    model: Model, found: list[Prediction], rows: list[NDArray[np.float16]], most: int, failed: list[Prediction]
) -> RankedImages:
    if not found:
        return RankedImages([], failed)
    weights = torch.from_numpy(uncertainty(_table(model, found))).float()
    covered = None if model.unknown is None else model.unknown.reference.cpu()
    chosen, scores = diverse(torch.from_numpy(np.stack(rows)), weights, covered, most)
    return RankedImages([RankedImage(found[i], score) for i, score in zip(chosen, scores, strict=True)], failed)


def _mistaken(
    model: Model, found: list[Prediction], rows: Sequence[object], most: int, failed: list[Prediction]
) -> RankedImages:
    classes = set(model.classes)
    labelled = [(p, name) for p in found if (name := precomposed(PurePath(p.file).parent.name)) in classes]
    if found and not labelled:
        names = ", ".join(model.classes[:5]) + (", …" if len(model.classes) > 5 else "")
        raise RequestError(
            f"--rank mistaken: no image lies in a folder that is named as one of the model's classes ({names}); give "
            "the folder of the class folders"
        )
    wrong = [
        RankedImage(p, p.probability - p.probabilities[name], name) for p, name in labelled if p.prediction != name
    ]
    wrong.sort(key=lambda one: -one.score)
    return RankedImages(wrong[:most], failed, len(found) - len(labelled), len(labelled) - len(wrong))


_ORDERED: Mapping[str, Callable[..., RankedImages]] = {
    "uncertain": _uncertain,
    "diverse": _diverse,
    "mistaken": _mistaken,
}


def _table(model: Model, found: Sequence[Prediction]) -> NDArray[np.float64]:
    return np.array([[p.probabilities[name] for name in model.classes] for p in found]).reshape(-1, len(model.classes))


def learned(folder: Path, files: Sequence[Path]) -> list[bool]:
    """Of each file, whether the model in `folder` was trained on it or chosen by it; False where that is not known."""
    kept = seen_images.read(folder)
    if kept is None:
        return [False] * len(files)
    return [split != "" for split in seen_images.split_of(kept, [_digest(file) for file in files])]


def _digest(file: Path) -> str:
    """As a model keeps it; that of no image where the file cannot be read, which is said when it is predicted."""
    try:
        content = content_of(file)
        return digest_of(content.read_bytes() if isinstance(content, Path) else content)
    except (OSError, UnreadableImage):
        return "0" * seen_images.DIGITS
