"""The audit of a run's data before it trains: all findings in the run's folder, the worst in a few lines."""

import json
import logging
from typing import TYPE_CHECKING

from tlx.core.activity import doing
from tlx.core.errors import FaultyData

if TYPE_CHECKING:
    from tlx.analysis.finding import Finding
    from tlx.runs.prepare import Job
    from tlx.runs.run_recorder import Record

FILE = "audit.json"
MOST = 5  # lines of doubts about the data, in all
log = logging.getLogger("tlx")
_said = set[tuple[str, ...]]()  # by this process: the jobs of a sweep have the same data


def look(record: "Record", job: "Job", *, alone: bool) -> None:
    """Audits the data, unless that is not requested; what was read for it before is not read again.

    `alone`: the run is no part of a sweep, whose jobs say once what is the same for all.

    Raises:
        FaultyData: there is an error, and `dataset.audit` is `fail`.
    """
    how = job.config.dataset.audit
    if how == "off" or not record.writes:
        return
    with record.clock.part("data"), doing("auditing the data"):
        from tlx.analysis.audit_lines import brief
        from tlx.analysis.finding import number_of
        from tlx.runs.data_audit import audit_of_job

        findings = audit_of_job(job)
    record.write(FILE, json.dumps([finding.to_dict() for finding in findings], indent=1, ensure_ascii=False))
    lines = tuple(brief(_not_said(findings, record), MOST - len(record.summary.copies.get("lines", ()))))
    if alone or lines not in _said:
        _said.add(lines)
        for line in lines:
            log.info("%s", line)
    errors = [finding for finding in findings if finding.severity == "error"]
    if how == "fail" and errors:
        more = "" if len(errors) == 1 else f", and {number_of(len(errors) - 1, 'more error')}"
        raise FaultyData(f"dataset.audit=fail: {errors[0].message}{more}; {record.folder / FILE} has all findings")


def _not_said(findings: "list[Finding]", record: "Record") -> "list[Finding]":
    """Without those that the opening of a run says in its own lines (`run_display.doubts`)."""
    copies = record.summary.copies
    said = {"class_names"}
    across = copies.get("across", {})
    said |= {"test_copies"} if any(words.startswith("test in") for words in across) else set()
    said |= {"val_copies"} if "val in train" in across else set()
    said |= {"contradictory_copies"} if copies.get("labels") else set()
    return [finding for finding in findings if finding.kind not in said]
