"""What a person sees of findings: all of them as a list, or the few most severe ones in short."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from tlx.analysis.finding import SEVERITIES, Finding
from tlx.core.errors import printable

SHOWN = 5  # groups of files of a finding
MEMBERS = 4  # files of a group


def listed(findings: Sequence[Finding], root: Path | None = None, most: int = SHOWN) -> Iterator[str]:
    """All findings, the most severe first, each with its files. `root`: what paths are shown relative to."""
    for finding in findings:
        yield f"{finding.severity}: {finding.kind}: {printable(finding.message)}"
        yield from (f"    {line}" for line in _files(finding, root, most))
        if finding.remedy:
            yield f"    do: {finding.remedy}"


def counted(findings: Sequence[Finding]) -> str:
    """`2 errors, 1 warning, 3 notes`."""
    counts = {severity: sum(one.severity == severity for one in findings) for severity in SEVERITIES}
    words = [f"{n} {severity}{'' if n == 1 else 's'}" for severity, n in counts.items() if n]
    return ", ".join(words) or "no finding"


def _files(finding: Finding, root: Path | None, most: int) -> Iterator[str]:
    for number, group in enumerate(finding.files[:most]):
        certain = f"  ({finding.certainty[number]:.0%})" if finding.certainty else ""
        more = f" and {len(group) - MEMBERS} more" if len(group) > MEMBERS else ""
        yield " = ".join(printable(relative(file, root)) for file in group[:MEMBERS]) + more + certain
    if len(finding.files) > most:
        yield f"and {len(finding.files) - most:,} more"


def relative(file: str, root: Path | None) -> str:
    """A file's path as it is shown: below the data set's folder, where it lies there."""
    if root is None:
        return file
    short = os.path.relpath(file, root) if os.path.isabs(file) else file
    return file if short.startswith("..") else short
