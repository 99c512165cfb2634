"""What an audit has found, as a value: `audit.json`, terminal, page and exit code are made of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Severity = Literal["error", "warning", "note"]  # results would be wrong; may be wrong; good to know
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


def number_of(count: int, one: str, several: str = "") -> str:
    """`1 image`, `2,000 images`; `several` where it is not `one` with an s."""
    return f"1 {one}" if count == 1 else f"{count:,} {several or one + 's'}"


@dataclass(frozen=True)
class Finding:
    """One kind of fault of a data set, with all files that have it.

    Attributes:
        kind: its name, as `near_duplicates`.
        severity: what it does to a result.
        message: one line: what was found, how many images, what it does.
        files: paths, in groups of those that belong together; a group of one where each stands for itself. The groups
            that are most certain come first.
        count: how many images are concerned.
        splits: the split of each file, in the shape of `files`; empty where it does not matter.
        labels: the class of each file, in the same shape, or empty.
        certainty: of each group, 0..1; empty where there is no doubt.
        suggested: the class that each group looks like; empty where labels are not in doubt.
        remedy: what to type, or to do; may be empty.
    """

    kind: str
    severity: Severity
    message: str
    files: tuple[tuple[str, ...], ...] = ()
    count: int = 0
    splits: tuple[tuple[str, ...], ...] = ()
    labels: tuple[tuple[str, ...], ...] = ()
    certainty: tuple[float, ...] = ()
    suggested: tuple[str, ...] = ()
    remedy: str = ""

    def to_dict(self) -> dict[str, Any]:
        """As `audit.json` has it; what is empty is left out but for `files`."""
        found: dict[str, Any] = {"kind": self.kind, "severity": self.severity, "count": self.count}
        found |= {"message": self.message, "files": [list(group) for group in self.files]}
        for name in ("splits", "labels"):
            if getattr(self, name):
                found[name] = [list(group) for group in getattr(self, name)]
        if self.certainty:
            found["certainty"] = [round(value, 4) for value in self.certainty]
        if self.suggested:
            found["suggested"] = list(self.suggested)
        return found | ({"remedy": self.remedy} if self.remedy else {})

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> "Finding":
        """The inverse of `to_dict`, with certainties as that has them."""
        groups = {name: tuple(map(tuple, found[name])) for name in ("files", "splits", "labels") if name in found}
        flat = {name: tuple(found[name]) for name in ("certainty", "suggested") if name in found}
        return cls(**{**found, **groups, **flat})


Numbered = list[tuple[int, Finding]]
"""Findings, each with the place of its check among all."""


def ranked(found: Numbered) -> list[Finding]:
    """The most severe first; those of one severity in the order of the checks."""
    ordered = sorted(found, key=lambda one: (SEVERITIES.index(one[1].severity), one[0]))
    return [finding for _, finding in ordered]
