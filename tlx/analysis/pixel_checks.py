"""Pictures in which there is little to see: tiny, constant, very dark, very bright, blurred; and huge ones."""

from collections.abc import Iterator

import numpy as np

from tlx.analysis.audit_data import ROWS, AuditData
from tlx.analysis.finding import Finding, Severity

TINY, SMALL = 16, 64  # pixels of the short side: always tiny; tiny beside images that have four times as many
HUGE = 50_000_000  # pixels
FLAT = 2  # levels between nearly all pixels of a constant picture
DARK, BRIGHT = 40, 215  # levels: a thousandth of the pixels at most is brighter, or darker
BLURRED = 0.38  # sharpness, see `sharpness.sharpness`; photographs have 0.6 to 0.9, blurred by 2 pixels of 256 0.35
SEEN = 30  # levels of contrast from which a picture can be called blurred
COMMON = 0.5  # share of the images from which a fault is what the data is like


def check(data: AuditData) -> Iterator[Finding]:
    """Each kind with its images; a picture is named once, by what is most wrong with it."""
    facts = data.facts
    short = np.minimum(facts["width"], facts["height"])
    usual = float(np.median(short)) if len(short) else 0.0
    contrast = facts["high"] - facts["low"]
    constant = contrast <= FLAT
    rows = np.flatnonzero(constant)
    for some in np.array_split(rows, len(rows) // ROWS + 1):
        constant[some] = np.ptp(data.thumbnails[some], axis=(1, 2)).max(axis=1) <= FLAT
    dark = ~constant & (facts["high"] < DARK)
    bright = ~constant & (facts["low"] > BRIGHT)
    kinds = {
        "tiny": (short < TINY) | ((short < SMALL) & (4 * short < usual)),
        "huge": facts["width"].astype(np.int64) * facts["height"] > HUGE,
        "constant": constant,
        "very_dark": dark,
        "very_bright": bright,
        "blurred": ~dark & ~bright & (contrast >= SEEN) & (facts["sharpness"] < BLURRED),
    }
    says = {
        "tiny": f"few pixels (the smallest: {_least(data, short)}); enlarged, they show little",
        "huge": "more than 50 million pixels; each takes seconds to decode",
        "constant": "one colour, nothing to be seen",
        "very_dark": "nearly black everywhere",
        "very_bright": "nearly white everywhere",
        "blurred": "blurred, also in the sharpest part",
    }
    for kind, holds in kinds.items():
        rows = np.flatnonzero(holds)
        if not len(rows):
            continue
        if kind == "blurred":
            rows = rows[np.argsort(facts["sharpness"][rows], kind="stable")]
        of_all = len(rows) > COMMON * len(data)
        severity: Severity = "note" if kind == "huge" or of_all else "warning"
        number = "1 image:" if len(rows) == 1 else f"{len(rows):,} images:"
        yield data.finding(kind, severity, f"{number} {says[kind]}", rows.tolist())


def _least(data: AuditData, short: "np.typing.NDArray[np.int32]") -> str:
    if not len(short):
        return ""
    row = int(short.argmin())
    return f"{data.facts['width'][row]} x {data.facts['height'][row]}"
