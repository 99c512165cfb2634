"""The loss of a batch as the configuration says it: which one, smoothed labels, and the weights of the classes."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from tlx.config.instantiate import component
from tlx.config.schema import Training
from tlx.core.errors import RequestError

# Logits `[N, classes]`, and labels int64 `[N]` or, of mixed images, the shares of the classes `[N, classes]` → the sum
# of the images' losses (0-d).
Loss = Callable[[Tensor, Tensor], Tensor]
OF_TWO = 2  # classes at most that an image is mixed of


def loss_for(node: Mapping[str, Any], training: Training, y: Tensor) -> Loss:
    """The loss that a YAML names by `_target_`, for training labels `y`: int64 `[N]`, with every class in it.

    Raises:
        RequestError: it takes no smoothed labels, which `training` requests; or imbalance would be corrected twice.
    """
    weight = class_weights(y, training.class_weights)
    each = component(node, "loss", weight=weight, smoothing=training.label_smoothing, priors=None, reduction="sum")
    known = getattr(each, "keywords", {})
    _once(node, training, adjusted="priors" in known)
    if "priors" in known:  # counted only where they are needed: a GPU is waited for
        each = partial(each, priors=torch.bincount(y).float() / len(y))
    if training.label_smoothing and "smoothing" not in known:
        raise RequestError(
            f"training.label_smoothing={training.label_smoothing}: {node['_target_']} takes no smoothed labels; leave "
            "it out, or take loss=cross_entropy"
        )
    apart = partial(each, **({"reduction": "none"} if "reduction" in known else {}))
    own = None if "weight" in known else weight  # what the loss does not weight by itself

    def plain(logits: Tensor, labels: Tensor) -> Tensor:
        losses = each(logits, labels)
        total: Tensor = (losses if own is None else losses * own[labels]).sum()
        return total

    def mixed(logits: Tensor, shares: Tensor) -> Tensor:
        total = logits.new_zeros(())
        for share, labels in zip(*(found.T for found in shares.topk(min(OF_TWO, shares.shape[1]))), strict=True):
            losses = apart(logits, labels)
            if losses.shape != labels.shape:
                raise RequestError(
                    f"training.mixing: {node['_target_']} gives {list(losses.shape)} of {len(labels)} images; of mixed "
                    "images each one's loss is needed: leave training.mixing out, or take loss=cross_entropy"
                )
            total = total + (share * (losses if own is None else losses * own[labels])).sum()
        return total

    return lambda logits, labels: (plain if labels.ndim == 1 else mixed)(logits, labels)


def _once(node: Mapping[str, Any], training: Training, *, adjusted: bool) -> None:
    """Refuses two corrections of imbalanced classes. `adjusted`: the loss is one, as it takes their shares."""
    chosen = {
        f"loss={node['_target_'].rpartition('.')[2]}": adjusted,
        f"training.sampler={training.sampler}": training.sampler is not None,
        f"training.class_weights={training.class_weights}": training.class_weights is not None,
    }
    given = [words for words, is_chosen in chosen.items() if is_chosen]
    if len(given) > 1:
        raise RequestError(
            f"{' '.join(given)}: take one of loss=logit_adjusted, training.sampler=balanced and "
            "training.class_weights=balanced, which correct the same"
        )


def guessing(node: Mapping[str, Any], training: Training, y: Tensor) -> float:
    """The mean training loss (nats) of a network that finds all classes equally likely; `y`: as `loss_for`."""
    loss, weight = loss_for(node, training, y), class_weights(y, training.class_weights)
    times = torch.bincount(y).float()
    if training.sampler is not None:
        times = torch.ones_like(times)
    equal = torch.zeros(1, len(times))
    total: float = sum(
        float(loss(equal, torch.tensor([label]))) * number for label, number in enumerate(times.tolist())
    )
    images = float((times if weight is None else times * weight).sum())
    return total / images


def class_weights(y: Tensor, kind: str | None) -> Tensor | None:
    """Weights `[classes]` that give every class the same share of the loss (mean 1 over the images), or None.

    `y`: int64 `[N]`, with every class in it.
    """
    if kind is None:
        return None
    counts = torch.bincount(y)
    return len(y) / (len(counts) * counts.float())
