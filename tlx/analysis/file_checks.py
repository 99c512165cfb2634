"""What is wrong with files: those that give no picture, and those that are not what they seem to be."""

import os
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from tlx.analysis.audit_data import AuditData
from tlx.analysis.fact_reading import UnreadableFile
from tlx.analysis.finding import Finding, Severity

ENDINGS = {  # by Pillow's name of the format
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".mpo"),
    "MPO": (".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".mpo"),
    "PNG": (".png",),
    "GIF": (".gif",),
    "BMP": (".bmp", ".dib"),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
    "AVIF": (".avif",),
    "JPEG2000": (".jp2", ".j2k", ".jpf", ".jpx", ".j2c", ".jpc"),
    "TGA": (".tga", ".icb", ".vda", ".vst"),
    "ICO": (".ico",),
    "HEIF": (".heic", ".heif", ".hif"),
}
WIDE = 1.15  # of sRGB's area of colours, from which a profile is called wide


class FileFault(NamedTuple):
    """A kind of fault: its severity, and what is said after the number of files."""

    severity: Severity
    says: str
    remedy: str = ""


UNREADABLE = {
    "empty_file": FileFault("error", "no content (zero bytes)", "remove or replace them"),
    "truncated": FileFault("error", "truncated, the end of the picture is missing", "copy or download them again"),
    "not_an_image": FileFault("error", "no image, or of an unknown format", "remove them"),
    "unreadable": FileFault("error", "not readable", "repair or remove them"),
}
SKIP = "dataset.on_error=skip leaves them out"
FACTS = {
    "cut_short": FileFault("warning", "JPEG whose end is missing; a part may be grey", "copy or download them again"),
    "wrong_extension": FileFault("note", "another format than the name says; read by content"),
    "animated": FileFault("warning", "several frames or pages, of which the first one is used"),
    "sixteen_bit": FileFault("note", "more than 8 bits a channel; dataset.range says what becomes black and white"),
    "cmyk": FileFault("note", "in CMYK, made for print; becomes RGB without the colour profile"),
    "transparent": FileFault("note", "partly transparent; put over white"),
    "rotated": FileFault("note", "turned by EXIF; tlx turns them upright, other programs may not"),
    "wide_gamut": FileFault("note", "a profile of more colours than sRGB, which is not applied: colours look pale"),
}


def check(data: AuditData) -> Iterator[Finding]:
    """The files that give no picture, those left out, and those that are read in another way than one may expect."""
    for kind, about in UNREADABLE.items():
        if found := [one for one in data.unreadable if _why(one) == kind]:
            yield _of_unreadable(data, kind, about, found)
    if data.skipped:
        files = tuple((path,) for path, _ in data.skipped)
        reasons = "; ".join(dict.fromkeys(reason for _, reason in data.skipped[:3]))
        said = f"{_number(len(files))} left out by the reader ({reasons})"
        yield Finding("left_out", "note", said, files, len(files))
    facts = data.facts
    endings = [os.path.splitext(file)[1].lower() for file in data.files]
    formats = [name.decode() for name in facts["format"].tolist()]
    wrong = [bool(end) and end not in ENDINGS.get(of, (end,)) for end, of in zip(endings, formats, strict=True)]
    holds = {
        "cut_short": facts["cut_short"],
        "wrong_extension": np.array(wrong, dtype=bool),
        "animated": facts["frames"] > 1,
        "sixteen_bit": facts["bits"] > 8,
        "cmyk": np.isin(facts["mode"], [b"CMYK", b"YCCK"]),
        "transparent": facts["transparent"],
        "rotated": facts["orientation"] > 1,
        "wide_gamut": facts["gamut"] > WIDE,
    }
    for kind, about in FACTS.items():
        rows = np.flatnonzero(holds[kind]).tolist()
        if rows:
            detail = ""
            if kind == "wrong_extension":
                detail = f" ({os.path.basename(data.files[rows[0]])} is {formats[rows[0]]})"
            said = f"{_number(len(rows))} {about.says}{detail}"
            yield data.finding(kind, about.severity, said, rows, remedy=about.remedy)


def _why(one: UnreadableFile) -> str:
    if one.size == 0:
        return "empty_file"
    if "truncated" in one.reason:
        return "truncated"
    return "not_an_image" if one.reason.startswith("not an image") else "unreadable"


def _of_unreadable(data: AuditData, kind: str, about: FileFault, found: list[UnreadableFile]) -> Finding:
    reasons = "; ".join(dict.fromkeys(one.reason for one in found[:3]))
    detail = f" ({reasons})" if kind == "unreadable" else ""
    return Finding(
        kind,
        about.severity,
        f"{_number(len(found))} {about.says}{detail}",
        files=tuple((one.file,) for one in found),
        count=len(found),
        splits=tuple((one.split,) for one in found),
        labels=tuple((data.classes[one.label],) for one in found),
        remedy=f"{about.remedy}; {SKIP}",
    )


def _number(count: int) -> str:
    return "1 file:" if count == 1 else f"{count:,} files:"
