"""`python -m tlx drift RUN PATH…`: are new images like those that the run was measured on?"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tlx.cli.images_argument import check_device, images_option, no_image
from tlx.cli.run_argument import run_argument, run_folder
from tlx.cli.subcommand import Subcommand
from tlx.core.activity import doing
from tlx.core.errors import RequestError, printable, unicode
from tlx.core.statistics import wilson
from tlx.datasets.image_paths import find
from tlx.reporting.text_table import aligned

if TYPE_CHECKING:
    from tlx.runs.new_images import Compared

__all__ = ["SUBCOMMAND", "drift"]
SHOWN = 10  # images and classes


def _options(parser: argparse.ArgumentParser) -> None:
    """Adds its arguments."""
    run_argument(parser, no_image("drift"))
    images_option(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object, with every image")
    parser.add_argument(
        "--top", type=int, default=SHOWN, metavar="K", help=f"show the K images that differ most (default: {SHOWN})"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:<number> or mps")


def _main(given: argparse.Namespace) -> int:
    """Runs the subcommand and returns its exit code."""
    run = run_folder(given.run, given.output)
    return drift(run, given.paths, top=given.top, as_json=given.json, device=given.device)


SUBCOMMAND = Subcommand("drift", "whether new images are like those that a run was measured on", _options, _main)


def drift(run: str, paths: Sequence[str], *, top: int = SHOWN, as_json: bool = False, device: str = "auto") -> int:
    """Prints how new images differ from the run's test images, and which of them differ most.

    Returns:
        0, or 1 where some image could not be read.

    Raises:
        RequestError: no such path, no model in the run, its test images are not at hand, too few images.
    """
    from tlx.runs.new_images import compared

    if top < 0:
        raise RequestError(f"--top {top}: must be 0 or more")
    check_device(device)
    with doing("looking for images"):
        files = list(find(paths))
    found = compared(Path(run), files, device)
    if as_json:
        print(unicode(json.dumps(found.to_dict(), ensure_ascii=False)))
    else:
        print("\n".join(_lines(found, top)))
    for one in found.unread:
        print(printable(f"{one.file}: {one.error}"), file=sys.stderr)
    return 1 if found.unread else 0


def _lines(found: "Compared", top: int) -> Iterator[str]:
    new, of = len(found.images), found.drift
    kind = of.apart is not None and of.apart.found
    what = [*(["of another kind"] if kind else []), *(["of other classes"] if of.shares.differ else [])]
    yield f"{new} new images, compared with {found.test} test images of the run"
    yield (
        f"result: they are {' and '.join(what)}" if what else "result: no difference is found that is large and certain"
    )
    yield from aligned(list(_facts(found)), left=2)
    yield ""
    yield from _shares(found)
    if top and found.images:
        some = [(of.similarity[row], found.images[row]) for row in found.strangest[:top]]
        rows = [("similarity", "prediction", "probability")]
        rows += [(f"{alike:.3f}", printable(one.prediction), f"{one.probability:.4f}") for alike, one in some]
        files = ["file", *(printable(str(one.file)) for _, one in some)]
        yield ""
        yield f"least like the test images{f' ({top} of {new})' if top < new else ''}:"
        yield from (f"{line}  {file}" for line, file in zip(aligned(rows, left=0), files, strict=True))


def _facts(found: "Compared") -> Iterator[tuple[str, str]]:
    of, new = found.drift, len(found.images)
    if of.apart is None:
        yield "separated", f"cannot be said: only {of.matched} images of either set have the same predicted class"
    else:
        interval = f"99.9 % interval {of.apart.low:.2f} to {of.apart.high:.2f}"
        yield (
            "separated",
            f"area under the curve {of.apart.area:.2f} ({interval}) of a classifier on the features of {of.matched} "
            "images of either set; chance: 0.50",
        )
    low, high = of.far_interval
    yield (
        "far away",
        f"{of.far / new:.1%} (95 % interval {low:.1%} to {high:.1%}) are farther from their nearest test images than "
        "95 % of these are from each other",
    )
    if found.unknown is not None:
        low, high = wilson(found.unknown, new)
        yield "unknown", f"{found.unknown / new:.1%} (95 % interval {low:.1%} to {high:.1%}) are predicted as unknown"
    p = "< 0.0001" if of.shares.p < 0.0001 else f"{of.shares.p:.2g}"
    yield "classes", f"{of.shares.distance:.1%} would have to be of another class for equal shares (p {p})"


def _shares(found: "Compared") -> Iterator[str]:
    """The classes whose shares differ most."""
    counts = found.drift.counts
    shares = counts / counts.sum(axis=1, keepdims=True)
    order = sorted(range(len(found.classes)), key=lambda place: -abs(shares[1, place] - shares[0, place]))[:SHOWN]
    rows = [("predicted", "test images", "new images")]
    rows += [(printable(found.classes[at]), f"{shares[0, at]:.1%}", f"{shares[1, at]:.1%}") for at in sorted(order)]
    yield from aligned(rows, left=1)
    if len(order) < len(found.classes):
        yield f"the {SHOWN} of {len(found.classes)} classes whose shares differ most"
