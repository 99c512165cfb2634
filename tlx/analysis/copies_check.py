"""Images whose decoded pixels are the same, to the last bit: across splits, under several labels, within a split."""

from collections.abc import Iterator

from tlx.analysis.audit_data import AuditData, grouped
from tlx.analysis.finding import Finding, number_of

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
    if tested:
        copies = sum(split[row] == "test" for rows in tested for row in rows)
        yield data.finding(
            "test_copies",
            "error",
            f"{copies:,} of {number_of(len(data.rows('test')), 'test image')} {_are(copies)} also in train or val: the "
            "test accuracy is too optimistic",
            tested,
            remedy=DROP,
        )
    chosen = [rows for rows in rest if {split[row] for row in rows} == {"train", "val"}]
    if chosen:
        copies = sum(split[row] == "val" for rows in chosen for row in rows)
        yield data.finding(
            "val_copies",
            "warning",
            f"{copies:,} of {number_of(len(data.rows('val')), 'val image')} {_are(copies)} also in train: validation "
            "is too optimistic",
            chosen,
            remedy=DROP,
        )
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


def _are(count: int) -> str:
    return "is" if count == 1 else "are"
