"""All checks of an audit, and what they find together."""

from collections.abc import Sequence

from tlx.analysis import (
    class_checks,
    copies_check,
    crop_check,
    duplicate_check,
    file_checks,
    label_checks,
    pixel_checks,
    prediction_checks,
    pretraining_check,
)
from tlx.analysis.audit_data import AuditData, Check
from tlx.analysis.finding import SEVERITIES, Finding

CHECKS: tuple[Check, ...] = (
    file_checks.check,
    copies_check.check,
    duplicate_check.check,
    class_checks.check,
    pixel_checks.check,
    crop_check.check,
    label_checks.check,
    prediction_checks.check,
    pretraining_check.check,
)


def audit(data: AuditData, checks: Sequence[Check] = CHECKS) -> list[Finding]:
    """The findings of all checks, the most severe first; those of one severity in the order of the checks."""
    found = [finding for check in checks for finding in check(data)]
    return sorted(found, key=lambda finding: SEVERITIES.index(finding.severity))
