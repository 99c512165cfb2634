"""A head without weights to learn: an image's classes are those of the most similar reference images.

Source: Wu et al. (2018), "Unsupervised feature learning via non-parametric instance discrimination", section 3.4, and
DINO's evaluation (Caron et al. 2021), for the vote.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from tlx.core.int8_rows import quantised
from tlx.core.made_once import MadeOnce, keepable

__all__ = ["MOST", "SHARPNESS", "NeighbourVote"]

MOST = 200  # neighbours that vote, at most
SHARPNESS = 0.07  # of the vote: a neighbour counts exp(cosine ÷ this)
_OTHERS = 1.0  # neighbours like the nearest one that are of no class, shared by all: no probability is 0


class NeighbourVote(nn.Module):
    """Features [N, D] → logits [N, classes], by a vote of the k reference images of the highest cosine similarity.

    A neighbour votes for its class with exp((cosine - the nearest one's) ÷ sharpness). The logits are the logarithms of
    the votes and of a share of one vote more, which all classes have alike; their softmax are the shares of the votes.

    The size is fixed, so that a saved model is opened without knowing how many images it has: a row of weight 0 is
    empty. It is made of plain operations, so that it can be exported with the network.

    Attributes:
        references: int8 `[R, D]`, the direction of each reference image's features; its length says nothing.
        lengths: float32 `[R]`, of these rows.
        labels: int64 `[R]`.
        weights: float32 `[R]`, of a vote; 0: there is no image.
        neighbours: k, int64, from 1 to `MOST`.
        sharpness: float32, above 0.
    """

    fitted_buffers = True  # what is in them comes from training images

    references: Tensor
    lengths: Tensor
    labels: Tensor
    weights: Tensor
    neighbours: Tensor
    sharpness: Tensor

    def __init__(self, width: int, classes: int, references: int, device: torch.device | None = None) -> None:
        """`references`: R, at least 1."""
        super().__init__()
        self.classes = classes
        self.register_buffer("references", torch.zeros(references, width, dtype=torch.int8, device=device))
        self.register_buffer("lengths", torch.ones(references, device=device))
        self.register_buffer("labels", torch.zeros(references, dtype=torch.int64, device=device))
        self.register_buffer("weights", torch.zeros(references, device=device))
        self.register_buffer("neighbours", torch.ones((), dtype=torch.int64, device=device))
        self.register_buffer("sharpness", torch.tensor(SHARPNESS, device=device))
        self._rows = MadeOnce[tuple[Tensor, Tensor, Tensor, Tensor]]()

    def extra_repr(self) -> str:
        """Its sizes: two networks with other ones are not the same."""
        return f"{self.references.shape[1]}, classes={self.classes}, references={len(self.references)}"

    def fill(self, features: Tensor, labels: Tensor, weights: Tensor) -> None:
        """Puts reference images in: float [n, D], int64 [n], float [n] with n up to R."""
        count = len(features)
        self.weights.zero_()
        self.references[:count] = quantised(features)
        self.lengths[:count] = self.references[:count].float().norm(dim=1).clamp(min=1)
        self.labels[:count], self.weights[:count] = labels, weights

    def forward(self, features: Tensor) -> Tensor:
        """Of features [N, D]: logits, float32 [N, classes]."""
        if torch.is_autocast_enabled(features.device.type):  # cosines of three digits would make other votes
            with torch.autocast(features.device.type, enabled=False):
                return self.logits(features.float(), self.neighbours)
        return self.logits(features.float(), self.neighbours)

    def logits(self, features: Tensor, neighbours: Tensor, own: Tensor | None = None) -> Tensor:
        """As `forward`, with another k. `own`: int64 [N], for each row the reference image that has no vote in it."""
        references, lengths, labels, weights = self._filled()
        cosines = functional.normalize(features) @ references.T / lengths
        cosines = torch.where(weights > 0, cosines, -2.0)
        if own is not None:
            cosines = cosines.scatter(1, own[:, None], -2.0)
        near, places = cosines.topk(min(MOST, len(references)), dim=1)
        rank = torch.arange(near.shape[1], device=near.device)
        there = (rank < neighbours) & (near > -1.5)
        votes = torch.exp((near - near[:, :1]) / self.sharpness) * weights[places] * there
        empty = votes.new_zeros(votes.shape[0], self.classes)
        return (empty.scatter_add(1, labels[places], votes) + _OTHERS / self.classes).log()

    def _filled(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """`references`, as float32, `lengths`, `labels` and `weights`, without the empty rows at the end.

        An export has the int8 rows, all of them.
        """
        every = (self.references, self.lengths, self.labels, self.weights)
        if not keepable(every):
            return self.references.float(), *every[1:]

        def made() -> tuple[Tensor, Tensor, Tensor, Tensor]:
            there = self.weights.nonzero()
            references, lengths, labels, weights = (one[: int(there[-1]) + 1 if len(there) else 1] for one in every)
            return references.float(), lengths, labels, weights

        return self._rows.get(every, made)
