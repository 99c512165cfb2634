"""The facts of an audit's images that may give the label or the split away, by the words that messages use."""

import numpy as np

from tlx.analysis.audit_data import AuditData
from tlx.analysis.shortcuts import Fact
from tlx.core.large_arrays import blocks

BORDER = 2  # pixels of a thumbnail


def known_facts(data: AuditData) -> dict[str, Fact]:
    """Facts of all images, in the order of `data`."""
    facts, inner = data.facts, slice(BORDER, -BORDER)
    edge = np.ones(data.thumbnails.shape[1:3], bool)
    edge[inner, inner] = False
    border = np.empty((len(data), 3), np.float32)
    for place, thumbnails in blocks(data.thumbnails):
        border[place] = thumbnails[:, edge].mean(axis=1, dtype=np.float32)
    width, height = facts["width"].astype(np.float64), facts["height"].astype(np.float64)
    form = np.char.add(np.char.add(facts["format"], b" "), facts["mode"])
    return {
        "brightness": facts["mean"],
        "size in pixels": width * height,
        "aspect ratio": np.round(width / np.maximum(height, 1), 2),
        "file format": form,
        "border colour": border,
        "camera": facts["camera"],
    }
