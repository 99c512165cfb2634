"""From files to labelled images, splits and pixels."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tlx.datasets.extended_sets import extended
    from tlx.datasets.hub_sets import huggingface
    from tlx.datasets.image_sources import FileBytes
    from tlx.datasets.images import Images
    from tlx.datasets.manifests import csv
    from tlx.datasets.readers import cifar10, image_folder, shapes
    from tlx.datasets.shards import webdataset
    from tlx.datasets.splits import Parts

__all__ = [
    "FileBytes",
    "Images",
    "Parts",
    "cifar10",
    "csv",
    "extended",
    "huggingface",
    "image_folder",
    "shapes",
    "webdataset",
]
_HOME = {
    "FileBytes": "image_sources",
    "Images": "images",
    "Parts": "splits",
    "csv": "manifests",
    "extended": "extended_sets",
    "huggingface": "hub_sets",
    "webdataset": "shards",
}


def __getattr__(name: str) -> Any:
    """The readers that YAML files name, and what a reader of one's own returns; a module is imported when requested."""
    if name in __all__:
        return getattr(import_module(f"tlx.datasets.{_HOME.get(name, 'readers')}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
