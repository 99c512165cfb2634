"""Optimizers, schedules and solvers that YAML files name."""

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from tlx.config.instantiate import component
from tlx.core.errors import RequestError, reason
from tlx.training.phase_plan import Plan
from tlx.training.solver_context import Solver


def optimizer_for(node: Mapping[str, Any], parameters: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """The optimizer that a YAML names by `_target_`, fused where it can be (several times faster on wide layers)."""
    make = component(node, "optimizer")
    chosen = {"fused", "foreach", "differentiable"} & node.keys()
    if (
        "fused" in inspect.signature(make).parameters
        and not chosen
        and all(p.is_floating_point() for group in parameters for p in group["params"])
    ):
        make = partial(make, fused=True)
    optimizer: torch.optim.Optimizer = make(parameters)
    return optimizer


def go_on(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Puts an optimizer's saved state back, each tensor in its parameter's layout: fused kernels go by memory order."""
    try:
        optimizer.load_state_dict(state)
        for parameter, values in optimizer.state.items():
            for name, value in values.items():
                if isinstance(value, Tensor) and value.shape == parameter.shape:
                    values[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise RequestError(
            f"the checkpoint's optimizer does not fit ({reason(error)}); remove the checkpoint to start the run anew"
        ) from error


def schedule_for(node: Mapping[str, Any]) -> Callable[[float, int], float]:
    """The schedule that a YAML names by `_target_`: (epochs done, of how many) → factor."""
    return component(node, "schedule")


def solver_for(node: str | Mapping[str, Any]) -> Solver:
    """The solver that a YAML names by `_target_`, or one of tlx's own by its name."""
    return component({"_target_": f"tlx.training.solvers.{node}"} if isinstance(node, str) else node, "solver")


def check_solver(node: str | Mapping[str, Any], net: nn.Sequential, plan: Plan) -> None:
    """Has the solver look at what it is to train, if it wants to (`solver_context.checked_by`).

    Raises:
        RequestError: it cannot train that.
    """
    check = getattr(getattr(solver_for(node), "func", None), "check", None)
    if check is not None:
        check(net, plan, f"strategy.phases.{plan.phase}")


def small_layer(node: str | Mapping[str, Any]) -> nn.Module:
    """A layer from two features to two classes that the solver trains, to try it out (`solver_context.checked_by`)."""
    make = getattr(getattr(solver_for(node), "func", None), "layer", partial(nn.Linear, 2, 2))
    layer: nn.Module = make()
    return layer
