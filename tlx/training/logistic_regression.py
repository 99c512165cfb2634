"""Multinomial logistic regression with an L2 penalty, to convergence; several fits at once, as one problem.

Newton's method: each step is found by preconditioned conjugate gradients, which need products with the rows only
(as LIBLINEAR and scikit-learn's `newton-cg` do; Nocedal and Wright 2006, chapter 7). No optimizer of torch's: the first
one that is made imports torch's compiler, which takes longer than a probe.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

NEWTON, INNER = 50, 250  # steps at most, and products with the rows in each
HALVINGS = 20  # of a step that does not lower the loss, at most
FORCING = 0.1  # a step is found to this share of the gradient, or finer near the optimum


def fit(
    rows: Tensor,
    y: Tensor,
    uses: Tensor,
    classes: int,
    strength: float | Tensor,
    start: Tensor | None = None,
    *,
    gram: Tensor | None = None,
    on_bias: float = 0.0,
    tolerance: float = 1e-10,
) -> Tensor:
    """Weights [F, 1 + D, classes] of F fits, intercepts first: lowest Σ cross-entropy + strength ÷ 2 · |weights|².

    They are found together: a product of matrices with all of them takes little more time than one.

    Args:
        rows: float [N, D], centred; all is computed in their type and on their device.
        y: int64 [N].
        uses: [N, F]: the weight of each image in each fit; 0 where it has no part in it.
        classes: their number.
        strength: of the penalty; [F] where it differs.
        start: the weights to begin with, such as those of another strength.
        gram: products of the columns of `rows`, [D, D]; None where they are along principal axes, which have none.
        on_bias: the penalty on an intercept, as a share of the one on a weight.
        tolerance: of the mean loss: about how far above its lowest value it may be.
    """
    sizes = uses.sum(0)
    counts = functional.one_hot(y, classes).to(uses).T @ uses + 0.5
    weights = rows.new_zeros(1 + rows.shape[1], len(sizes), classes)
    weights[0] = (counts / counts.sum(0)).log().T
    centre = weights[0].clone()  # an intercept is drawn to the share of its class
    if start is not None:
        weights = start.transpose(0, 1).contiguous()
    penalty = (strength / sizes)[:, None].expand(len(weights), -1, 1).clone()
    penalty[0] *= on_bias
    problem = _Problem(rows, y, (uses / sizes)[:, :, None], penalty, centre)
    logits = problem.logits(weights)
    scaled = _scaling(rows, gram, problem, logits)
    value = problem.value(weights, logits)
    active = torch.ones_like(value, dtype=torch.bool)
    for _ in range(NEWTON):
        probabilities = logits.softmax(2)
        slope = problem.slope(weights, probabilities)
        active = active & (_dot(slope, scaled(slope)) > 2 * tolerance)
        if not active.any():
            break
        step, change = _newton_step(problem, probabilities, slope, scaled, tolerance)
        expected = _dot(slope, step)
        length = active.to(value)
        for _ in range(HALVINGS):
            moved, there = weights + length[:, None] * step, logits + length[:, None] * change
            found = problem.value(moved, there)
            worse = found > value + 1e-4 * length * expected + 10 * torch.finfo(value.dtype).eps * value.abs()
            if not worse.any():
                break
            length = torch.where(worse, length / 2, length)
        else:
            break  # the rounding of numbers is all that is left
        weights, logits, value = moved, there, found
    return weights.transpose(0, 1)


def scores(rows: Tensor, weights: Tensor) -> Tensor:
    """Logits [N, classes] of rows, of one fit, with its weights from `fit`."""
    return torch.addmm(weights[0], rows, weights[1:])


@dataclass(frozen=True)
class _Problem:
    """The mean loss of each fit and its derivatives. Weights are [1 + D, F, classes], logits [N, F, classes]."""

    rows: Tensor
    y: Tensor
    share: Tensor  # of each image in the mean, [N, F, 1]
    penalty: Tensor  # [1 + D, F, 1]
    centre: Tensor  # of the penalty on intercepts, [F, classes]

    def logits(self, weights: Tensor) -> Tensor:
        """Of all rows."""
        found = torch.addmm(weights[0].flatten(), self.rows, weights[1:].flatten(1))
        return found.view(-1, *weights.shape[1:])

    def back(self, per_row: Tensor) -> Tensor:
        """The transposed product of `logits`."""
        return torch.cat([per_row.sum(0)[None], (self.rows.T @ per_row.flatten(1)).view(-1, *per_row.shape[1:])])

    def value(self, weights: Tensor, logits: Tensor) -> Tensor:
        """The loss, [F]."""
        place = self.y[:, None, None].expand(-1, logits.shape[1], 1)
        entropy = logits.logsumexp(2) - logits.gather(2, place)[:, :, 0]
        return (entropy * self.share[:, :, 0]).sum(0) + (self.penalty * self._apart(weights).square()).sum((0, 2)) / 2

    def slope(self, weights: Tensor, probabilities: Tensor) -> Tensor:
        """The gradient in the weights."""
        errors = probabilities.clone()
        errors.scatter_add_(2, self.y[:, None, None].expand(-1, errors.shape[1], 1), -torch.ones_like(errors[..., :1]))
        return self.back(errors * self.share) + self.penalty * self._apart(weights)

    def curved(self, direction: Tensor, probabilities: Tensor) -> tuple[Tensor, Tensor]:
        """The second derivative times a direction, and the direction's logits."""
        change = self.logits(direction)
        mean = (probabilities * change).sum(2, keepdim=True)
        return self.back(probabilities * (change - mean) * self.share) + self.penalty * direction, change

    def _apart(self, weights: Tensor) -> Tensor:
        return torch.cat([(weights[0] - self.centre)[None], weights[1:]])


