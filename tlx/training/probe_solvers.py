"""Solvers of the new layer alone, on all rows at once."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from tlx.core.errors import RequestError
from tlx.training import logistic_regression
from tlx.training.phase_plan import Plan
from tlx.training.solver_context import SolverContext, Trained, checked_by
from tlx.training.weighted_loss import class_weights


def one_linear_layer(net: nn.Sequential, plan: Plan, key: str) -> None:
    """Whether a phase trains one linear layer, and nothing that is random in training comes before it.

    Raises:
        RequestError: it does not.
    """
    layers = [m for m in net[plan.cut :].modules() if not list(m.children()) and not isinstance(m, nn.Identity)]
    if [type(layer) for layer in layers] != [nn.Linear]:
        names = ", ".join(type(layer).__name__ for layer in layers)
        raise RequestError(
            f"{key}.solver: it fits one linear layer, and from {plan.rows[plan.cut].stage} on there are {names}; take "
            f"head=linear, head.dropout=0 and {key}.train_from=head, or {key}.solver=sgd"
        )


def layer_of(context: SolverContext) -> nn.Linear:
    """The linear layer that a phase trains."""
    found: nn.Linear = next(m for m in context.tail.modules() if isinstance(m, nn.Linear))
    return found


@checked_by(one_linear_layer)
def linear_probe(context: SolverContext, strongest: float = 10.0, factor: float = 10**-0.5) -> Iterator[Trained]:
    """Logistic regression on standardised features to convergence; an epoch for each strength of the L2 penalty.

    The penalty is `strength ÷ 2 · |weights|²` beside the mean loss of an image, of the features' standardised weights:
    scikit-learn's LogisticRegression with C = 1 / (images · strength). As there, of two classes the difference counts.
    Each fit starts from the one before. Where training images have folds, each strength is also fitted without each of
    them, at once, and what is predicted out of fold chooses the strength together with the validation images; means
    and variances are of all training images. The layer is that of the features as they are: the scale is in its
    weights.

    Args:
        context: of a phase that trains one linear layer. One random view of each image is used.
        strongest: the strength in the first epoch.
        factor: from one epoch's strength to the next one's, less than 1.
    """
    if not 0 < factor < 1 or strongest <= 0:
        raise ValueError("strongest must be above 0, and factor between 0 and 1")
    layer, y = layer_of(context), context.fit.y
    ((x, _),) = context.fit.batches([torch.arange(len(y))], 0)
    axes = _Standardised(x.float())
    weight = class_weights(y, context.training.class_weights)
    folds = None if context.folds is None or context.held_out is None else context.folds.to(y.device)
    uses = torch.ones(len(y), 1, device=y.device)
    if folds is not None:  # the first fit is of all images, each of the others of those outside of a fold
        uses = torch.cat([uses, (folds[:, None] != torch.arange(int(folds.max()) + 1, device=y.device)).float()], 1)
    uses = uses if weight is None else uses * weight[y][:, None]
    images = (uses > 0).sum(0)
    classes = layer.out_features
    with torch.no_grad():
        for epoch in range(context.state.within, context.epochs):
            strength = strongest * factor**epoch
            # From the layer as it is, and not from what is in memory: a run that goes on has nothing else.
            start = axes.inward(layer.weight, layer.bias).expand(len(images), -1, -1) if epoch else None
            fits = logistic_regression.fit(
                axes.rows,
                y,
                uses,
                classes,
                strength * images * (2 if classes == 2 else 1),
                start,
                gram=axes.gram,
            )
            outward, bias = axes.outward(fits[0])
            layer.weight.copy_(outward)
            layer.bias.copy_(bias)
            logits = logistic_regression.scores(axes.rows, fits[0])
            loss = nn.functional.cross_entropy(logits, y, weight)
            others = None if folds is None else (_out_of_fold(axes.rows, fits[1:], folds), y)
            yield Trained(float(loss), None, {"l2": strength}, out_of_fold=others)


def _out_of_fold(rows: Tensor, fits: Tensor, folds: Tensor) -> Tensor:
    """The logits of each row by the fit that has not seen its fold, [N, classes]."""
    every = torch.stack([logistic_regression.scores(rows, one) for one in fits], 1)
    return every[torch.arange(len(rows), device=rows.device), folds]


class _Standardised:
    """Features [N, D] with mean 0 and variance 1, in at most N dimensions: float32, on their device.

    Attributes:
        rows: [N, K]. Where there are fewer images than features, along an orthonormal basis of what they span: weights
            across it are 0 at the optimum.
        gram: the products of their columns, [K, K].
    """

    def __init__(self, x: Tensor) -> None:
        spread, self._mean = torch.std_mean(x.double(), 0, correction=0)
        self._spread = torch.where(spread > 1e-12 * self._mean.abs().clamp(min=1), spread, 1.0)
        rows = ((x - self._mean) / self._spread).float()
        self._basis: Tensor | None = None
        if len(x) < x.shape[1]:
            self._basis, triangle = torch.linalg.qr(rows.T)
            rows = triangle.T.contiguous()
        self.rows, self.gram = rows, rows.T @ rows

    def outward(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Weight [classes, D] and bias [classes] of a layer on the features as they are, from [1 + K, classes]."""
        inner = (weights[1:] if self._basis is None else self._basis @ weights[1:]).double()
        scaled = (inner / self._spread[:, None]).T
        return scaled, weights[0] - scaled @ self._mean

    def inward(self, weight: Tensor, bias: Tensor) -> Tensor:
        """The weights [1 + K, classes] of a layer on the features as they are."""
        scaled = weight.double()
        inner = (scaled * self._spread).T.float()
        inner = inner if self._basis is None else self._basis.T @ inner
        return torch.cat([(bias + scaled @ self._mean).float()[None], inner])
