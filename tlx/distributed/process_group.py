"""The processes that share one run, its ranks: which one this is, and what they tell each other.

Every rank does the same from beginning to end, and its share of the work; the first alone writes. Where a process is on
its own, all of this is for one rank, and does nothing. `rank_processes` starts and ends them.
"""

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from tlx.core.errors import RequestError, reason

if TYPE_CHECKING:
    import torch
    from torch import Tensor

T = TypeVar("T")
LONG = timedelta(days=7)  # a rank waits as long as another works; one that dies is noticed otherwise
_PIECE = 1 << 28  # bytes that are exchanged at once


class LostRank(Exception):
    """Another rank does not answer any more."""


@dataclass
class Group:
    """The ranks of a run, seen by one of them.

    Attributes:
        rank: from 0.
        size: how many there are.
        local: this one's place among those of this machine.
        beside: how many these are.
        device: what they compute on, `cpu` or `cuda`.
        started: whether tlx has started them, on this machine.
        store: torch's; how they find each other and what they say in words.
        check: raises `LostRank` where one is known to have ended.
    """

    rank: int
    size: int
    local: int
    beside: int
    device: str
    started: bool
    store: Any = None
    check: Callable[[], None] = lambda: None
    said: int = 0
    joined: bool = False

    def join(self) -> None:
        """Waits until all ranks are here; from then on tensors can be exchanged."""
        if self.joined:
            return
        import torch
        from torch import distributed

        here = [f"tlx/here/{number}" for number in range(self.size)]
        self.store.set(here[self.rank], "")
        while not self.store.check(here):
            self.check()
            time.sleep(0.02)
        if self.device == "cuda":
            torch.cuda.set_device(self.local)
        hook = sys.excepthook  # torch puts one of its own around it, each time
        backend = "cpu:gloo,cuda:nccl" if self.device == "cuda" else "gloo"
        with loopback() if self.started else contextlib.nullcontext():
            distributed.init_process_group(
                backend, store=self.store, rank=self.rank, world_size=self.size, timeout=LONG
            )
        sys.excepthook = hook
        self.joined = True

    def leave(self) -> None:
        """Nothing is exchanged any more."""
        if self.joined:
            from torch import distributed

            distributed.destroy_process_group()
        self.joined, self.store = False, None


_group: Group | None = None


@contextlib.contextmanager
def of(group: Group) -> Iterator[None]:
    """This process is a rank of `group` while the block lasts."""
    global _group
    _group = group
    try:
        yield
    finally:
        _group = None
        group.leave()


def rank() -> int:
    """This process's place among the ranks, from 0."""
    return 0 if _group is None else _group.rank


def count() -> int:
    """How many ranks share the run."""
    return 1 if _group is None else _group.size


def copies(device: "torch.device") -> int:
    """How many copies the memory of `device` has of what every rank keeps."""
    return _group.beside if _group is not None and device.type == "cpu" else 1


def share_of_threads(threads: int) -> int:
    """Of so many threads that the run may use, those of this rank; torchrun and srun have shared theirs out already."""
    return max(1, threads // _group.beside) if _group is not None and _group.started else threads


def place(device: "torch.device") -> "torch.device":
    """The device of this rank, where the run computes on `device`: a GPU each."""
    import torch

    if _group is None or device.type != "cuda":
        return device
    return torch.device("cuda", _group.local)


def part(n: int, number: int | None = None) -> slice:
    """Which of n rows are this rank's, or rank `number`'s: a stretch of them, in order, one as long as the other."""
    number = rank() if number is None else number
    return slice(n * number // count(), n * (number + 1) // count())


def agreed(value: T) -> T:
    """The first rank's value (JSON), on every rank; the others wait for it.

    Raises:
        LostRank: another rank does not answer; so does whatever else is exchanged here.
    """
    group = _group
    if group is None:
        return value
    key = f"tlx/said/{group.said}"
    group.said += 1
    with _talking(group):
        if group.rank == 0:
            group.store.set(key, json.dumps(value))
            return value
        found: T = json.loads(group.store.get(key))
        return found


def same(what: str, value: str) -> None:
    """Whether every rank has the first one's value.

    Raises:
        RequestError: this rank has not.
    """
    if agreed(value) != value:
        raise RequestError(f"rank {rank()} has other {what} than the first rank")


@contextlib.contextmanager
def first() -> Iterator[None]:
    """The first rank goes through the block alone, then the others: they find what it has fetched."""
    if rank() > 0:
        agreed(None)
    yield
    if rank() == 0:
        agreed(None)


def summed(x: "Tensor") -> "Tensor":
    """`x` becomes its sum over the ranks, the same bits on every one."""
    from torch import distributed

    with _together():
        distributed.all_reduce(x)
    return x


def broadcast(x: "Tensor", source: int = 0) -> None:
    """`x` becomes what it is on rank `source`, bit for bit."""
    from torch import distributed

    with _together():
        for piece in _memory(x):
            distributed.broadcast(piece, source)


def send(x: "Tensor") -> None:
    """Gives `x` to the first rank."""
    from torch import distributed

    with _together():
        for piece in _memory(x):
            distributed.send(piece, 0)


def receive(x: "Tensor", source: int) -> None:
    """`x` becomes what rank `source` sends."""
    from torch import distributed

    with _together():
        for piece in _memory(x):
            distributed.recv(piece, source)


@contextlib.contextmanager
def _talking(group: Group) -> Iterator[None]:
    """What fails here fails because another rank is gone."""
    import torch

    group.check()
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise LostRank(f"another rank does not answer ({reason(error)})") from error
    group.check()


@contextlib.contextmanager
def _together() -> Iterator[None]:
    assert _group is not None
    with _talking(_group):
        _group.join()
        yield


def _memory(x: "Tensor") -> Iterator["Tensor"]:
    """The bytes of `x` (contiguous, or maps with the channels last), in pieces."""
    import torch

    last = x.ndim == 4 and not x.is_contiguous()
    whole = (x.permute(0, 2, 3, 1) if last else x).view(-1).view(torch.uint8)
    return iter(torch.split(whole, _PIECE) if len(whole) else ())


@contextlib.contextmanager
def loopback() -> Iterator[None]:
    """Gloo looks for a network by the machine's name, which a container may not know; on one machine none is needed."""
    import psutil

    addresses = psutil.net_if_addrs()
    names = [name for name, each in addresses.items() if any(a.address == "127.0.0.1" for a in each)]
    if "GLOO_SOCKET_IFNAME" in os.environ or not names:
        yield
        return
    os.environ["GLOO_SOCKET_IFNAME"] = names[0]
    try:
        yield
    finally:
        del os.environ["GLOO_SOCKET_IFNAME"]
