"""The solver that learns by keeping images: k nearest neighbours, k chosen like an epoch."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from tlx.backbones.neighbours_head import MOST, SHARPNESS, NeighbourVote
from tlx.core.errors import RequestError
from tlx.training.phase_plan import Plan
from tlx.training.solver_context import SolverContext, Trained, checked_by
from tlx.training.weighted_loss import class_weights

COUNTS = (1, 3, 5, 10, 20, 50, 100, 200)  # DINO's, and fewer for few images
AT_ONCE = 256  # rows whose similarities to all reference images are in memory together


def neighbours_alone(net: nn.Sequential, plan: Plan, key: str) -> None:
    """Whether a phase fills a head of reference images and trains nothing else.

    Raises:
        RequestError: it does not.
    """
    found = [m for m in net[plan.cut :].modules() if isinstance(m, NeighbourVote)]
    if not found or plan.learning or plan.cut != len(net) - 1:
        raise RequestError(
            f"{key}.solver=knn: it fills a head of reference images and trains no layer; take head=neighbours and "
            f"{key}.train_from=head"
        )


@checked_by(neighbours_alone, lambda: NeighbourVote(2, 2, 4))
def knn(context: SolverContext, counts: Sequence[int] = COUNTS, sharpness: float = SHARPNESS) -> Iterator[Trained]:
    """Classification by the k nearest training images (`neighbours_head.NeighbourVote`); an epoch for each k.

    No gradients. Of more images than the head holds, it keeps of each class its share, evenly spread.
    The training loss is of the reference images, each without itself. It ends before a k that is above their number.

    Args:
        context: of a phase that fills a head of reference images. One random view of each image is used.
        counts: the values of k, in the order of the epochs, each from 1 to `MOST`.
        sharpness: a neighbour's vote is exp(cosine ÷ this).
    """
    if not counts or not all(1 <= count <= MOST for count in counts) or sharpness <= 0:
        raise ValueError(f"counts must be from 1 to {MOST}, and sharpness above 0")
    (head,) = (m for m in context.tail.modules() if isinstance(m, NeighbourVote))
    chosen = _spread(context.fit.y, len(head.references))
    parts = [(x.float(), y) for x, y in context.fit.batches(torch.split(chosen, AT_ONCE), 0)]
    x, y = torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts])
    weight = class_weights(context.fit.y, context.training.class_weights)
    with torch.no_grad():
        head.fill(x, y, torch.ones_like(x[:, 0]) if weight is None else weight[y])
        head.sharpness.fill_(sharpness)
        for count in counts[context.state.within : context.epochs]:
            if count >= max(len(x), 2) and count != counts[0]:
                return
            head.neighbours.fill_(count)
            yield Trained(_loss(head, x, y, weight), None, {"neighbours": count})


def _loss(head: NeighbourVote, x: Tensor, y: Tensor, weight: Tensor | None) -> float:
    """The mean cross-entropy of the reference images, each without itself, nats."""
    places = torch.split(torch.arange(len(x), device=x.device), AT_ONCE)
    logits = torch.cat([head.logits(x[some], head.neighbours, some) for some in places])
    return float(functional.cross_entropy(logits, y, weight))


def _spread(y: Tensor, most: int) -> Tensor:
    """The places of at most `most` images, int64, ascending, on the CPU: of each class its share, evenly spread."""
    labels = y.cpu()
    if len(labels) <= most:
        return torch.arange(len(labels))
    order = torch.argsort(labels, stable=True)
    step = (len(labels) / most) * (torch.arange(most) + 0.5)
    # Of the images sorted by class, every (N ÷ most)th: each class has its share, to one image.
    return order[step.floor().long()].sort().values
