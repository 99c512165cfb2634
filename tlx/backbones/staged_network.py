"""A network as named stages, input side first: stage tables, the original's keys."""

import logging
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import overload

from torch import Tensor, nn

from tlx.backbones.submodules import expanded, owns, part
from tlx.core.errors import RequestError, nearest, printable

__all__ = ["Layout", "Net", "body_head", "free_name", "misfit", "of_parts", "staged"]

log = logging.getLogger("tlx")


@dataclass(frozen=True)
class Layout:
    """How a network's stages relate to the original network.

    `table`: the stage table, None where the stages were found by tracing. `paths`: prefix of a key in the stages
    ("layer4.0.") → prefix in the original ("layer4."). `last`: where the original has its last layer ("fc"), whose keys
    a new head takes. `pointwise`: that layer is a convolution of 1 x 1, its weight [classes, D, 1, 1]. `classifier`:
    the stage where the classifier starts. `merged`: all stages but the last are one, `body`.
    """

    table: Mapping[str, Sequence[str]] | None
    paths: Mapping[str, str]
    last: str
    pointwise: bool = False
    classifier: str = "head"
    merged: bool = False


class Net(nn.Sequential):
    """A network as named stages: uint8 or float [N, 3, S, S] in 0..255 → logits, float [N, classes].

    A slice is a plain `nn.Sequential` that shares its stages.
    """

    def __init__(self, stages: Mapping[str, nn.Module], layout: Layout) -> None:
        super().__init__()
        self.layout = layout
        for name, stage in stages.items():
            if hasattr(self, name) or "." in name:
                raise RequestError(
                    f"backbone.stages.{name}: no name for a stage (it has a dot, or every module has that attribute)"
                )
            self.add_module(name, stage)

    @property
    def table(self) -> dict[str, list[str]] | None:
        """The stage table that makes these stages from the original network, its last layer included."""
        table = self.layout.table
        return None if table is None else {name: list(parts) for name, parts in table.items()}

    @property
    def traced(self) -> tuple[str, ...]:
        """The stages before the classifier, where they were found by tracing; else none."""
        if self.layout.table is not None or self.layout.merged:
            return ()
        names = list(self._modules)
        return tuple(names[: names.index(self.layout.classifier)])

    @property
    def fine(self) -> bool:
        """False where the stages are `body` and `head` alone: it cannot be cut, or its stages are merged."""
        return not self.layout.merged

    @overload
    def __getitem__(self, index: slice) -> nn.Sequential: ...
    @overload
    def __getitem__(self, index: int) -> nn.Sequential: ...
    def __getitem__(self, index: slice | int) -> nn.Sequential:
        """One stage, or consecutive stages."""
        items = list(self._modules.items())
        chosen = items[index]
        if isinstance(chosen, list):
            return nn.Sequential(OrderedDict((name, module) for name, module in chosen if module is not None))
        assert isinstance(chosen[1], nn.Sequential)
        return chosen[1]

    def original_key(self, key: str) -> str:
        """The name in the original network of the parameter or buffer that is `key` here."""
        prefix = max((p for p in self.layout.paths if key.startswith(p)), key=len)
        return self.layout.paths[prefix] + key[len(prefix) :]

    def original_state(self) -> dict[str, Tensor]:
        """All parameters and buffers under the original network's key names, which loads them strictly.

        A linear head takes the place of the original's last layer and its keys (`fc.weight`); an appended one has keys
        of its own. SqueezeNet's rectifies its convolution's map before pooling, so there the original's logits differ.
        """
        state = {self.original_key(key): value for key, value in self.state_dict().items()}
        weight = f"{self.layout.last}.weight"
        if self.layout.pointwise and weight in state and state[weight].ndim == 2:
            state[weight] = state[weight][:, :, None, None]
        return state

    def load_original(self, state: Mapping[str, Tensor], where: str = "the weights") -> None:
        """Copies a state dict with the original's key names into this network.

        Raises:
            RequestError: keys are missing, left over or of another shape; `where` names the file in the message.
        """
        own = self.original_state()
        # Files older than BatchNorm's counter lack it, and it has no part in the computation.
        full = {**{k: v for k, v in own.items() if k.endswith("num_batches_tracked")}, **state}
        problem = misfit(own, full)
        if problem:
            raise RequestError(f"{where}: {problem}")
        keys = {self.original_key(key): (key, value) for key, value in self.state_dict().items()}
        self.load_state_dict({keys[k][0]: v.reshape(keys[k][1].shape) for k, v in full.items()})


