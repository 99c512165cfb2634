"""The images of `evaluation.unknown.dataset`: of none of the classes, to measure how well they are separated."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from tlx.config.compose import choices
from tlx.config.dataset_schema import common
from tlx.config.instantiate import component
from tlx.config.schema import Config
from tlx.core.errors import RequestError, nearest
from tlx.datasets.folder_layout import local
from tlx.datasets.image_paths import find
from tlx.datasets.image_sources import files_bytes
from tlx.datasets.images import Images, joined, read_all
from tlx.runs import components

__all__ = ["unknown_images"]
KEY = "evaluation.unknown.dataset"
MOST = 2_000  # images, evenly chosen


def unknown_images(config: Config) -> Images | None:
    """At most 2,000 of them, whatever split they are in; None where none are named, or none is to be unknown.

    Raises:
        RequestError: there is no such data set or folder, or an image cannot be read.
    """
    rate, node = config.evaluation.unknown.rate, config.evaluation.unknown.dataset
    if rate is None or node is None:
        return None
    images = _of_data_set(node, config) if isinstance(node, Mapping) else _of_folder(str(node))
    if len(images) > MOST:
        images = images.subset(np.linspace(0, len(images) - 1, MOST).round().astype(np.int64))
    read, unreadable = read_all({"unknown": images})
    for path, why in unreadable:
        raise RequestError(f"{KEY}: {path}: cannot be read as an image ({why})")
    return read["unknown"]


def _of_data_set(node: Mapping[str, Any], config: Config) -> Images:
    if "_target_" not in node:
        raise RequestError(f"{KEY}={node}: needs a _target_ (the function that reads the images)")
    reader = {name: value for name, value in node.items() if name not in common()}
    found = components.parts(KEY, reader, component(reader, KEY, offline=config.runtime.offline))
    return joined([part for part in (found.train, found.val, found.test) if part is not None and len(part)])


def _of_folder(place: str) -> Images:
    try:
        files = [str(path) for path in find([place])]
    except RequestError as error:
        names = choices("dataset")
        missing = "no such file or folder" in str(error)
        line = f"{place}: no such data set or folder{nearest(place, names)}" if missing else str(error)
        raise RequestError(f"{KEY}={line}" if missing else f"{KEY}: {line}") from error
    return Images(files, [0] * len(files), files_bytes(local(place), files))
