"""A training step on a GPU, recorded once and then repeated: starting a small tail's operations takes longer than they
do.

The forward and the backward pass of a batch are recorded. A recorded step is compared with a computed one before it is
used; where they differ, all steps are computed.
"""

import functools
import logging
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from tlx.core.device import free_bytes
from tlx.core.errors import reason
from tlx.distributed import process_group

__all__ = ["Gradients", "Recorder", "recorder_for"]

STEPS = 100  # of a phase, from which recording one pays
_SHARE = 0.1  # of the memory that is free, which a recorded step may hold as long as it is used
_WARM = 3  # passes before one is recorded: libraries choose their algorithms in the first ones
_ALIKE = 0.05  # how far, in norm, the gradients of two equal steps may lie apart: sums of a GPU have no order

log = logging.getLogger("tlx")


class Recorder(Protocol):
    """Records what a function starts on a device."""

    def fits(self, function: Callable[[], object]) -> bool:
        """Calls it a few times; whether the memory that it needs may be held."""

    def record(self, function: Callable[[], Tensor]) -> tuple[Tensor, Callable[[], None]]:
        """Records one call, which computes nothing; the memory of its result, and what repeats the call."""


class Gradients:
    """The gradient of a batch's mean loss with respect to `learning`, left in each parameter's `.grad`."""

    def __init__(
        self,
        compute: Callable[..., Tensor],
        tail: nn.Module,
        learning: Sequence[nn.Parameter],
        recorder: Recorder | None = None,
    ) -> None:
        """`compute`: (x, y, …) → loss (0-d); adds to the gradients. `recorder`: None computes each batch anew."""
        self.compute, self.tail, self.learning, self.recorder = compute, tail, learning, recorder
        self._seen: set[tuple[Any, ...]] = set()
        self._step: tuple[tuple[Any, ...], _RecordedStep] | None = None

    def __call__(self, x: Tensor, y: Tensor, **more: Any) -> Tensor:
        """The loss (not synchronised; good until the next batch), with the gradients of this batch alone."""
        kind = (x.shape, x.stride(), x.dtype, y.shape, y.dtype)
        if self._step is not None and self._step[0] == kind:
            return self._step[1](x, y)
        if self.recorder is not None and self._step is None and kind in self._seen:
            loss = self._recorded(self.recorder, kind, x, y)
            if loss is not None:
                return loss
            self.recorder = None
        self._seen.add(kind)  # a phase's one odd batch is no reason to record a step
        return self._plain(x, y, **more)

    def _plain(self, x: Tensor, y: Tensor, **more: Any) -> Tensor:
        for parameter in self.learning:
            parameter.grad = None
        return self.compute(x, y, **more)

    def _recorded(self, recorder: Recorder, kind: tuple[Any, ...], x: Tensor, y: Tensor) -> Tensor | None:
        """This batch by a recorded step, which is kept; None where it cannot be recorded, and nothing has changed."""
        state = _State(self.tail, x.device)
        here = [torch.empty_like(x).copy_(x), torch.empty_like(y).copy_(y)]

        def again() -> Tensor:
            state.put_back()
            return self._plain(*here)

        try:
            if not recorder.fits(again):
                log.info("training steps are not recorded: one takes too much memory", extra={"detail": True})
                return None
            expected = [again().clone(), *(p.grad for p in self.learning)]
            state.put_back()
            loss, repeat = recorder.record(lambda: self._plain(*here))
            step = _RecordedStep(here, loss, [p.grad for p in self.learning], self.learning, repeat)
            drawn = state.drawn_by_the_host()
            state.put_back()
            if drawn:
                why = "what they draw is not the device's"
            elif _alike([step(x, y)], expected[:1]) and _alike(step.gradients, expected[1:]):
                self._step = (kind, step)
                log.info("training steps are recorded", extra={"detail": True})
                return loss
            else:
                why = "a repeated one differs"
        except (RuntimeError, TypeError, ValueError, AttributeError, LookupError, AssertionError) as error:
            why = reason(error)  # what a library makes of being recorded
        finally:
            if self._step is None:
                state.put_back()
        log.info("training steps cannot be recorded: %s", why, extra={"detail": True})
        return None


