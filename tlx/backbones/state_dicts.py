"""The state dict in a checkpoint of any script: which of several, and what is taken off its names."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from tlx.core.errors import RequestError, printable
from tlx.core.torch_files import Inert, content, whole_network

__all__ = ["Taken", "read", "take"]

DEPTH = 5  # of nested containers that are looked into
NAMED = 3  # names in a message
# What wrappers of a module put into the names of its tensors, at any place.
WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
# Of state dicts that fit alike: averaged weights are those that were measured and published (timm takes them, too); of
# two epochs the best; of two networks that learn from each other, the one that people go on with (DINO's teacher,
# MoCo's query encoder).
FIRST = {"ema", "averaged", "avg", "swa", "teacher", "best"}
LAST = {"student", "momentum", "target", "k"}


@dataclass(frozen=True)
class Taken:
    """A state dict: where the file has it, and what is taken off its names.

    `place`: the keys that lead to it. `whole`: its tensors under the file's names. `prefix`: the names' beginning.
    `numbers`: what the layers under it are called that have a number instead of a name; empty where they have names.
    """

    place: tuple[str, ...]
    whole: Mapping[str, Tensor]
    prefix: str = ""
    numbers: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def names(self) -> dict[str, str]:
        """The names in the file → the names in the network, of the tensors under the prefix."""
        short = {name: _unwrapped(name) for name in self.whole}
        if len(set(short.values())) < len(short):  # two tensors would have one name
            short = {name: name for name in self.whole}
        found = {name: s[len(self.prefix) :] for name, s in short.items() if s.startswith(self.prefix)}
        if not self.numbers:
            return found
        parts = {name: own.partition(".") for name, own in found.items()}
        return {name: f"{self.numbers[n]}.{rest}" for name, (n, _, rest) in parts.items() if n in self.numbers}

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        """Its tensors by the names in the network."""
        return {own: self.whole[name] for name, own in self.names.items()}

    @property
    def words(self) -> list[str]:
        """The words in its place and its prefix, for `FIRST` and `LAST`."""
        return ".".join([*self.place, self.prefix]).lower().replace("_", ".").split(".")

    def __str__(self) -> str:
        return " ".join([".".join(self.place), f"({self.prefix}…)" if self.prefix else ""]).strip() or "the file"


def take(path: Path, own: Mapping[str, Tensor], last: str) -> tuple[dict[str, Tensor], str]:
    """The tensors of the file that fit the network best, by the network's names; and a line about the choice.

    Every state dict in the file is tried with every beginning of its names; the one with the most tensors of `own`'s
    names and shapes is taken, the last layer (names that begin with `last`) not counted. The line is empty where
    nothing else would fit, no tensor beside them is left out, and names are as they were.

    Raises:
        RequestError: it cannot be read, or holds no tensors by name.
    """
    trunk = {
        name: value.shape
        for name, value in own.items()
        if not name.startswith(last) and not name.endswith("num_batches_tracked")  # older files lack it
    }
    found = _found(path)
    fits = [(count, taken) for taken in found for count, taken in _fits(taken, trunk)]
    most = max((count for count, _ in fits), default=0)
    if most < len(trunk) / 2:  # another network's: what is missing is said in the file's own names
        return _largest(found).tensors, ""
    alike = sorted((taken for count, taken in fits if count == most), key=_order)
    return alike[0].tensors, _line(path, alike)


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by name, for no network in particular: its largest state dict, wrappers taken off.

    Raises:
        RequestError: it cannot be read, or holds no tensors by name.
    """
    return _largest(_found(path)).tensors


def _found(path: Path) -> list[Taken]:
    """The state dicts in a file, in its order.

    Raises:
        RequestError: there is none.
    """
    held = content(path)
    found = list(_state_dicts(held))
    if found:
        return found
    if kind := next(_networks(held), None):
        raise whole_network(path, kind)
    if isinstance(held, Inert):
        raise RequestError(f"{path}: holds a {printable(held.origin)}, not tensors by key; save `model.state_dict()`")
    holds = f"; it holds {_some([str(key) for key in held])}" if isinstance(held, Mapping) and held else ""
    raise RequestError(f"{path}: holds no state dict (tensors by key); save `model.state_dict()`{holds}")


def _state_dicts(held: Any, place: tuple[str, ...] = ()) -> Iterator[Taken]:
    """The mappings that have tensors by name, the outer before the inner."""
    if isinstance(held, Mapping):
        tensors = {key: value for key, value in held.items() if isinstance(key, str) and isinstance(value, Tensor)}
        if tensors:
            yield Taken(place, tensors)
    if len(place) < DEPTH:
        for key, value in _inside(held):
            yield from _state_dicts(value, (*place, key))


