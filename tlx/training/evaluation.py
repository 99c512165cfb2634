"""How good a network's predictions are: loss, accuracy with its interval, per-class figures."""

import itertools
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional

from tlx.core import calibration
from tlx.core.confusion_counts import ConfusionCounts
from tlx.core.device import autocast
from tlx.core.thread_pool import for_passes, side_by_side
from tlx.datasets.further_views import mean_logits
from tlx.distributed import process_group
from tlx.distributed.data_parallel import gathered
from tlx.features.batches import Rows, looks_of
from tlx.features.frozen_forward import as_input, rows_per_pass
from tlx.features.pooled_rows import vectors
from tlx.training.class_averages import mean_f1, mean_recall

CHOOSING = 5_000  # images that an epoch's temperature is fitted to, at most: it takes the time of several passes
PASSES = 4  # that a thread does at a time: handing over a small tail's pass takes longer than the pass


def logits(net: nn.Module, rows: Rows, precision: str) -> Tensor:
    """The logits of `net`, in evaluation mode, for all rows in order: float32 `[N, classes]` on the rows' device.

    Where the rows have several views of each image, the mean over them. Ranks take a stretch of the rows each, and get
    the logits of all.
    """
    looks = range(looks_of(rows))
    return mean_logits([_computed(lambda x: (net(x).float(),), net, rows, precision, look=look)[0] for look in looks])


def outputs(net: nn.Sequential, rows: Rows, precision: str, images: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """As `logits`, with what the last stage is given in front of them: one vector an image, float32 `[N, D]`, of the
    first view.

    `images`: int64 `[N]`, the rows that are looked at; None: all.
    """

    def both(x: Tensor) -> tuple[Tensor, Tensor]:
        seen = net[:-1](x)
        return vectors(seen.float()), net[-1](seen).float()

    features, found = _computed(both, net, rows, precision, images)
    further = [
        _computed(lambda x: (net(x).float(),), net, rows, precision, images, look)[0]
        for look in range(1, looks_of(rows))
    ]
    return features, mean_logits([found, *further])


def seen(net: nn.Sequential, rows: Rows, precision: str, images: Tensor | None = None) -> Tensor:
    """The first of `outputs` alone."""
    return _computed(lambda x: (vectors(net[:-1](x).float()),), net, rows, precision, images)[0]


def _computed(
    run: Callable[[Tensor], tuple[Tensor, ...]],
    net: nn.Module,
    rows: Rows,
    precision: str,
    images: Tensor | None = None,
    look: int = 0,
) -> list[Tensor]:
    """What `run`, which is made of `net`, gives of the rows; each of its tensors has a row for an image.

    `look`: the number of their view.
    """
    net.eval()
    device, wanted = rows.y.device, torch.arange(len(rows.y)) if images is None else images
    n = len(wanted)
    mine = wanted[process_group.part(n)]
    requested = mine if len(mine) else wanted[:1]  # a rank that has none sees how many classes there are

    def computed(some: Iterable[Tensor]) -> list[tuple[Tensor, ...]]:
        with torch.no_grad(), autocast(device, precision):
            return [run(as_input(x, precision)) for x in some]

    passes = rows.batches(torch.split(requested, rows_per_pass(device)), epoch=look)
    given = iter(lambda: [x for x, _ in itertools.islice(passes, PASSES)], [])
    found = itertools.chain.from_iterable(side_by_side(computed, given, for_passes(device)))
    return [gathered(torch.cat(parts)[: len(mine)], n) for parts in zip(*found, strict=True)]


def temperature(logits: Tensor, labels: Tensor) -> float:
    """By what the logits (float `[N, classes]`) are to be divided, as `calibration.temperature` has it."""
    return calibration.temperature(logits.cpu().numpy(), labels.cpu().numpy())


def validation(logits: Tensor, labels: Tensor, rule: str, *, scaled: bool = True) -> dict[str, float]:
    """The validation images' loss (nats) and accuracy, and the figure that `evaluation.choose_by` names (0..1).

    The loss is that of the model as it would be saved, after the temperature that these images give: so an epoch is
    not chosen for how sure it is, which is corrected later (Berta et al. 2025, "Refine, then calibrate"). Of more than
    `CHOOSING` images the temperature is that of a part, the same one in each epoch; the loss is of all.

    Args:
        logits: float `[N, classes]`.
        labels: int64 `[N]`.
        rule: val_macro_f1 and val_balanced_accuracy are the figures that `metrics` has of the test images.
        scaled: False: the loss is before the temperature.
    """
    predictions = logits.argmax(1)
    divisor = _quick_temperature(logits, labels) if scaled else 1.0
    found = {
        "val_loss": float(functional.cross_entropy(logits / divisor, labels)),
        "val_accuracy": float((predictions == labels).float().mean()),
    }
    if rule not in found:
        mean = {"val_macro_f1": mean_f1, "val_balanced_accuracy": mean_recall}[rule]
        found[rule] = mean(ConfusionCounts.of(labels.cpu().numpy(), predictions.cpu().numpy(), logits.shape[1]))
    return found


def _quick_temperature(logits: Tensor, labels: Tensor) -> float:
    """The temperature of at most `CHOOSING` of the images, drawn by a seed that does not change."""
    if len(labels) > CHOOSING:
        drawn = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))[:CHOOSING].to(labels.device)
        logits, labels = logits[drawn], labels[drawn]
    return temperature(logits, labels)
