"""How the frozen part of a network runs: traced once as a graph for one batch shape, fused, in the device's format.

A frozen part is a pure function with one shape of input, so it is a straight list of operations.
"""

import logging
import threading
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from tlx.core.device import autocast
from tlx.core.errors import reason
from tlx.features.graph_fusion import folded
from tlx.features.graph_tracing import recorded

__all__ = ["Forward", "as_input", "recipe", "rows_per_pass"]


log = logging.getLogger("tlx")


class Forward:
    """A frozen part, in evaluation mode, as a function of rows: `[B, …]` → `[B, …]` for any B.

    Libraries choose their algorithm by the size of a batch, and another algorithm rounds differently: every pass has
    `rows_per_pass` rows, the last one filled up, so that a row's output does not depend on those it comes with. It may
    be called by several threads at once.
    """

    def __init__(self, prefix: nn.Sequential, precision: str, *, exact: bool = False) -> None:
        """`exact`: fp32, the modules as they are."""
        self.prefix, self.precision, self.exact = prefix.eval(), "fp32" if exact else precision, exact
        self._run: Callable[[Tensor], Tensor] | None = None
        self._rows = 0  # of a pass
        self._one = threading.Lock()  # held by the thread that has the first pass

    def __call__(self, x: Tensor) -> Tensor:
        """What the frozen part makes of rows; the rows themselves where it has no stage."""
        if not len(self.prefix):
            return x
        found = []
        # What was recorded has its casts; those of a caller would be done again.
        with torch.no_grad(), autocast(x.device, "fp32"):
            size = self._rows = self._rows or rows_per_pass(x.device)
            for some in torch.split(x, size):
                lacks = size - len(some)
                full = torch.cat([some, some.new_zeros(lacks, *some.shape[1:])]) if lacks else some
                full = as_input(full, self.precision)
                if self._run is None:
                    with self._one:
                        made = self._first(full, len(some)) if self._run is None else self._run(full)
                else:
                    made = self._run(full)
                found.append(made[: len(some)] if lacks else made)
        return found[0] if len(found) == 1 else torch.cat(found)

    def _modules(self, x: Tensor) -> Tensor:
        with autocast(x.device, self.precision):
            return cast(Tensor, self.prefix(x))

    def _first(self, x: Tensor, rows: int) -> Tensor:
        """The first pass, which decides how the others run: as the graph, where it computes what the modules do.

        `rows`: so many are no filling; they are compared.
        """
        if not self.exact:
            try:
                run = folded(*recorded(self.prefix, self._modules, x), x.device)
                # A folded operation may lay out its result in another way than the recorded one, which not every
                # operation after it takes.
                made = cast(Tensor, run(x))
                difference, allowed = map(float, self._difference(made[:rows], x[:rows]))  # waits for the device, once
                if difference <= allowed:
                    self._run = run
                    return made
                log.warning(
                    "the graph of the frozen part differs from its modules by %.2g of their output's norm (allowed: "
                    "%.2g): the modules run as they are, which is slower",
                    difference,
                    allowed,
                )
            except torch.OutOfMemoryError:
                raise
            except (RuntimeError, TypeError, ValueError, AttributeError, LookupError, AssertionError) as error:
                # Its path depends on the values it sees; then the modules run as they are.
                log.info("the frozen part cannot be recorded: %s", reason(error), extra={"detail": True})
        self._run = self._modules
        return self._run(x)

    def _difference(self, made: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """How far the graph's output for `x` is from what the modules compute in fp32, and how far it may be (0-d).

        That is twice as far as the modules are in the graph's own number format, and a hundredth (TF32, sums in another
        order). Distances are norms, as a share of the modules' output.
        """
        own = self._modules(x.clone())  # a module may write over its input
        if self.precision == "fp32":
            return _distance(made, own), torch.full((), 0.01)
        with autocast(x.device, "fp32"):
            expected = self.prefix(as_input(x.clone(), "fp32"))
        return _distance(made, expected), 2 * _distance(own, expected) + 0.01


def _distance(found: Tensor, expected: Tensor) -> Tensor:
    """The norm of the difference, as a share of the expected norm (0-d); infinite where shapes or the places of values
    that are not finite differ."""
    if found.shape != expected.shape:
        return torch.full((), torch.inf)
    finite = expected.isfinite()
    known, wanted = (torch.where(finite, tensor, 0).float() for tensor in (found, expected))
    share = (known - wanted).norm() / wanted.norm().clamp_min(torch.finfo(torch.float32).tiny)
    return torch.where((found.isfinite() == finite).all(), share, torch.inf)


def rows_per_pass(device: torch.device) -> int:
    """Rows in a forward pass without gradients.

    Few on a CPU, so that a layer's output stays in a core's caches; many on a GPU, as its memory allows.
    """
    if device.type != "cuda":
        return 8
    return 256 if torch.cuda.get_device_properties(device).total_memory > 30e9 else 64


def recipe(device: torch.device, precision: str, *, exact: bool) -> str:
    """How `Forward` computes, in words for keys: rows of two recipes differ in rounding.

    A rule of the device alone; nothing is timed, so that equal seeds give equal results.
    """
    return f"{precision} {'plain' if exact else 'folded'} {rows_per_pass(device)}"


def as_input(x: Tensor, precision: str) -> Tensor:
    """`x` as a forward pass in `precision` takes it: cached 16-bit features widened where it is fp32, images and maps
    in the layout in which convolutions are fastest."""
    if precision == "fp32" and x.is_floating_point():
        x = x.float()
    return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x
