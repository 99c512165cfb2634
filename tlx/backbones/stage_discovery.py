"""The stage table of a model that nobody wrote one for: found by running it once, and proven."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tlx.backbones.staged_network import staged
from tlx.backbones.submodules import GLUE, method_names
from tlx.core.errors import RequestError

__all__ = ["discover", "stirred"]

METHODS = ("_pos_embed", "pool")  # steps that timm's models take in methods of their own


def discover(model: nn.Module, sample: Tensor, classifier: str) -> dict[str, list[str]] | None:
    """The stages of `model` (name → parts, input side first), or None where its blocks do not run in sequence.

    The model is run on `sample` (float [2, 3, S, S]) in eval mode; where one module's output is the next one's input,
    or becomes it by a function known to `stages.part`, they are a chain. `classifier` is the path of the last layer.
    The table is proven: the staged network's output equals the model's bit for bit, and has the same parameters.
    """
    with torch.no_grad(), stirred(model):
        log, expected = _run(model, sample, classifier)
        for expand in _expansions(model, log, classifier):
            parts = _chain(model, log, expand)
            table = parts and _table(model, parts, expand, classifier)
            if table and _proven(model, table, sample, expected):
                return table
    return None


@contextmanager
def stirred(model: nn.Module) -> Iterator[None]:
    """In eval mode, with something random added to every parameter: many begin as zeros (a ViT's last layer, position
    embeddings), which would make different computations look alike."""
    modes = {module: module.training for module in model.modules()}
    saved = [(parameter, parameter.clone()) for parameter in model.parameters()]
    generator = torch.Generator().manual_seed(0)
    model.eval()
    try:
        for parameter, _ in saved:
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.01)
        yield
    finally:
        for parameter, value in saved:
            parameter.copy_(value)
        for module, training in modes.items():
            module.training = training


@dataclass
class _Event:
    """The moment a module is entered or left: how what it gets (gives) comes from the last output before it.

    `link`: "" the very same tensor, else a part's name; None: in no way that we know.
    """

    path: str
    enters: bool
    link: str | None


def _run(model: nn.Module, sample: Tensor, classifier: str) -> tuple[list[_Event], Tensor]:
    log: list[_Event] = []
    last, busy = sample, False

    def link(x: Any) -> str | None:
        nonlocal busy
        if not isinstance(x, Tensor) or x is last:
            return "" if x is last else None
        busy = True  # a method that is tried may call modules that we listen to
        try:
            return _glue(model, last, x)
        finally:
            busy = False

    def enter(path: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        if not busy:
            alone = len(args) == 1 and all(value is None or value is False for value in kwargs.values())
            log.append(_Event(path, True, link(args[0]) if alone else None))

    def leave(path: str, output: Any) -> None:
        nonlocal last
        if not busy:
            log.append(_Event(path, False, link(output)))
            last = output if isinstance(output, Tensor) else torch.empty(0)

    near = [name for name in dict(model.named_modules()) if (name and name.count(".") < 2) or name == classifier]
    handles = []
    for name in near:
        module = model.get_submodule(name)
        handles.append(
            module.register_forward_pre_hook(lambda _m, a, k, name=name: enter(name, a, k), with_kwargs=True)
        )
        handles.append(module.register_forward_hook(lambda _m, _a, output, name=name: leave(name, output)))
    try:
        expected = model(sample)
        log.append(_Event("", False, link(expected)))
    finally:
        for handle in handles:
            handle.remove()
    return log, expected


def _glue(model: nn.Module, before: Tensor, after: Tensor) -> str | None:
    candidates: dict[str, Any] = {
        **{f".{name}": getattr(model, name) for name in METHODS if callable(getattr(type(model), name, None))},
        **{name: make() for name, make in GLUE.items()},
    }
    for name, function in candidates.items():
        try:
            result = function(before)
        except (RuntimeError, ValueError, IndexError, TypeError, AttributeError, AssertionError):
            continue  # a function for another shape of tensor
        if isinstance(result, Tensor) and result.shape == after.shape and torch.equal(result, after):
            return name
    return None


def _expansions(model: nn.Module, log: Sequence[_Event], classifier: str) -> list[set[str]]:
    """Which containers to look into, the finest first: always those around the classifier, and where one container
    holds all the blocks (`blocks`, `stages`, `layers`), that one."""
    steps = classifier.split(".")
    around = {".".join(steps[:n]) for n in range(1, len(steps))}
    whole = [
        name for name, _ in model.named_children() if any(step.path == name for step in log) and name not in around
    ]
    blocks = [name for name in whole if any(_composite(child) for child in model.get_submodule(name).children())]
    if not blocks:  # a plain chain of layers, as in VGG
        size = {name: sum(_owns(child) for child in model.get_submodule(name).children()) for name in whole}
        blocks = [name for name in whole if size[name] > 2 and size[name] == max(size.values())]
    kin: dict[str, list[str]] = {}  # `layer1` … `layer4` are stages already, `blocks` is to be opened
    for name in blocks:
        kin.setdefault(name.rstrip("0123456789"), []).append(name)
    largest = max(kin.values(), key=lambda names: sum(_parameters(model.get_submodule(n)) for n in names), default=[])
    return [around | set(largest), around] if len(largest) == 1 else [around]


def _chain(model: nn.Module, log: Sequence[_Event], expand: set[str]) -> list[str] | None:
    parts: list[str] = []
    inside = None  # the part that is running
    within: set[str] = set()  # what the last method called itself
    for step in log:
        if inside is not None:
            inside = None if step.path == inside and not step.enters else inside
            continue
        if step.path in expand and step.enters:
            continue
        if step.link is None or step.path in parts:
            return None
        if step.link:
            parts.append(step.link)
            within = method_names(model, step.link[1:]) if step.link.startswith(".") else set()
        if step.enters:
            inside = step.path
            if step.path not in within:
                parts.append(step.path)
                within = set()
    return parts


def _table(model: nn.Module, parts: Sequence[str], expand: set[str], classifier: str) -> dict[str, list[str]] | None:
    """Parts to stages: every block begins one; what lies before the first is `stem`, what follows a block is its."""
    if classifier not in parts:
        return None
    modules = dict(model.named_modules())
    cut = parts.index(classifier)
    while isinstance(modules.get(parts[cut - 1]), nn.Dropout):
        cut -= 1
    table: dict[str, list[str]] = {}
    name = "stem"
    for path in parts[:cut]:
        module = modules.get(path)
        layer = path.rpartition(".")[0] in expand and any(p.ndim > 1 for p in module.parameters()) if module else False
        if module is not None and (_composite(module) or layer):
            name = path.replace(".", "_")
        table.setdefault(name, []).append(path)
    if len(table) > 1 and not any(path.startswith(".") or _owns(modules[path]) for path in table.get("stem", ["."])):
        _, first = list(table)[:2]  # nothing that learns comes before the first block
        table = {first: table.pop("stem") + table.pop(first), **table}
    if len(table) < 2 or "head" in table:
        return None
    return {**table, "head": list(parts[cut:])}


def _proven(model: nn.Module, table: Mapping[str, Sequence[str]], sample: Tensor, expected: Tensor) -> bool:
    try:
        output = staged(model, table)(sample)
    except (RequestError, RuntimeError, AttributeError, TypeError):
        return False  # a parameter in no stage, or a part that needs what it does not have alone
    return isinstance(output, Tensor) and torch.equal(output, expected)


def _owns(module: nn.Module) -> bool:
    return any(True for _ in module.parameters())


def _parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _composite(module: nn.Module) -> bool:
    return any(_owns(child) for child in module.children())