class _RecordedStep:
    """A recorded step: copies a batch into the recorded inputs, repeats the step and returns the recorded loss."""

    def __init__(
        self,
        inputs: Sequence[Tensor],
        loss: Tensor,
        gradients: Sequence[Tensor | None],
        learning: Sequence[nn.Parameter],
        repeat: Callable[[], None],
    ) -> None:
        self.inputs, self.loss, self.gradients, self.learning, self.repeat = inputs, loss, gradients, learning, repeat

    def __call__(self, *batch: Tensor) -> Tensor:
        for here, given in zip(self.inputs, batch, strict=True):
            here.copy_(given)
        self.repeat()
        # A batch of another size has set gradients of its own.
        for parameter, gradient in zip(self.learning, self.gradients, strict=True):
            parameter.grad = gradient
        return self.loss


class _State:
    """What a step changes beside gradients: statistics, and the states of the random generators."""

    def __init__(self, tail: nn.Module, device: torch.device) -> None:
        self.buffers = [(buffer, buffer.clone()) for buffer in tail.buffers()]
        own = _generator(device)
        self.generators = [own] if own is torch.default_generator else [own, torch.default_generator]
        self.drawn = [generator.get_state() for generator in self.generators]
        self.host = random.getstate(), np.random.get_state()

    def put_back(self) -> None:
        for buffer, before in self.buffers:
            buffer.copy_(before)
        for generator, state in zip(self.generators, self.drawn, strict=True):
            generator.set_state(state)
        random.setstate(self.host[0])
        np.random.set_state(self.host[1])

    def drawn_by_the_host(self) -> bool:
        """Whether random numbers were drawn on the host since `put_back`: a recorded step does not repeat that."""
        moved = [not torch.equal(g.get_state(), s) for g, s in zip(self.generators[1:], self.drawn[1:], strict=True)]
        numpy = zip(np.random.get_state(), self.host[1], strict=True)
        return any(moved) or random.getstate() != self.host[0] or not all(np.array_equal(a, b) for a, b in numpy)


def _generator(device: torch.device) -> torch.Generator:
    if device.type != "cuda":
        return torch.default_generator
    number = torch.cuda.current_device() if device.index is None else device.index
    generator: torch.Generator = torch.cuda.default_generators[number]
    return generator


def _alike(found: Sequence[Tensor | None], expected: Sequence[Tensor | None]) -> bool:
    """Whether these are the same tensors, but for rounding; not where one holds what is no number."""
    if any((a is None) != (b is None) for a, b in zip(found, expected, strict=True)):
        return False
    pairs = [(a.float(), b.float()) for a, b in zip(found, expected, strict=True) if a is not None and b is not None]
    # All together: a gradient that is 0 but for rounding (a bias before a BatchNorm) differs each time.
    apart, size = (
        sum(part.square().sum() for part in parts) for parts in ([a - b for a, b in pairs], [b for _, b in pairs])
    )
    return bool(apart <= _ALIKE**2 * size)


def recorder_for(device: torch.device, steps: int) -> Recorder | None:
    """What records the steps of a phase of so many; None where they are computed one by one.

    Ranks talk to each other within a step, which is not recorded.
    """
    return _CudaGraphs(device) if device.type == "cuda" and process_group.count() == 1 and steps >= STEPS else None


@functools.cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    """One for all phases: libraries keep memory for each stream that they were used in."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


class _CudaGraphs:
    """https://pytorch.org/docs/stable/notes/cuda.html#cuda-graphs"""

    def __init__(self, device: torch.device) -> None:
        self.device, self.beside = device, _stream(device)

    def fits(self, function: Callable[[], object]) -> bool:
        with self._beside():
            function()
            torch.cuda.synchronize(self.device)
            before = torch.cuda.memory_allocated(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
            for _ in range(_WARM):
                function()
            torch.cuda.synchronize(self.device)
            needed = torch.cuda.max_memory_allocated(self.device) - before
        return needed <= _SHARE * free_bytes(self.device)

    def record(self, function: Callable[[], Tensor]) -> tuple[Tensor, Callable[[], None]]:
        graph = torch.cuda.CUDAGraph()
        # Other threads go on meanwhile: one pins images, one shows how far training is.
        with (
            torch.cuda.device(self.device),
            torch.cuda.graph(graph, stream=self.beside, capture_error_mode="thread_local"),
        ):
            result = function()
        return result, graph.replay

    @contextmanager
    def _beside(self) -> Iterator[None]:
        """What is done first in the stream that everything else is done in cannot be recorded in another."""
        usual = torch.cuda.current_stream(self.device)
        self.beside.wait_stream(usual)
        try:
            with torch.cuda.stream(self.beside):
                yield
        finally:
            usual.wait_stream(self.beside)
