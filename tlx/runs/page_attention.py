"""Pictures of where the network looks for the class that it names wrongly, for a run's page."""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from tlx.reporting import html_pages

if TYPE_CHECKING:
    from tlx.runs.prepare import Job

SIDE, QUALITY = 128, 75  # pixels of a picture, and of its JPEG
AT_ONCE = 4  # images that are in memory together
TINT = np.array([255.0, 60.0, 0.0])


def attention(job: "Job", rows: Sequence[int], classes: Sequence[int]) -> dict[str, str]:
    """Of some test images what the network sees, tinted where it finds the class: file → the picture's address.

    Empty for networks that have no maps.
    """
    import torch

    from tlx.analysis.attention import grad_cam

    images, found = job.data.test, dict[str, str]()
    for start in range(0, len(rows), AT_ONCE):
        some = rows[start : start + AT_ONCE]
        views = torch.stack([job.preprocessing.of(images.decode(row)) for row in some])
        wanted = torch.tensor(classes[start : start + AT_ONCE], device=job.device)
        maps = grad_cam(job.net, views.to(job.device), wanted)
        if maps is None:
            return {}
        for row, view, heat in zip(some, views.numpy(), maps.cpu().numpy(), strict=True):
            found[images.files[row]] = _tinted(view.transpose(1, 2, 0), heat)
    return found


def _tinted(view: np.ndarray, heat: np.ndarray) -> str:
    """A view, uint8 [S, S, 3], tinted where heat, float [h, w] in 0..1, is high."""
    small = np.asarray(Image.fromarray(view).resize((SIDE, SIDE)), np.float32)
    share = np.asarray(Image.fromarray(heat.astype(np.float32)).resize((SIDE, SIDE), Image.Resampling.BICUBIC))
    share = 0.65 * share.clip(0, 1)[..., None]
    grey = small.mean(axis=2, keepdims=True) * 0.35 + small * 0.65
    jpeg = io.BytesIO()
    Image.fromarray((grey * (1 - share) + TINT * share).astype(np.uint8)).save(jpeg, "JPEG", quality=QUALITY)
    return html_pages.data_url(jpeg.getvalue(), "jpeg")
