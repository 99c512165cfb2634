"""Parameters and buffers by their names, without listing all of a network's."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn


def named_tensors(net: "nn.Module", names: Iterable[str]) -> "dict[str, Tensor]":
    """Of a network the parameters and buffers of these names, detached, in the same memory.

    Raises:
        AttributeError: it has none of that name.
    """
    found = dict[str, "Tensor"]()
    for name in names:
        path, _, leaf = name.rpartition(".")
        found[name] = getattr(net.get_submodule(path), leaf).detach()
    return found
