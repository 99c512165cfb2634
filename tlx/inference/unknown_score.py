"""The score for "none of these classes": how far an image is from the training images, by the model's own features.

Source: Sun et al. (2022), "Out-of-distribution detection with deep nearest neighbors".
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.nn import functional

from tlx.core.errors import RequestError
from tlx.core.made_once import MadeOnce, keepable
from tlx.features.pooled_rows import vectors

__all__ = ["FILE", "UnknownScore", "read", "written"]

FILE = "reference.safetensors"


class UnknownScore(nn.Module):
    """Features of images, the input of the network's last stage → the score of each, float32 `[N]`, from 0 to 2.

    The score is the mean cosine distance to the nearest of the reference images: the larger, the less an image is like
    those that the model was trained on. It is made of plain operations, so that it can be exported with the network.

    Attributes:
        reference: int8 `[R, D]`, the direction of each reference image's features; its length says nothing.
        lengths: float32 `[R]`, of these rows.
        neighbours: how many of the nearest are averaged.
        threshold: an image with a larger score is unknown; None: none is.
    """

    reference: Tensor
    lengths: Tensor

    def __init__(self, reference: Tensor, neighbours: int, threshold: float | None) -> None:
        super().__init__()
        self.register_buffer("reference", reference)
        self.register_buffer("lengths", reference.float().norm(dim=1).clamp(min=1))
        self.neighbours, self.threshold = neighbours, threshold
        self._floats = MadeOnce[Tensor]()

    def forward(self, features: Tensor) -> Tensor:
        """Of rows as the last stage takes them: `[N, D]`, or maps or tokens, which are averaged."""
        nearest = self.cosines(features).topk(self.neighbours, dim=1).values
        return 1 - nearest.mean(1)

    def cosines(self, features: Tensor) -> Tensor:
        """To each reference image, float32 `[N, R]`."""
        directions = functional.normalize(vectors(features.float()))
        rows = self.reference
        reference = self._floats.get([rows], rows.float) if keepable([rows]) else rows.float()
        return directions @ reference.T / self.lengths


def written(folder: Path, score: UnknownScore) -> dict[str, Any]:
    """Writes the reference images into a model's folder; what its description says of the score."""
    content = save({"reference": score.reference.cpu().contiguous()})
    (folder / FILE).write_bytes(content)
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    return {"threshold": score.threshold, "neighbours": score.neighbours, "reference": digest}


def read(folder: Path, known: Mapping[str, Any] | None) -> UnknownScore | None:
    """The score of the model in a folder; `known`: what its description says of it, None of a model without one.

    Raises:
        RequestError: it says what `written` never says.
    """
    if known is None:
        return None
    try:
        digest = hashlib.sha256((folder / FILE).read_bytes()).hexdigest()
        reference = load_file(folder / FILE)["reference"]
    except (OSError, SafetensorError, KeyError) as error:
        raise RequestError(f"damaged ({FILE} is missing or cannot be read)") from error
    if known["reference"] != f"sha256:{digest}":
        raise RequestError(f"damaged ({FILE} is not the file that the description was written for)")
    neighbours, threshold = known["neighbours"], known["threshold"]
    if reference.ndim != 2 or reference.dtype != torch.int8 or neighbours not in range(1, len(reference) + 1):
        raise RequestError(f"damaged ({FILE}: {list(reference.shape)}, {neighbours} neighbours)")
    if threshold is not None and not 0 <= threshold <= 2:
        raise RequestError(f"damaged (unknown.threshold={threshold}: must be null or in 0..2)")
    return UnknownScore(reference, neighbours, threshold)
