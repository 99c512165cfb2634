"""One range for all images of more than 8 bits of a data set: chosen, said, and set for all that decodes them."""

import logging
from collections.abc import Sequence

from tlx.datasets.pixel_levels import Range, common_range, dark, words
from tlx.datasets.splits import Data

DARK = 1 / 8  # of a range that was given: where no training image reaches so far, a line says so

log = logging.getLogger("tlx")


def scale(data: Data, given: Sequence[float] | None) -> Range | None:
    """One range for all images of more than 8 bits of a data set, which is said: what becomes black, and white.

    `given` by the user, or what the headers of the images that train say, or what was measured over these when they
    were read. None, and nothing is said, where no image has more than 8 bits; these stay as they are in any case.
    """
    sets = {"train": data.train, "val": data.val, "test": data.test}
    found = {name: [levels for _, levels in images.levels()] for name, images in sets.items()}
    deep, total = sum(map(len, found.values())), sum(map(len, sets.values()))
    if not deep:
        if given is not None:
            log.warning("dataset.range=%s: no image has more than 8 bits; it changes nothing", list(given))
        return None
    common = ((given[0], given[1]), False) if given is not None else common_range(found["train"])
    if common is None:
        log.warning(
            "dataset: %d images have more than 8 bits, but none that trains: 0 to 65535 (floats: to 1, or 255) becomes "
            "black to white; dataset.range=[low, high] says what is right",
            deep,
        )
        return None
    span, by_header = common
    by = "dataset.range" if given is not None else "their headers" if by_header else ""
    how = f"as {by} says" if given is not None else f"as {by} say" if by else f"measured over {len(found['train']):,}"
    others = f"; the other {total - deep:,} have 8 bits and stay as they are" if deep < total else ""
    log.info("range: values %s become black to white in %s images, %s%s", words(span), f"{deep:,}", how, others)
    highest = max((levels.high for levels in found["train"]), default=span[1])
    if by and highest - span[0] < DARK * (span[1] - span[0]):
        log.warning("range: no training image has values above %.10g: all are dark; see dataset.range", highest)
    elif black := [levels for some in found.values() for levels in some if dark(levels, span)]:
        log.warning(
            "range: %s of these %s images have no value above %.10g, and are nearly black beside the others; if they "
            "have fewer bits, or other units, convert them to those of the others",
            f"{len(black):,}",
            f"{deep:,}",
            max(levels.high for levels in black),
        )
    for images in sets.values():
        images.store.span = span
    return span
