"""What a person sees of findings: all of them as a list, or the few most severe ones in short."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from tlx.analysis.audit_data import AuditData
from tlx.analysis.duplicate_groups import STRONG
from tlx.analysis.finding import SEVERITIES, Finding
from tlx.analysis.same_pictures import copies_of_measured
from tlx.core.errors import printable
from tlx.datasets.left_out import listed_line

SHOWN = 5  # groups of files of a finding
MEMBERS = 4  # files of a group
SURE = 0.9  # certainty of the first group, from which a finding is worth a line before a run


def listed(findings: Sequence[Finding], root: Path | None = None, most: int = SHOWN) -> Iterator[str]:
    """All findings, the most severe first, each with its files. `root`: what paths are shown relative to."""
    for finding in findings:
        yield f"{finding.severity}: {finding.kind}: {printable(finding.message)}"
        yield from (f"    {line}" for line in _files(finding, root, most))
        if finding.remedy:
            yield f"    do: {finding.remedy}"


# Kinds whose images are of no use; of groups of copies and contradictory labels a person has to choose.
USELESS = ("constant", "class_in_class", "placeholder", "placeholders")
ACROSS = "near_duplicates_across_splits"  # of its pairs the images of train are left out, all that one has there


def exclusions(data: AuditData, findings: Sequence[Finding]) -> str:
    """A list for `dataset.exclude`: each finding as a comment, its images of train and val as paths.

    What is of no use is a line, and so is what surely shows what a test image shows; what a person has to look at is a
    comment, to be made a line by removing its `#`.
    """
    useless = {one.file for one in data.unreadable}
    names = {file: os.path.abspath(file) for file in useless} | dict(zip(data.files, data.names, strict=True))
    lines = ["# images to leave out of train and val, a path a line: dataset.exclude=<this file>"]
    for finding in findings:
        if finding.kind == ACROSS:
            listed = {data.names[one.row]: one.certainty >= STRONG for one in copies_of_measured(data)}
        else:
            files = dict.fromkeys(file for group in finding.files for file in group if file in names)
            wrong = finding.kind in USELESS or useless.issuperset(file for group in finding.files for file in group)
            listed = {names[file]: wrong for file in files}
        if listed and finding.severity != "note":
            lines += ["", f"# {finding.kind}: {printable(finding.message)}"]
            lines += [f"{'' if out else '# '}{listed_line(path)}" for path, out in listed.items()]
    return "\n".join(lines) + "\n"


def counted(findings: Sequence[Finding]) -> str:
    """`2 errors, 1 warning, 3 notes`."""
    counts = {severity: sum(one.severity == severity for one in findings) for severity in SEVERITIES}
    words = [f"{n} {severity}{'' if n == 1 else 's'}" for severity, n in counts.items() if n]
    return ", ".join(words) or "no finding"


def _files(finding: Finding, root: Path | None, most: int) -> Iterator[str]:
    for number, group in enumerate(finding.files[:most]):
        certain = f"  ({finding.certainty[number]:.0%})" if finding.certainty else ""
        more = f" and {len(group) - MEMBERS} more" if len(group) > MEMBERS else ""
        like = f"  looks like '{printable(finding.suggested[number])}'" if finding.suggested else ""
        yield " = ".join(printable(relative(file, root)) for file in group[:MEMBERS]) + more + like + certain
    if len(finding.files) > most:
        yield f"and {len(finding.files) - most:,} more"


def relative(file: str, root: Path | None) -> str:
    """A file's path as it is shown: below the data set's folder, where it lies there."""
    if root is None:
        return file
    short = os.path.relpath(os.path.abspath(file), os.path.abspath(root))
    return file if short.startswith("..") else short


def brief(findings: Sequence[Finding], most: int) -> Iterator[str]:
    """The errors and warnings in `most` lines at most; nothing where there are notes only, or nothing is certain."""
    worth = [one for one in findings if one.severity != "note" and max(one.certainty, default=1.0) >= SURE]
    shown = worth if len(worth) <= most else worth[: most - 1]
    for finding in shown:
        first = ", ".join(printable(os.path.basename(file)) for group in finding.files[:1] for file in group[:1])
        more = ", …" if finding.count > 1 else ""
        yield f"audit: {printable(finding.message)}{f' ({first}{more})' if first else ''}"
    if len(worth) > len(shown):
        others = len(worth) - len(shown)
        yield f"audit: {others} more findings are in audit.json, and in report.html when the run has ended"
