"""What can change in a phase, copied and put back."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from tlx.core.named_tensors import named_tensors
from tlx.training.phase_plan import Plan


def snapshot(net: nn.Sequential, plan: Plan) -> dict[str, Tensor]:
    """Copies of every tensor that the phase can change."""
    moving = {*plan.learning}
    norms = tuple(f"{name}." for name in plan.adapting)
    return {n: t.detach().clone() for n, t in net.state_dict().items() if n in moving or n.startswith(norms)}


def restore(net: nn.Sequential, state: Mapping[str, Tensor]) -> None:
    """Puts a snapshot back, in place."""
    with torch.no_grad():
        for name, tensor in named_tensors(net, state).items():
            tensor.copy_(state[name])
