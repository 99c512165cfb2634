"""What learns in a phase, where the frozen part ends, and which modules are in training mode.

A strategy is data; here is the one mechanism that all of them share.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from tlx.config.schema import AUTO, Phase
from tlx.config.validation import stage_index
from tlx.core.errors import RequestError

MATRICES = (nn.Linear, _ConvNd)
NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm)

# Which parameters of a stage learn: (the module that owns the parameter, its name in that module) → bool.
SELECTORS: Mapping[str, Callable[[nn.Module, str], bool]] = {
    "all": lambda module, name: True,
    "norm": lambda module, name: isinstance(module, NORMS) or "norm" in type(module).__name__.lower(),
    "bias": lambda module, name: name == "bias",
    "matrix": lambda module, name: name == "weight" and isinstance(module, MATRICES),
}


@dataclass(frozen=True)
class Row:
    """A stage in the plan: how many of its parameters learn, at which rate (None: the solver has none, or nothing
    learns; `auto`: it is not found yet), and if statistics adapt."""

    stage: str
    parameters: int
    learning: int
    lr: float | str | None
    adapts: bool = False

    @property
    def frozen(self) -> bool:
        """Whether nothing in it can change."""
        return not self.learning and not self.adapts


@dataclass(frozen=True)
class Plan:
    """A phase, resolved for one network."""

    phase: str
    cut: int  # the first stage where anything learns or adapts: everything before it is a function of the pixels
    learning: tuple[str, ...]  # names of the parameters that learn
    adapting: tuple[str, ...]  # names of the modules whose buffers change: BatchNorms, a head of reference images
    rows: tuple[Row, ...]

    def to_dict(self) -> dict[str, Any]:
        """As `plan.json` has it."""
        stages = [
            {"stage": r.stage, "parameters": r.parameters, "learns": r.learning, "frozen": r.frozen, "lr": r.lr}
            for r in self.rows
        ]
        return {"phase": self.phase, "cut": self.rows[self.cut].stage, "stages": stages}


def plan(net: nn.Sequential, name: str, phase: Phase, *, classifier: str, fine: bool = True, key: str = "") -> Plan:
    """Resolves `phase` for `net`, whose children are its stages, input side first.

    Raises:
        RequestError: an unknown stage, an empty span, or a selection that nothing answers to.
    """
    key = key or f"strategy.phases.{name}"
    stages = [stage for stage, _ in net.named_children()]
    held = _sizes(net)
    first = stage_index(phase.train_from, stages, classifier, key=f"{key}.train_from", fine=fine, sizes=held)
    last = len(stages) - 1
    if phase.train_to is not None:
        last = stage_index(phase.train_to, stages, classifier, key=f"{key}.train_to", fine=fine, sizes=held)
        if last < first:
            raise RequestError(f"{key}.train_to={phase.train_to} lies before train_from={phase.train_from}")
    # The new head always learns: it has no weights to keep.
    span = {*range(first, last + 1), len(stages) - 1}
    learning, adapting, rows, starts = [], [], [], []
    for position, (stage, module) in enumerate(net.named_children()):
        chosen = [n for n, owner, leaf in _owned(module) if position in span and _selected(phase, owner, leaf, stage)]
        statistics = [
            n for n, m in module.named_modules() if _tracks(m) and _adapts(phase, n, m, chosen, position in span)
        ]
        learning += [f"{stage}.{n}" for n in chosen]
        adapting += [f"{stage}.{n}" for n in statistics]
        if chosen or statistics:
            starts.append(position)
        sizes = {n: p.numel() for n, p in module.named_parameters()}
        lr = phase.lr if chosen else None
        lr = lr if lr in (None, AUTO) else lr * phase.lr_decay ** (len(stages) - 1 - position)
        rows.append(Row(stage, sum(sizes.values()), sum(sizes[n] for n in chosen), lr, bool(statistics)))
    between = [row for position, row in enumerate(rows[:-1]) if position in span]
    if between and not any(row.learning for row in between):
        names = f"{between[0].stage} … {between[-1].stage}" if len(between) > 1 else between[0].stage
        raise RequestError(f"{key}.learns=[{', '.join(phase.learns)}]: no parameter in {names} is of that kind")
    return Plan(name, min(starts), tuple(learning), tuple(adapting), tuple(rows))


def longer_last(net: nn.Sequential, phases: Iterable[Phase], *, classifier: str, fine: bool = True) -> str:
    """The stage where `last` begins, if one of the phases names it and it is more than one stage; empty otherwise.

    Versions before `last` was a tenth of the parameters took one stage: their runs are others than those of today.
    """
    if not fine or not any("last" in (phase.train_from, phase.train_to) for phase in phases):
        return ""
    stages = [name for name, _ in net.named_children()]
    one = stage_index("last", stages, classifier, key="")
    first = stage_index("last", stages, classifier, key="", sizes=_sizes(net))
    return stages[first] if first < one else ""


def prepare(net: nn.Sequential, plan: Plan) -> None:
    """Makes exactly the plan's parameters learn, and drops every gradient: no phase sees the one before.

    The network is left in evaluation mode, in which all that is before the cut stays.
    """
    net.eval()
    learning = set(plan.learning)
    for name, parameter in net.named_parameters():
        parameter.grad = None
        parameter.requires_grad_(name in learning)


def set_mode(net: nn.Sequential, plan: Plan) -> None:
    """Sets training mode as `tail.train()` would if it left frozen modules alone.

    Behind the cut a module is in training mode if it owns a learning parameter or owns none (dropout); a BatchNorm only
    if its statistics adapt.
    """
    adapting = set(plan.adapting)
    for stage, tail in list(net.named_children())[plan.cut :]:
        for name, module in tail.named_modules(prefix=stage):
            own = list(module.parameters(recurse=False))
            if _tracks(module):
                module.training = name in adapting
            else:
                module.training = not own or any(p.requires_grad for p in own)


def groups(net: nn.Sequential, plan: Plan, weight_decay: float) -> list[dict[str, Any]]:
    """The optimizer's parameter groups: one for each learning stage and kind, with `lr` and `weight_decay`.

    Parameters of one dimension (norms, biases) take no weight decay (https://arxiv.org/abs/1812.01187, section 3.1).
    """
    learning: dict[str, Tensor] = {n: p for n, p in net.named_parameters() if n in set(plan.learning)}
    found = []
    for row in plan.rows:
        members = [p for n, p in learning.items() if n.startswith(f"{row.stage}.")]
        for decays in (True, False):
            params = [p for p in members if (p.ndim > 1) == decays]
            if params:
                found.append({"params": params, "lr": row.lr, "weight_decay": weight_decay if decays else 0.0})
    return found


def _sizes(net: nn.Sequential) -> list[int]:
    return [sum(p.numel() for p in module.parameters()) for module in net.children()]


def _owned(stage: nn.Module) -> Iterator[tuple[str, nn.Module, str]]:
    """(full name, owner, name in the owner) of every parameter of a stage."""
    for path, module in stage.named_modules():
        for leaf, _ in module.named_parameters(recurse=False):
            yield f"{path}.{leaf}" if path else leaf, module, leaf


def _selected(phase: Phase, owner: nn.Module, leaf: str, stage: str) -> bool:
    return stage == "head" or any(SELECTORS[name](owner, leaf) for name in phase.learns)


def _tracks(module: nn.Module) -> bool:
    """Whether its buffers are of what it has seen: a BatchNorm (InstanceNorm where it is set to), reference images."""
    return getattr(module, "running_mean", None) is not None or _is_fitted(module)


def _is_fitted(module: nn.Module) -> bool:
    """Whether a solver fills its buffers, and training mode does not."""
    return getattr(module, "fitted_buffers", False)


def _adapts(phase: Phase, name: str, norm: nn.Module, learning: Sequence[str], in_span: bool) -> bool:
    if _is_fitted(norm):
        return in_span
    if phase.statistics != "learning":
        return phase.statistics == "all"
    if not list(norm.parameters(recurse=False)):  # no scale of its own: it goes with its stage
        return in_span and "all" in phase.learns
    return any(learner.rpartition(".")[0] == name for learner in learning)