def _inside(held: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(held, Mapping):
        yield from ((str(key), value) for key, value in held.items())
    elif isinstance(held, list | tuple):
        yield from ((str(number), value) for number, value in enumerate(held))


def _networks(held: Any, depth: int = 0) -> Iterator[str]:
    """The classes of the pickled modules in it."""
    if isinstance(held, Inert) and isinstance(held.state, Mapping) and {"_modules", "_parameters"} <= held.state.keys():
        yield held.origin
    elif depth < DEPTH:
        for _, value in _inside(held):
            yield from _networks(value, depth + 1)


def _fits(taken: Taken, trunk: Mapping[str, Any]) -> Iterator[tuple[int, Taken]]:
    """How many tensors of the network it has, for each beginning of its names under which it has one."""
    counts: dict[str, int] = {}
    for name, tensor in taken.tensors.items():
        parts = name.split(".")
        for start in range(len(parts)):
            rest = ".".join(parts[start:])
            if rest in trunk and trunk[rest] == tensor.shape:
                prefix = name[: len(name) - len(rest)]
                counts[prefix] = counts.get(prefix, 0) + 1
    yield from ((count, Taken(taken.place, taken.whole, prefix)) for prefix, count in counts.items())
    for prefix, numbers in _numbered(taken, trunk):
        yield len(trunk), Taken(taken.place, taken.whole, prefix, numbers)


def _numbered(taken: Taken, trunk: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, str]]]:
    """Where it has all of the network by number, as `nn.Sequential(*network.children())` calls it (fastai does that).

    Yields the beginning of the names, and the layers' names by their numbers: what has tensors comes in the same order,
    and is called the same within a layer.
    """
    own: dict[str, dict[str, Any]] = {}
    for name, shape in trunk.items():
        layer, _, rest = name.partition(".")
        own.setdefault(layer, {})[rest] = shape
    bodies: dict[str, dict[int, dict[str, Any]]] = {}
    for name, tensor in taken.tensors.items():
        parts = name.split(".")
        for at, part in enumerate(parts[:-1]):
            if part.isascii() and part.isdecimal():
                layers = bodies.setdefault("".join(f"{word}." for word in parts[:at]), {})
                layers.setdefault(int(part), {})[".".join(parts[at + 1 :])] = tensor.shape
    for prefix, layers in bodies.items():
        numbers = dict(zip(map(str, sorted(layers)), own, strict=False))
        if len(numbers) == len(own) and all(own[name].items() <= layers[int(n)].items() for n, name in numbers.items()):
            yield prefix, numbers


def _order(taken: Taken) -> tuple[int, int, int]:
    """Of those that fit alike, the least is taken."""
    words = {*taken.words}
    return bool(words & LAST) - bool(words & FIRST), len(taken.place), len(taken.prefix)


def _largest(found: Sequence[Taken]) -> Taken:
    """The one with the most tensors; what DataParallel put before all its names is taken off."""
    largest = max(found, key=lambda taken: len(taken.whole))
    parallel = all(_unwrapped(name).startswith("module.") for name in largest.whole)
    return Taken(largest.place, largest.whole, "module." if parallel else "")


def _line(path: Path, alike: Sequence[Taken]) -> str:
    """What a user should know about the choice: where the weights are from, what was taken off, what else fits."""
    taken = alike[0]
    wrapped = any(taken.prefix + own != name for name, own in taken.names.items())
    off = [taken.prefix] if taken.prefix else []
    off += [f"{word}." for word in WRAPPERS if wrapped and any(word in name.split(".") for name in taken.names)]
    out = [name for name in taken.whole if name not in taken.names]
    words = [f"{' and '.join(off)} taken off the names"] if off else []
    if taken.numbers:
        words.append(f"layers {', '.join(taken.numbers)} are {', '.join(taken.numbers.values())}")
    if len(alike) > 1:
        words.append(f"{_some([str(other) for other in alike[1:]])} would fit as well")
    if out:
        words.append(f"tensors left out: {len(out)} ({_some(out)})")
    if not words:
        return ""
    where = f"weights of {'.'.join(taken.place)}" if taken.place else "weights"
    return printable("; ".join([f"{path}: {where}", *words]))


def _unwrapped(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def _some(names: Collection[str]) -> str:
    shown = [*names][:NAMED]
    return printable(", ".join(shown)) + (", …" if len(names) > NAMED else "")
