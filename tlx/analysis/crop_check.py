"""How much of each picture the centre crop cuts away."""

from collections.abc import Iterator

import numpy as np

from tlx.analysis.audit_data import AuditData, View
from tlx.analysis.finding import Finding, number_of

MOST = 0.25  # share of a picture that may be cut away without a word
HALF, MANY = 0.5, 0.1  # a warning where so large a share of a picture is cut away from so many


def check(data: AuditData) -> Iterator[Finding]:
    """The images of which the centre crop cuts away more than a quarter, the most first."""
    view = data.view
    if view is None or view.resize is None or view.crop is None or not len(data):
        return
    width, height = (data.facts[side].astype(np.float64) for side in ("width", "height"))
    aspect = np.maximum(width, height) / np.minimum(width, height)
    cut = 1 - kept(aspect, view)
    rows = np.flatnonzero(cut > MOST)
    if not len(rows):
        return
    rows = rows[np.argsort(-cut[rows], kind="stable")]
    most = int(rows[0])
    of_all = len(rows) / len(data)
    half = int((cut > HALF).sum())
    more = f", in {half:,} more than half" if half else ""
    yield data.finding(
        "centre_crop",
        "warning" if half > MANY * len(data) else "note",
        f"of {number_of(len(rows), 'image')} ({of_all:.0%}) the centre crop (short side {view.resize}, crop "
        f"{view.crop}) cuts away more than a quarter{more}, at most {cut[most]:.0%} (of "
        f"{data.facts['width'][most]} x {data.facts['height'][most]} pixels)",
        rows.tolist(),
        remedy=f"backbone.resize=squash takes the whole picture, stretched (here up to {aspect[most]:.1f} times); "
        f"backbone.resize=pad takes it in its own shape, {1 / aspect[most]:.0%} of the input where it is least; "
        "compare them with -m backbone.resize=auto,squash,pad",
    )


def kept(aspect: "np.typing.NDArray[np.float64]", view: View) -> "np.typing.NDArray[np.float64]":
    """The share of a picture that the crop leaves, by its aspect ratio (long side by short side, at least 1)."""
    side = (view.crop or view.input_size) / (view.resize or view.input_size)
    share: np.typing.NDArray[np.float64] = side**2 / aspect
    return share
