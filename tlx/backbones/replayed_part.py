"""Consecutive calls of a model as a module of its own, which has the model's parameters under the model's own names."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tlx.backbones.call_recording import Call, Constant, Held, InputDevice, Multiple, Ref, Share, mapped, refs

__all__ = ["Packing", "ReplayedPart"]


class Packing:
    """What crosses a cut as one tensor, a row an image: one tensor, or the values of several one after the other.

    `shares`: of each tensor, what is of one image.
    """

    def __init__(self, refs: Sequence[Ref], shares: Sequence[Share]) -> None:
        self.refs, self.shares = tuple(refs), tuple(shares)

    def packed(self, tensors: Sequence[Tensor]) -> Tensor:
        """The only tensor, [N, …] as it is or [N · times, …] as [N, times, …]; several as [N, Σ]."""
        if len(tensors) == 1:
            share = self.shares[0]
            return tensors[0] if share.times == 1 else tensors[0].reshape(-1, share.times, *share.shape)
        pairs = zip(tensors, self.shares, strict=True)
        return torch.cat([x.permute(0, *(i + 1 for i in s.order)).reshape(-1, _size(s)) for x, s in pairs], 1)

    def unpacked(self, x: Tensor) -> list[Tensor]:
        """What `packed` was given, in the same layout in memory: another one makes other roundings."""
        if len(self.refs) == 1:
            return [x] if self.shares[0].times == 1 else [x.flatten(0, 1)]
        found = []
        for part, share in zip(torch.split(x, [_size(one) for one in self.shares], 1), self.shares, strict=True):
            laid = part.reshape(-1, *(share.shape[i] for i in share.order))
            found.append(laid.permute(0, *(share.order.index(i) + 1 for i in range(len(share.order)))))
        return found


def _size(share: Share) -> int:
    return share.times * math.prod(share.shape)


class ReplayedPart(nn.Module):
    """The calls between two cuts: what crosses the first one → what crosses the second.

    `calls`: by their numbers, in order. `extra`: names of parameters and buffers that no call uses. Modules are shared
    with `model`, and lie under the paths that they have there.
    """

    def __init__(
        self, model: nn.Module, calls: Mapping[int, Call], before: Packing, after: Packing, extra: Sequence[str] = ()
    ) -> None:
        super().__init__()
        self.before, self.after = before, after
        marks = {number: list(refs((call.args, call.kwargs))) for number, call in calls.items()}
        constants = {one: "" for found in marks.values() for one in found if isinstance(one, Constant)}
        for i, one in enumerate(constants):
            constants[one] = f"_constant{i}"  # a name, so that a copy of the module has its own
            self.register_buffer(constants[one], one.value, persistent=False)
        last: dict[int, int] = {}  # when a result is used for the last time
        for number, found in marks.items():
            last |= {number: number, **{ref.number: number for ref in found if isinstance(ref, Ref)}}
        kept = {ref.number for ref in after.refs}
        self.steps = [
            (number, _named(call, constants), [n for n, end in last.items() if end == number and n not in kept])
            for number, call in calls.items()
        ]
        modules = [call.target for call in calls.values() if call.kind == "module"]
        for path in modules:
            parent, _, leaf = path.rpartition(".")
            self._holder(parent).add_module(leaf, model.get_submodule(path))
        for name in (*(one.name for found in marks.values() for one in found if isinstance(one, Held)), *extra):
            if not any(name.startswith(f"{path}.") for path in modules):
                self._register(model, name)

    def forward(self, x: Tensor) -> Tensor:
        """float [N, …] → float [N, …]."""
        values: dict[int, Any] = {}
        inputs = dict(zip(self.before.refs, self.before.unpacked(x), strict=True))

        def value(mark: Any) -> Any:
            if isinstance(mark, Ref):
                if mark in inputs:
                    return inputs[mark]
                found = values[mark.number]
                for key in mark.path:
                    found = found[key]
                return found
            if isinstance(mark, Held):
                return _attribute(self, mark.name)
            if isinstance(mark, Multiple):
                return mark.times * x.shape[0]
            return x.device if isinstance(mark, InputDevice) else mark

        for number, call, done in self.steps:
            args, kwargs = mapped(call.args, value), mapped(call.kwargs, value)
            if call.kind == "module":
                values[number] = self.get_submodule(call.target)(*args, **kwargs)
            elif call.kind == "method":
                values[number] = getattr(torch.Tensor, call.target)(*args, **kwargs)
            elif call.kind == "attribute":
                values[number] = getattr(args[0], call.target)
            else:
                values[number] = call.target(*args, **kwargs)
            del args, kwargs
            for one in done:
                values.pop(one, None)
        return self.after.packed([value(ref) for ref in self.after.refs])

    def extra_repr(self) -> str:
        """A digest of the calls: two parts with the same modules may do different things with them."""
        called = [(n, c.kind, getattr(c.target, "__qualname__", c.target), c.args, c.kwargs) for n, c, _ in self.steps]
        text = repr(called)
        text += repr((self.before.refs, self.before.shares, self.after.refs, self.after.shares))
        return f"{len(self.steps)} calls, {hashlib.sha256(text.encode()).hexdigest()[:12]}"

    def _holder(self, path: str) -> nn.Module:
        holder: nn.Module = self
        for name in path.split(".") if path else ():
            if name not in holder._modules:
                holder.add_module(name, nn.Module())
            holder = holder.get_submodule(name)
        return holder

    def _register(self, model: nn.Module, name: str) -> None:
        path, _, leaf = name.rpartition(".")
        owner, holder = model.get_submodule(path), self._holder(path)
        if leaf in owner._parameters:
            holder.register_parameter(leaf, owner._parameters[leaf])
        else:
            holder.register_buffer(leaf, owner._buffers[leaf], persistent=leaf not in owner._non_persistent_buffers_set)


def _named(call: Call, constants: Mapping[Constant, str]) -> Call:
    def change(one: Any) -> Any:
        return Held(constants[one]) if isinstance(one, Constant) else one

    return Call(call.kind, call.target, mapped(call.args, change), mapped(call.kwargs, change))


def _attribute(module: nn.Module, name: str) -> Any:
    path, _, leaf = name.rpartition(".")
    return getattr(module.get_submodule(path), leaf)
