"""What training minimises, over a batch: functions that a YAML in conf/loss names.

Each takes `logits` (float `[N, classes]`) and `y` (int64 `[N]`) and gives the images' losses in nats, `[N]`. What it
has a parameter for it gets besides: `smoothing` (the share of a label that is spread evenly over all classes),
`priors` (float `[classes]`: each class's share of the training images), `weight` (`[classes]` or None; one that takes
it weights by itself, and may give the sum), `reduction` ("sum" or "none", for one that can give both). The loss of an
image that is mixed of two is the mean of those of its two labels, by their shares (mixup, Zhang et al. 2018).

Whatever is chosen here, the validation loss is cross-entropy after the temperature, the test loss before it.
"""

from torch import Tensor
from torch.nn import functional

_SMALLEST = 1e-7  # 1 - p below it counts as this much: a power below 1 has no derivative at 0


def cross_entropy(
    logits: Tensor, y: Tensor, *, weight: Tensor | None = None, smoothing: float = 0.0, reduction: str = "sum"
) -> Tensor:
    """The sum (0-d) of the images' cross-entropies, each times the weight of the image's own class; or all `[N]`.

    torch weights the smoothed part by all classes' weights instead: a rare class's large weight then pulls every image
    towards it (https://github.com/pytorch/pytorch/issues/104776).
    """
    if weight is None or not smoothing:
        return functional.cross_entropy(logits, y, weight, reduction=reduction, label_smoothing=smoothing)
    each = functional.cross_entropy(logits, y, reduction="none", label_smoothing=smoothing) * weight[y]
    return each.sum() if reduction == "sum" else each


def focal(logits: Tensor, y: Tensor, *, gamma: float = 2.0) -> Tensor:
    """`-(1 - p)^gamma log p`, p the probability of the image's own class (https://arxiv.org/abs/1708.02002)."""
    if gamma < 0:
        raise ValueError("gamma must be at least 0")
    log_p = functional.log_softmax(logits, 1).gather(1, y[:, None]).squeeze(1)
    return -((-log_p.expm1()).clamp(min=_SMALLEST) ** gamma) * log_p


def logit_adjusted(logits: Tensor, y: Tensor, *, priors: Tensor, smoothing: float = 0.0, tau: float = 1.0) -> Tensor:
    """Cross-entropy of `logits + tau log priors` (https://arxiv.org/abs/2007.07314, equation 10).

    The network learns what is left when the shares of the classes are known: its own logits, by which it predicts, are
    those of classes that are equally frequent.
    """
    adjusted = logits + tau * priors.log()
    return functional.cross_entropy(adjusted, y, reduction="none", label_smoothing=smoothing)
