"""The findings of an audit as one page, with small pictures of the images of each, side by side."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from tlx.analysis.audit_data import AuditData
from tlx.analysis.audit_lines import counted, relative
from tlx.analysis.finding import Finding
from tlx.datasets.image_decoding import UnreadableImage
from tlx.reporting import html_pages

SIDE, QUALITY = 160, 75  # pixels of a small picture, and of its JPEG
ALONE, GROUPS, MEMBERS = 24, 40, 8  # images that stand for themselves; groups; images of one
PICTURES = 1_000  # different images on a page; the others have their names only


def page(data: AuditData, findings: Sequence[Finding], title: str) -> str:
    """The page, self-contained."""
    pictures = _SmallPictures(data)
    images = {split: len(data.rows(split)) for split in data.sets}
    return html_pages.page(
        "audit.html",
        title=f"Audit of {title}",
        facts=[
            ("findings", counted(findings)),
            ("images", ", ".join(f"{number:,} {split}" for split, number in images.items())),
            ("classes", f"{len(data.classes)}"),
            *([("folder", str(data.root))] if data.root else []),
        ],
        findings=[_finding(finding, data.root, pictures) for finding in findings],
    )


def _finding(finding: Finding, root: Path | None, pictures: "_SmallPictures") -> dict[str, Any]:
    together = any(len(group) > 1 for group in finding.files)
    shown = GROUPS if together else ALONE
    groups: list[dict[str, Any]] = [
        {
            "certainty": f"certainty {finding.certainty[number]:.0%}" if finding.certainty else "",
            "entries": [_entry(finding, number, place, root, pictures) for place in range(min(len(group), MEMBERS))],
            "more": max(0, len(group) - MEMBERS),
        }
        for number, group in enumerate(finding.files[:shown])
    ]
    if not together and groups:
        groups = [{"certainty": "", "entries": [entry for group in groups for entry in group["entries"]], "more": 0}]
    return {
        "name": finding.kind.replace("_", " "),
        "severity": finding.severity,
        "message": finding.message,
        "remedy": finding.remedy,
        "groups": groups,
        "together": together,
        "more": max(0, len(finding.files) - shown),
    }


def _entry(finding: Finding, number: int, place: int, root: Path | None, pictures: "_SmallPictures") -> dict[str, Any]:
    file = finding.files[number][place]
    lines = [of[number][place] for of in (finding.labels, finding.splits) if of]
    like = [f"looks like {finding.suggested[number]}"] if finding.suggested else []
    return {"picture": pictures.of(file), "lines": ([", ".join(lines)] if lines else []) + like, "file": file,
            "name": relative(file, root)}  # fmt: skip


class _SmallPictures:
    """Small pictures of the images, each made once."""

    def __init__(self, data: AuditData) -> None:
        self.data, self.rows = data, {file: row for row, file in enumerate(data.files)}
        self.known: dict[str, str | None] = {}

    def of(self, file: str) -> str | None:
        """The picture's address; None for a file that gives none, or where there are enough."""
        if file not in self.known:
            self.known[file] = self._made(file) if len(self.known) < PICTURES else None
        return self.known[file]

    def _made(self, file: str) -> str | None:
        if file not in self.rows:
            return None
        row = self.rows[file]
        try:
            # What is black and white in one of more than 8 bits is not known here; its thumbnail is in its own range.
            deep = self.data.facts["bits"][row] > 8
            small = Image.fromarray(self.data.thumbnails[row] if deep else self.data.decode(row))
        except (OSError, UnreadableImage):  # the file has gone since
            return None
        small.thumbnail((SIDE, SIDE))
        jpeg = io.BytesIO()
        small.save(jpeg, "JPEG", quality=QUALITY)
        return html_pages.data_url(jpeg.getvalue(), "jpeg")
