"""What is computed of tensors once, as long as these stay as they are."""

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import torch
from torch import Tensor

__all__ = ["MadeOnce", "keepable"]
Made = TypeVar("Made")


def keepable(tensors: Sequence[Tensor]) -> bool:
    """Whether what is made of them can be kept: while a network is exported or traced, they are no values."""
    tracing = torch.jit.is_tracing()  # type: ignore[attr-defined,no-untyped-call]
    return not tracing and not any(type(one) is not Tensor or one.is_inference() for one in tensors)


class MadeOnce(Generic[Made]):
    """Keeps what was made of tensors until one of them is changed in place or is another one.

    For what a pass of few rows would spend most of its time on. It would also take memory without bound, for what each
    pass leaves lies between what it has freed.
    """

    def __init__(self) -> None:
        self._known: tuple[object, Made] | None = None

    def get(self, tensors: Sequence[Tensor], make: Callable[[], Made]) -> Made:
        """What `make` gives of tensors that are `keepable`. Threads may make it at the same time, each the same."""
        now = [(one._version, one.data_ptr(), one.device) for one in tensors]
        known = self._known
        if known is None or known[0] != now:
            self._known = known = now, make()
        return known[1]
