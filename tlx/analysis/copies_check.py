"""Images whose decoded pixels are the same, to the last bit: across splits, under several labels, within a split."""

from collections.abc import Iterator

from tlx.analysis.audit_data import AuditData, grouped
from tlx.analysis.finding import Finding, Severity, number_of

DROP = "dataset.drop_duplicates=true leaves copies out of train"


def check(data: AuditData) -> Iterator[Finding]:
    """Groups of equal pictures; each group is in one finding, the first whose words fit it."""
    groups = grouped(record.tobytes() for record in data.facts["pixels"])
    label, split = data.labels.tolist(), data.splits.tolist()
    contradictory = [rows for rows in groups if len({label[row] for row in rows}) > 1]
    if contradictory:
        yield data.finding(
            "contradictory_copies",
            "error",
            f"{sum(map(len, contradictory)):,} images are copies of each other under different labels: one "
            "label is wrong",
            contradictory,
            remedy="correct or remove them",
        )
    rest = [rows for rows in groups if len({label[row] for row in rows}) == 1]
    tested = [
        rows for rows in rest if len({split[row] for row in rows}) > 1 and any(split[row] == "test" for row in rows)
    ]
    chosen = [rows for rows in rest if {split[row] for row in rows} == {"train", "val"}]
    if tested:
        yield _across(data, tested, "test", "error", "train or val: the test accuracy")
    if chosen:
        yield _across(data, chosen, "val", "warning", "train: validation")
    within = [rows for rows in rest if len({split[row] for row in rows}) == 1]
    if within:
        copies = sum(len(rows) - 1 for rows in within)
        cut = " and ".join(name for name in data.created if any(split[rows[0]] == "train" for rows in within))
        more = f"; {cut}, cut from train, may have some of them" if cut else ""
        yield data.finding(
            "copies",
            "warning" if cut else "note",
            f"{number_of(copies, 'image is a copy of another', 'images are copies of others')} in the same split{more}",
            within,
            remedy=DROP if any(split[rows[0]] == "train" for rows in within) else "remove them",
        )


def _across(data: AuditData, groups: list[list[int]], split: str, severity: Severity, where: str) -> Finding:
    """Images of a split that are in another, too. `where`: in which, and what is too optimistic by that."""
    copies = sum(bool(data.splits[row] == split) for rows in groups for row in rows)
    images = number_of(len(data.rows(split)), f"{split} image")
    message = f"{copies:,} of {images} {'is' if copies == 1 else 'are'} also in {where} is too optimistic"
    return data.finding(f"{split}_copies", severity, message, groups, remedy=DROP)
