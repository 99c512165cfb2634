"""The images of a comparison's page: those that one configuration has right more often than another."""

from collections.abc import Mapping
from typing import Any

from tlx.comparison.comparison import Comparison, Pair
from tlx.comparison.flips import Flip, flips
from tlx.core.errors import RequestError
from tlx.runs import run_files
from tlx.runs.page_entries import named
from tlx.runs.page_images import images_of
from tlx.runs.run_reader import Run
from tlx.runs.small_pictures import Read, SmallPictures, of_files

PAIRS = 66  # pairs whose images are shown, those with the chosen one first
SHOWN = 12  # images of a pair that either side has right more often


def details(comparison: Comparison) -> tuple[list[dict[str, Any]], int, dict[int, str]]:
    """Each pair with its images, how many pairs are not shown, and the pictures by their numbers.

    A picture is on the page once, however many pairs it is in.
    """
    pairs = sorted((pair for pair in comparison.pairs if pair.found), key=lambda pair: (pair.first, pair.second))
    flipped = [(pair, flips(pair.matched)) for pair in pairs[:PAIRS]]
    runs = [run for one in comparison.configurations for run in one.runs]
    span = next(filter(None, (run.summary.get("range") for run in runs)), None)
    first = next((pair.matched[0][0] for pair, found in flipped if found), None)
    pictures = SmallPictures(of_files if first is None else _images(first), span)
    found = [_detail(comparison, pair, some, pictures) for pair, some in flipped]
    return found, len(pairs) - len(flipped), pictures.made()


def _images(run: Run) -> Read:
    """What reads the test images: of a run, as all that are compared have the same."""
    try:
        return images_of(run_files.read(run.folder))
    except RequestError:  # a file that the comparison itself does not need
        return of_files


def _detail(comparison: Comparison, pair: Pair, found: list[Flip], pictures: SmallPictures) -> dict[str, Any]:
    first, second = (comparison.configurations[place].label for place in (pair.first, pair.second))
    won = [flip for flip in found if flip.first > flip.second]
    lost = [flip for flip in found if flip.first < flip.second]
    sides = []
    for name, some in (("A", won), ("B", lost)):
        more = f", {SHOWN} of them shown" if len(some) > SHOWN else ""
        which = "is correct more often" if len(pair.matched) > 1 else "alone is correct"
        words = f"{name} {which} on {_images_of(len(some))}{more}"
        sides.append({"words": words, "entries": [_entry(flip, pictures) for flip in some[:SHOWN]]})
    return {
        "summary": f"{first} against {second}: {len(won)} and {_images_of(len(lost))}",
        "names": (first, second),
        "opened": (pair.first, pair.second) == (0, 1),
        "sides": sides,
    }


def _entry(flip: Flip, pictures: SmallPictures) -> dict[str, Any]:
    said = (f"{name}: {_said(counts, flip.of)}" for name, counts in zip("AB", flip.counts, strict=True))
    return {"picture": pictures.of(flip.file), "lines": [f"is {flip.label}", *said], **named(flip.file)}


def _said(counts: Mapping[str, int], of: int) -> str:
    """The prediction; of several runs each, and how many have it."""
    return ", ".join(name if of == 1 else f"{name} {number} of {of}" for name, number in counts.items())


def _images_of(number: int) -> str:
    return "1 image" if number == 1 else f"{number:,} images"
