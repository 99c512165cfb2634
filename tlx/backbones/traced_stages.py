"""The stages of a model whose blocks do not run in sequence: its calls in their order, cut where little crosses."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from tlx.backbones.call_recording import Held, Recording, Ref, Share, Unrecordable, recorded, refs
from tlx.backbones.replayed_part import Packing, ReplayedPart
from tlx.backbones.stage_discovery import stirred
from tlx.backbones.submodules import owns

__all__ = ["retraced", "traced"]

SHARE = 0.1  # of the parameters: a module with more is looked into
HALF = 0.5  # of the parameters: a stage with more is cut where several tensors cross, too, into stages of `SHARE`
CROSSING = 8  # tensors at most that are kept together


def traced(model: nn.Module, sample: Tensor, classifier: str | None) -> dict[str, nn.Sequential] | None:
    """The stages of `model` by name, input side first, the last one `head`; None where no cut is found.

    The model is run on `sample` (float [3, 3, S, S]), its calls of modules and functions are recorded, and a stage
    makes those between two cuts. A cut is where all that is computed before it and used after it are a few tensors with
    a row an image; they are one row together. Each parameter is in one stage. `classifier` is the path of the last
    layer, a fully-connected one which gives the model's output; None: the model gives features, and `head` is empty.
    The stages are proven: they compute bit for bit what the model does, for another number of images but for roundings,
    and what crosses a cut is of each image alone.
    """
    with torch.no_grad(), stirred(model):
        stages = _stages(model, sample, classifier)
        return stages if stages is not None and _proven(stages, sample, model) else None


def retraced(
    model: nn.Module, sample: Tensor, classifier: str | None, names: Sequence[str]
) -> dict[str, nn.Sequential] | None:
    """The stages that `traced` found and proved at another time, `names` and `head`; None where there are others now.

    Two passes, of two images and of three, in place of seven and of the search for a chain; the weights may be zeros.
    """
    model.eval()
    with torch.no_grad():
        stages = _stages(model, sample, classifier)
    return stages if stages is not None and list(stages) == [*names, "head"] else None


def _stages(model: nn.Module, sample: Tensor, classifier: str | None) -> dict[str, nn.Sequential] | None:
    try:
        recording = recorded(model, sample, _opened(model, classifier))
    except Unrecordable:
        return None
    return _Cutting(model, recording, classifier).stages()


def _proven(stages: Mapping[str, nn.Sequential], sample: Tensor, model: nn.Module) -> bool:
    two, one = sample[:2], sample[:1]
    for stage in stages.values():
        two, one = stage(two), stage(one)
        if len(two) != 2 or len(one) != 1 or not _close(two[:1], one):
            return False  # its rows are not those of the images
    # A view of one image may be laid out otherwise than that of two, and be computed with in another order.
    return torch.equal(two, model(sample[:2])) and _close(one, model(sample[:1]))


def _close(a: Tensor, b: Tensor) -> bool:
    """The same but for roundings."""
    return bool((a - b).abs().max() <= 0.001 * b.abs().max())


def _opened(model: nn.Module, classifier: str | None) -> set[str]:
    """Paths of modules that are looked into: those around the classifier, and large ones that hold lists of blocks."""
    found, total = {""}, sum(p.numel() for p in model.parameters())
    steps = (classifier or "").split(".")
    around = {".".join(steps[:n]) for n in range(1, len(steps))}
    for path, module in model.named_modules():
        if path.rpartition(".")[0] not in found:
            continue
        size = sum(p.numel() for p in module.parameters())
        lists = [m for m in (module, *module.children()) if _bare(m) or isinstance(m, nn.Sequential)]
        blocks = max((sum(map(_composite, one.children())) for one in lists), default=0)
        if _bare(module) or path in around or (size > SHARE * total and blocks > 1):
            found.add(path)
    return found


class _Cutting:
    """Where a recording is cut. A position is a place in `order`, the calls whose result depends on the input."""

    def __init__(self, model: nn.Module, recording: Recording, classifier: str | None) -> None:
        self.model, self.recording, self.classifier = model, recording, classifier
        self.calls = recording.calls
        used = [{ref.number for ref in refs((c.args, c.kwargs)) if isinstance(ref, Ref)} for c in self.calls]
        depends: set[int] = {-1}
        for number, numbers in enumerate(used):
            if numbers & depends:
                depends.add(number)
        self.order = [n for n in range(len(self.calls)) if n in depends]
        # Calls that do not depend on the input, each with those that it needs: every stage that uses one makes it.
        self.without: dict[int, set[int]] = {}
        for number, numbers in enumerate(used):
            if number not in depends:
                self.without[number] = {number}.union(*(self.without[one] for one in numbers))
        self.helpers = {n: set().union(*(self.without.get(one, set()) for one in used[n])) for n in self.order}
        self.held = {name: t.numel() for name, t in model.state_dict(keep_vars=True).items()}
        self.learning = dict(model.named_parameters())
        self.states = [self._states({n} | self.helpers[n]) for n in self.order]
        self.spans = self._spans()

    def stages(self) -> dict[str, nn.Sequential] | None:
        """The stages, or None where nothing can be cut."""
        end = self._head()
        if end is None:
            return None
        starts = self._starts(end)
        bounds = [0, *starts, end]
        unused = [name for name in self.held if name not in self.spans]
        found: dict[str, nn.Sequential] = {}
        for place, (first, last) in enumerate(pairwise(bounds)):
            name = self._name(first) if place else "stem" if starts else "body"
            part = self._part(first, last, unused if place == 0 else ())
            found[name if name not in (*found, "head") else f"{name}_{place}"] = nn.Sequential(part)
        if len(self.order) > end:
            head = [self.model.get_submodule(self.calls[n].target) for n in self.order[end:]]
            found["head"] = nn.Sequential(*head)
        else:
            found["head"] = nn.Sequential(nn.Identity())
        return found

    def _states(self, numbers: set[int]) -> set[str]:
        """Parameters and buffers that are saved and that these calls use."""
        found = set[str]()
        for call in (self.calls[n] for n in numbers):
            if call.kind == "module":
                found |= {name for name in self.held if name.startswith(f"{call.target}.")}
            found |= {one.name for one in refs((call.args, call.kwargs)) if isinstance(one, Held)} & self.held.keys()
        return found

    def _spans(self) -> dict[str, tuple[int, int]]:
        spans: dict[str, tuple[int, int]] = {}
        for position, names in enumerate(self.states):
            for name in names:
                spans[name] = (spans.get(name, (position, 0))[0], position)
        return spans

    def _crossing(self, position: int) -> list[Ref] | None:
        """What crosses a cut before `position`, in order; None where there can be no cut."""
        if any(first < position <= last for first, last in self.spans.values()):
            return None
        before = {-1, *self.order[:position]}
        found = {ref: None for n in self.order[position:] for ref in self._refs(n) if ref.number in before}
        if self.recording.output.number in before:
            found[self.recording.output] = None
        return list(found) if found.keys() <= self.recording.shares.keys() else None

    def _refs(self, number: int) -> list[Ref]:
        call = self.calls[number]
        return [one for one in refs((call.args, call.kwargs)) if isinstance(one, Ref)]

    def _head(self) -> int | None:
        """The position where the head begins: that of the classifier, or of a dropout right before it."""
        if self.classifier is None:
            share = self.recording.shares.get(self.recording.output, Share())
            return len(self.order) if share.times == 1 and len(share.shape) in (1, 3) else None
        while self.order and self.calls[self.order[-1]].target != self.classifier:
            if not isinstance(self._module(len(self.order) - 1), nn.Identity):
                return None
            self.order.pop()  # what follows the classifier and does nothing
        if not self.order:
            return None
        if not isinstance(self.model.get_submodule(self.classifier), nn.Linear):
            return None
        end = len(self.order) - 1
        while end and isinstance(self._module(end - 1), nn.Dropout | nn.Identity):
            end -= 1
        crossing = self._crossing(end)
        share = self.recording.shares[crossing[0]] if crossing and len(crossing) == 1 else Share()
        return end if share.times == 1 and len(share.shape) == 1 else None

    def _module(self, position: int) -> nn.Module | None:
        call = self.calls[self.order[position]]
        return self.model.get_submodule(call.target) if call.kind == "module" else None

    def _starts(self, end: int) -> list[int]:
        """Positions where a stage begins: before a block, with one tensor that crosses; with more in large stages."""
        ways: dict[int, int] = {}  # position → how many tensors cross
        owning = False
        for position in range(end):
            module = self._module(position)
            if owning and module is not None and _composite(module):
                crossing = self._crossing(position)
                if crossing and 0 < len(crossing) <= CROSSING:
                    ways[position] = len(crossing)
            owning = owning or any(name in self.learning for name in self.states[position])
        starts = [position for position, number in ways.items() if number == 1]
        bounds = [0, *starts, end]
        total = self._size(0, end)
        for first, last in pairwise(bounds):
            if self._size(first, last) > HALF * total:
                for position in (p for p, number in ways.items() if first < p < last and number > 1):
                    if self._size(first, position) > SHARE * total:
                        starts.append(position)
                        first = position
        return sorted(starts)

    def _size(self, first: int, last: int) -> int:
        names = set().union(*self.states[first:last])
        return sum(self.held[name] for name in names if name in self.learning)

    def _name(self, position: int) -> str:
        return str(self.calls[self.order[position]].target).replace(".", "_")

    def _part(self, first: int, last: int, extra: Sequence[str]) -> ReplayedPart:
        numbers = {n for own in self.order[first:last] for n in (own, *self.helpers[own])}
        calls = {n: self.calls[n] for n in sorted(numbers)}
        return ReplayedPart(self.model, calls, self._packing(first), self._packing(last), extra)

    def _packing(self, position: int) -> Packing:
        if position == 0:
            return Packing([Ref(-1)], [Share()])
        crossing = self._crossing(position) or [self.recording.output]
        return Packing(crossing, [self.recording.shares[ref] for ref in crossing])


def _bare(module: nn.Module) -> bool:
    return isinstance(module, nn.ModuleList | nn.ModuleDict)


def _composite(module: nn.Module) -> bool:
    return any(owns(child) for child in module.children())
