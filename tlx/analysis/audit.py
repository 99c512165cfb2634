"""All checks of an audit, and what they find together."""

from collections.abc import Iterable

from tlx.analysis import (
    class_checks,
    copies_check,
    crop_check,
    duplicate_check,
    file_checks,
    folder_checks,
    label_checks,
    pixel_checks,
    prediction_checks,
    pretraining_check,
)
from tlx.analysis.audit_data import AuditData, Check
from tlx.analysis.finding import Finding, Numbered, ranked

CHECKS: tuple[Check, ...] = (
    file_checks.check,
    copies_check.check,
    duplicate_check.check,
    class_checks.check,
    folder_checks.check,
    pixel_checks.check,
    crop_check.check,
    label_checks.check,
    prediction_checks.check,
    pretraining_check.check,
)
OF_FOLDERS = CHECKS.index(folder_checks.check)  # it looks at the disk; the others at images alone


def audit(data: AuditData) -> list[Finding]:
    """The findings of all checks, the most severe first; those of one severity in the order of the checks."""
    return ranked(numbered(data, range(len(CHECKS))))


def numbered(data: AuditData, checks: Iterable[int]) -> Numbered:
    """What some of the checks find."""
    return [(number, finding) for number in checks for finding in CHECKS[number](data)]