def misfit(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> str:
    """What keeps `state` from being loaded where `own` is expected, in one line; empty where nothing does.

    The line names the first keys of each kind; all of them are logged.
    """
    shapes = [
        f"{k} {list(state[k].shape)} instead of {list(own[k].shape)}"
        for k in own
        if k in state and state[k].shape != own[k].shape
    ]
    lists = {
        "missing": [k for k in own if k not in state],
        "left over": [k for k in state if k not in own],
        "of another shape": shapes,
    }
    for what, keys in lists.items():
        if keys:
            log.info("keys %s: %s", what, ", ".join(keys), extra={"detail": True})
    words = [
        f"{len(keys)} of {len(state if what == 'left over' else own)} keys {what} ({', '.join(keys[:3])}"
        f"{', …' if len(keys) > 3 else ''})"
        for what, keys in lists.items()
        if keys
    ]
    return printable("; ".join(words))


def staged(
    model: nn.Module, stages: Mapping[str, Sequence[str]], normalize: nn.Module | None = None, classifier: str = "head"
) -> Net:
    """The same computation as `model`, as named stages that share its modules; `normalize` comes before everything.

    `stages`: name → parts, input side first; `features[0:5]` stands for `features.0` … `features.4`.

    Raises:
        RequestError: a part does not exist, a parameter is in no stage or in two, or a stage other than the head has
            none.
    """
    built, paths, last = dict[str, nn.Sequential](), dict[str, str](), "head"
    names = dict(model.named_modules())
    if list(stages)[-1:] != ["head"]:
        raise RequestError(f"backbone.stages: the last stage must be called head, not {', '.join(list(stages)[-1:])}")
    for number, (name, parts) in enumerate(stages.items()):
        modules = [normalize] if normalize is not None and number == 0 else []
        for path in (path for given in parts for path in expanded(model, given)):
            module = part(model, path)
            paths[f"{name}.{len(modules)}."] = "" if path.startswith(".") else f"{path}."
            if name == "head" and path in names and (owns(module) or not any(map(owns, modules))):
                last = path  # the layer itself, not what follows it; an nn.Identity where the model has none
            modules.append(module)
        built[name] = nn.Sequential(*modules)
        if not owns(built[name]) and name != "head":
            raise RequestError(
                f"backbone.stages.{name}: owns no parameters; put its parts at the end of the one before"
            )
    if classifier not in built:
        raise RequestError(
            f"backbone.classifier={classifier}: no such stage{nearest(classifier, built)}; stages: {', '.join(built)}"
        )
    counts: dict[int, int] = {}
    for stage in built.values():
        for module in stage:
            for parameter in module.parameters():
                counts[id(parameter)] = counts.get(id(parameter), 0) + 1
    for key, parameter in model.named_parameters():
        if counts.get(id(parameter), 0) != 1:
            many = "in no stage" if id(parameter) not in counts else "in more than one stage"
            raise RequestError(f"backbone.stages: {type(model).__name__}'s parameter {key} is {many}")
    return Net(built, Layout({name: list(parts) for name, parts in stages.items()}, paths, last, classifier=classifier))


def body_head(model: nn.Module, path: str | None, normalize: nn.Module | None = None) -> Net:
    """`model` as two stages, for one that cannot be cut: `body` ([N, D] features) and `head`.

    `path`: where the model has its last layer, which moves from the model to the head; None where it has none.
    """
    head: nn.Module = nn.Identity()
    if path is not None:
        parent, _, leaf = path.rpartition(".")
        owner = model.get_submodule(parent)
        head = getattr(owner, leaf)
        setattr(owner, leaf, nn.Identity())
    first = [normalize] if normalize is not None else []
    stages = {"body": nn.Sequential(*first, model), "head": nn.Sequential(head)}
    last = path or free_name("head", model.state_dict())
    return Net(stages, Layout(None, {f"body.{len(first)}.": "", "head.0.": f"{last}."}, last, merged=True))


def of_parts(parts: Mapping[str, nn.Sequential], path: str | None, normalize: nn.Module | None = None) -> Net:
    """A network of traced stages, each with the original's names in it; the last is `head`.

    `path`: where the original has its last layer, which is the last module of `head`; None where it has none.
    """
    stages, paths = dict[str, nn.Sequential](), dict[str, str]()
    for number, (name, stage) in enumerate(parts.items()):
        first = [normalize] if normalize is not None and number == 0 else []
        stages[name] = nn.Sequential(*first, *stage)
        paths |= {f"{name}.{i}.": "" for i in range(len(stages[name])) if name != "head"}
    last = path or free_name("head", {key: value for s in parts.values() for key, value in s[0].state_dict().items()})
    paths[f"head.{len(stages['head']) - 1}."] = f"{last}."
    return Net(stages, Layout(None, paths, last))


def free_name(name: str, taken: Mapping[str, Tensor]) -> str:
    """`name`, or `new_name` where some key of `taken` begins with it already."""
    return name if not any(key.startswith(f"{name}.") for key in taken) else free_name(f"new_{name}", taken)
