"""The audit of a run's data before it trains: all findings in the run's folder, the worst in a few lines."""

import json
import logging
from typing import TYPE_CHECKING

from tlx.core.activity import doing
from tlx.core.errors import FaultyData, said

if TYPE_CHECKING:
    from tlx.analysis.finding import Finding
    from tlx.runs.prepare import Job
    from tlx.runs.run_recorder import Record

FILE = "audit.json"
COPIES = ("test_copies", "val_copies", "contradictory_copies")  # kinds that `datasets.exact_copies` says, too
MOST = 5  # lines of doubts about the data, in all
log = logging.getLogger("tlx")
_said = set[tuple[str, ...]]()  # by this process: the jobs of a sweep have the same data


def look(record: "Record", job: "Job", *, alone: bool) -> None:
    """Audits the data, unless that is not requested; what was read for it before is not read again.

    A run that goes on after an epoch is not audited again: what it has learned is kept, whatever would be found now.
    Where a check fails itself, that is a warning, unless `dataset.audit` is `fail`.
    `alone`: the run is no part of a sweep, whose jobs say once what is the same for all.

    Raises:
        FaultyData: there is an error, and `dataset.audit` is `fail`.
    """
    how = job.config.dataset.audit
    if how == "off" or not record.writes or record.rows:
        return
    with record.clock.part("data"), doing("auditing the data"):
        from tlx.analysis.audit_lines import brief
        from tlx.analysis.finding import number_of
        from tlx.runs.job_audit import audit_of_job

        try:
            findings = audit_of_job(job)
        except Exception as error:  # whatever it is: the training needs no audit
            if how == "fail":
                raise
            log.warning("the audit was not made: %s", said(error))
            return
    record.write(FILE, json.dumps([finding.to_dict() for finding in findings], indent=1, ensure_ascii=False))
    lines = tuple(brief(_not_said(findings, job), MOST - len(record.summary.copies.get("lines", ()))))
    if alone or lines not in _said:
        _said.add(lines)
        for line in lines:
            log.info("%s", line)
    errors = [finding for finding in findings if finding.severity == "error"]
    if how == "fail" and errors:
        more = "" if len(errors) == 1 else f", and {number_of(len(errors) - 1, 'more error')}"
        raise FaultyData(f"dataset.audit=fail: {errors[0].message}{more}; {record.folder / FILE} has all findings")


def _not_said(findings: "list[Finding]", job: "Job") -> "list[Finding]":
    """Without those that the opening of a run says in its own lines (`run_display.doubts`): these count equal files."""
    sets = {"train": job.data.train, "val": job.data.val, "test": job.data.test}
    content = {
        (split, file): digest
        for split, images in sets.items()
        for file, digest in zip(images.files, images.digests(), strict=True)
    }

    def equal_files(finding: "Finding") -> bool:
        groups = zip(finding.splits, finding.files, strict=True)
        return all(len({content[member] for member in zip(*group, strict=True)}) == 1 for group in groups)

    return [
        finding
        for finding in findings
        if finding.kind != "class_names" and not (finding.kind in COPIES and equal_files(finding))
    ]