def _newton_step(
    problem: _Problem, probabilities: Tensor, slope: Tensor, scaled: Callable[[Tensor], Tensor], tolerance: float
) -> tuple[Tensor, Tensor]:
    """The step to the lowest value of the quadratic model, and its logits, by conjugate gradients."""
    step, change = torch.zeros_like(slope), torch.zeros_like(probabilities)
    residual = -slope
    direction = scaled(residual)
    size = first = _dot(residual, direction)
    # Near the optimum the steps become exact: the error is then squared by each of them.
    enough = torch.minimum(FORCING**2 * first, first.square()).clamp(min=tolerance / 10)
    for _ in range(INNER):
        curved, logits = problem.curved(direction, probabilities)
        bend = _dot(direction, curved)
        length = torch.where((size > enough) & (bend > 0), size / bend.clamp(min=1e-300), 0.0)[:, None]
        step, change = step + length * direction, change + length * logits
        residual = residual - length * curved
        towards = scaled(residual)
        before, size = size, _dot(residual, towards)
        if not (size > enough).any():
            break
        direction = towards + (size / before)[:, None] * direction
    return step, change


def _dot(one: Tensor, other: Tensor) -> Tensor:
    """Of each fit, [F]."""
    return (one * other).sum((0, 2))


def _scaling(rows: Tensor, gram: Tensor | None, problem: _Problem, logits: Tensor) -> Callable[[Tensor], Tensor]:
    """The preconditioner: the inverse of the second derivative, as if it were the same for all images and classes."""
    probabilities = logits.softmax(2)
    curvature = (probabilities * (1 - probabilities) * problem.share).sum(0).mean(1).clamp(min=1e-3)  # [F]
    on_bias = 1 / (curvature[:, None] + problem.penalty[0])
    if gram is None:
        scale = 1 / ((rows.norm(dim=0).square() / len(rows))[:, None, None] * curvature[:, None] + problem.penalty[1:])
        return lambda weights: torch.cat([(weights[0] * on_bias)[None], weights[1:] * scale])
    matrix = gram * (curvature.mean() / len(rows))
    matrix.diagonal().add_(problem.penalty[1:].mean())
    factor = torch.linalg.cholesky(matrix)

    def scaled(weights: Tensor) -> Tensor:
        inner = torch.cholesky_solve(weights[1:].flatten(1), factor).view_as(weights[1:])
        return torch.cat([(weights[0] * on_bias)[None], inner])

    return scaled
