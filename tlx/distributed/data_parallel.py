"""How ranks divide the work: passes of a frozen part, batches of training. What comes out is that of one process.

Gradients are summed here, not by `DistributedDataParallel`: that divides by the number of ranks, wants the same number
of batches from each and a hook on every parameter; the sum of what `loss / whole` gives on each rank is the gradient of
the whole batch, also where a rank has none of its images, and everything a rank says goes through one door that notices
when another is gone.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from torch.overrides import TorchFunctionMode

from tlx.core.errors import RequestError
from tlx.distributed import process_group

__all__ = ["gathered", "share", "shared_statistics", "sum_gradients"]


def share(index: Tensor, parts: int) -> tuple[Tensor, list[int]]:
    """This rank's rows of a batch that is computed in `parts` micro-batches, and how many are in each; some may be 0.

    Of every micro-batch rank r takes `i[r::R]`.
    """
    mine = [some[process_group.rank() :: process_group.count()] for some in torch.tensor_split(index, parts)]
    return torch.cat(mine), [len(some) for some in mine]


def sum_gradients(parameters: Sequence[nn.Parameter], loss: Tensor) -> Tensor:
    """Every gradient becomes its sum over the ranks, as does the loss (0-d), which is returned; in one exchange.

    A parameter that no rank has a gradient of keeps none: an optimizer leaves it alone.
    """
    if process_group.count() == 1:
        return loss
    kind = torch.promote_types(parameters[0].dtype, torch.float32)
    has = torch.tensor([p.grad is not None for p in parameters], dtype=kind, device=loss.device)
    grads = [(p.grad if p.grad is not None else torch.zeros_like(p)).reshape(-1).to(kind) for p in parameters]
    together = process_group.summed(torch.cat([loss.detach().reshape(1).to(kind), has, *grads]))
    whole, has, *sums = torch.split(together, [1, len(parameters), *(len(grad) for grad in grads)])
    # The device is waited for only where this rank lacks some.
    some = has.tolist() if any(p.grad is None for p in parameters) else [1.0] * len(parameters)
    for parameter, grad, number in zip(parameters, sums, some, strict=True):
        if number:
            parameter.grad = torch.empty_like(parameter).copy_(grad.view(parameter.shape))
    return whole[0].to(loss.dtype)


def gathered(found: Tensor, n: int) -> Tensor:
    """The rows of all ranks, `[n, …]`: each has its `ranks.part(n)` of them in `found`."""
    if process_group.count() == 1:
        return found
    whole = found.new_empty(n, *found.shape[1:])
    whole[process_group.part(n)] = found
    for source in range(process_group.count()):
        process_group.broadcast(whole[process_group.part(n, source)], source)
    return whole


@contextlib.contextmanager
def shared_statistics(net: nn.Module) -> Iterator[bool]:
    """While the block lasts, a BatchNorm in training mode sees the images of all ranks, as in one process.

    Gives whether there is any: then every rank must go through `net` as often as the others, without a row if need be.
    torch's own `SyncBatchNorm` would have to take the modules' places, and has no path for a processor.

    Raises:
        RequestError: a layer keeps statistics of another kind.
    """
    keeping = [m for m in net.modules() if isinstance(m, _NormBase) and (m.training or m.running_mean is None)]
    if process_group.count() == 1 or not keeping:
        yield False
        return
    for norm in keeping:
        if not isinstance(norm, _BatchNorm) and norm.running_mean is not None:
            raise RequestError(
                f"runtime.devices={process_group.count()}: the statistics of {type(norm).__name__} cannot be shared; "
                f"take runtime.devices=1, or statistics=none of the phase"
            )
    with _AllImages():
        yield True


class _AllImages(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        called = _batch_norm if func is functional.batch_norm else func
        return called(*args, **(kwargs or {}))


def _batch_norm(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """`functional.batch_norm` over the images of all ranks."""
    if not training:
        return functional.batch_norm(x, running_mean, running_var, weight, bias, False, momentum, eps)
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    over = [d for d in range(x.ndim) if d != 1]
    shape = [1, -1, *[1] * (x.ndim - 2)]
    n = process_group.summed(wide.new_tensor([x.numel() // x.shape[1]]))
    mean = _sum(wide.sum(over)) / n
    centred = wide - mean.view(shape)
    var = _sum(centred.square().sum(over)) / n
    if running_mean is not None and running_var is not None:
        with torch.no_grad():
            running_mean.lerp_(mean.to(running_mean.dtype), momentum)
            running_var.lerp_((var * n / (n - 1)).to(running_var.dtype), momentum)
    y = centred * (var + eps).rsqrt().view(shape)
    y = y if weight is None else y * weight.view(shape)
    y = y if bias is None else y + bias.view(shape)
    return y.to(x.dtype)


def _sum(x: Tensor) -> Tensor:
    found: Tensor = _Sum.apply(x)
    return found


class _Sum(torch.autograd.Function):
    """The sum over the ranks; its gradient is that of what all of them make of it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return process_group.summed(x.clone())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return process_group.summed(gradients[0].clone(memory_format=torch.contiguous_format))
