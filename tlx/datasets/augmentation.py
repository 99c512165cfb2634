"""Random views of training images, drawn from (seed, epoch, index) alone."""

import contextlib
import functools
import random
import threading
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from tlx.core.seeding import seed_from

# Every way in which torch draws on the CPU and that takes a generator (`_` at the end: in place).
_FUNCTIONS = (
    "rand randn randint randperm rand_like randn_like randint_like normal bernoulli multinomial poisson binomial "
    "_sample_dirichlet _standard_gamma"
)
_METHODS = "uniform_ normal_ random_ bernoulli bernoulli_ exponential_ cauchy_ geometric_ log_normal_ multinomial"
_RANDOM = frozenset([getattr(torch, f) for f in _FUNCTIONS.split()] + [getattr(Tensor, m) for m in _METHODS.split()])


def _takes_generator() -> bool:
    """Whether torch's `…_like` functions take a generator: those of older versions do not."""
    try:
        torch.rand_like(torch.empty(0), generator=torch.Generator())
    except TypeError:
        return False
    return True


_LIKE: dict[Callable[..., Any], Callable[..., Any]] = {}
if not _takes_generator():
    _LIKE = {torch.rand_like: torch.rand, torch.randn_like: torch.randn, torch.randint_like: torch.randint}


class _Draws(TorchFunctionMode):
    """Within it everything that torch draws in this thread comes from one seed.

    torchvision's transforms draw from torch's global generator, which all threads share: seeding it for each image
    would disturb the dropout of a network that trains meanwhile in another thread, and be disturbed by it.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed, self.generators = seed, dict[torch.device, torch.Generator]()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _RANDOM and kwargs.get("generator") is None:
            like = next((value.device for value in args if isinstance(value, Tensor)), torch.device("cpu"))
            device = torch.device(kwargs.get("device") or like)
            if device not in self.generators:
                self.generators[device] = torch.Generator(device).manual_seed(self.seed)
            kwargs = {**kwargs, "generator": self.generators[device]}
            if func in _LIKE:
                like, *bounds = args
                kwargs = {"dtype": like.dtype, "device": device, **kwargs}
                kwargs.pop("memory_format", None)
                return _LIKE[func](*bounds, size=tuple(like.shape), **kwargs)
        return func(*args, **kwargs)


_one = threading.Lock()  # held by whoever draws from NumPy's or Python's generator: all threads share them


@contextlib.contextmanager
def _shared_draws(seed: int) -> Iterator[None]:
    """Within it what NumPy's global generator and Python's draw comes from one seed; afterwards they are as before.

    One thread at a time: nothing draws from them in a thread's own stead, as `_Draws` does for torch.
    """
    with _one:
        python, numpy = random.getstate(), np.random.get_state()
        random.seed(seed)
        np.random.seed(seed % 2**32)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


def _torch_alone(transform: object) -> bool:
    """Whether a transform is known to draw from torch only: it and what it holds are torchvision's (v2) or tlx's.

    torchvision's first version has some that draw from Python's generator; one of a user's own may draw from any.
    """
    return isinstance(transform, Hashable) and _known_torch_alone(transform)


@functools.lru_cache(maxsize=64)
def _known_torch_alone(transform: Hashable) -> bool:
    kind = transform if hasattr(transform, "__qualname__") else type(transform)
    module = f"{kind.__module__}."
    if not module.startswith(("torchvision.transforms.v2.", "torch.", "tlx.")):
        return False
    return all(map(_torch_alone, _callables(getattr(transform, "__dict__", {}).values())))


def _callables(values: Iterable[object]) -> Iterator[object]:
    for value in values:
        if isinstance(value, Mapping):
            yield from _callables(value.values())
        elif isinstance(value, list | tuple | set):
            yield from _callables(value)
        elif callable(value) and not isinstance(value, type):
            yield value


@contextlib.contextmanager
def draws_from(seed: int, *, alone: bool = False) -> Iterator[None]:
    """Within it all random draws come from one seed; the global generators are as they were afterwards.

    `alone`: draws are known to be torch's; else threads that draw take turns.
    """
    with _Draws(seed), contextlib.nullcontext() if alone else _shared_draws(seed):
        yield


def random_view(
    image: Tensor, transforms: Sequence[Callable[[Tensor], Tensor]], *, seed: int, epoch: int, index: int
) -> Tensor:
    """The image after the transforms, in order, whose draws come only from `(seed, epoch, index)`, on its device.

    uint8 [3, H, W] to what the last transform gives (uint8 [3, H', W']). Whatever torch, NumPy's global generator and
    Python's `random` draw inside is covered; the global generators are as they were afterwards, and threads do not
    disturb each other: transforms that may draw from NumPy or Python take turns.
    """
    if not transforms:
        return image
    own = seed_from(seed, epoch, index)
    with draws_from(own, alone=all(map(_torch_alone, transforms))):
        for transform in transforms:
            image = transform(image)
    return image
