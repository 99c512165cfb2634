"""From a name to a staged network with its weights."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tlx.backbones.factories import small_cnn, timm, torchvision

__all__ = ["small_cnn", "timm", "torchvision"]


def __getattr__(name: str) -> Any:
    """The names that YAML files and saved models use; imported when requested, because torch takes seconds."""
    if name in __all__:
        return getattr(import_module("tlx.backbones.factories"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
