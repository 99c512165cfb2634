"""Which images a model has learned from, or was chosen by: kept with it, as the first digits of their digests."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

__all__ = ["FILE", "SPLITS", "read", "split_of", "write"]

FILE = "images.safetensors"
SPLITS = ("train", "val")
DIGITS = 16  # of a digest, as a number of 64 bits: 8 bytes an image, and no chance meeting among millions

Seen = Mapping[str, NDArray[np.uint64]]  # split → what is kept of its images, ascending


def write(folder: Path, digests: Mapping[str, Sequence[str]]) -> None:
    """Writes the digests of the images of each split (`SPLITS`) into the model's folder."""
    save_file({split: np.unique(_numbers(digests[split])) for split in SPLITS}, folder / FILE)


def read(folder: Path) -> Seen | None:
    """What `write` has left in the model's folder; None where there is nothing, or what it has not written."""
    try:
        found = load_file(folder / FILE)
    except (OSError, SafetensorError, ValueError):
        return None
    whole = all(split in found and found[split].ndim == 1 and found[split].dtype == np.uint64 for split in SPLITS)
    return found if whole else None


def split_of(seen: Seen, digests: Sequence[str]) -> list[str]:
    """For each image the first split of `SPLITS` that has it, "" for one in none."""
    numbers = _numbers(digests)
    names = np.full(len(numbers), "", dtype=object)
    for split in reversed(SPLITS):
        names[np.isin(numbers, seen[split])] = split
    return [str(name) for name in names]


def _numbers(digests: Sequence[str]) -> NDArray[np.uint64]:
    return np.array([int(digest[:DIGITS], 16) for digest in digests], dtype=np.uint64)
