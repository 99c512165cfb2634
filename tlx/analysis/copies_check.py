"""Images whose decoded pixels are the same, to the last bit: across splits, under several labels, within a split."""

from collections.abc import Iterator

from tlx.analysis.audit_data import AuditData, grouped
from tlx.analysis.finding import Finding

DROP = "dataset.drop_duplicates=true leaves copies out of train"


def check(data: AuditData) -> Iterator[Finding]:
    """Groups of equal pictures; each group is in one finding, the first whose words fit it."""
    groups = grouped(record.tobytes() for record in data.facts["pixels"])
    label, split = data.labels.tolist(), data.splits.tolist()
    contradictory = [rows for rows in groups if len({label[row] for row in rows}) > 1]
    if contradictory:
        number = sum(map(len, contradictory))
        yield data.finding(
            "contradictory_copies",
            "error",
            f"{number:,} images are copies of each other under different labels: one label is wrong",
            contradictory,
            remedy="correct or remove them",
        )
    rest = [rows for rows in groups if len({label[row] for row in rows}) == 1]
    tested = [
        rows for rows in rest if len({split[row] for row in rows}) > 1 and any(split[row] == "test" for row in rows)
    ]
    if tested:
        number = sum(split[row] == "test" for rows in tested for row in rows)
        yield data.finding(
            "test_copies",
            "error",
            f"{number:,} of {len(data.rows('test')):,} test images are also in train or val: the test accuracy is too "
            "optimistic",
            tested,
            remedy=DROP,
        )
    chosen = [rows for rows in rest if {split[row] for row in rows} == {"train", "val"}]
    if chosen:
        number = sum(split[row] == "val" for rows in chosen for row in rows)
        yield data.finding(
            "val_copies",
            "warning",
            f"{number:,} of {len(data.rows('val')):,} val images are also in train: validation is too optimistic",
            chosen,
            remedy=DROP,
        )
    within = [rows for rows in rest if len({split[row] for row in rows}) == 1]
    if within:
        number = sum(len(rows) - 1 for rows in within)
        cut = " and ".join(name for name in data.created if any(split[rows[0]] == "train" for rows in within))
        more = f"; {cut}, cut from train, may have some of them" if cut else ""
        yield data.finding(
            "copies",
            "warning" if cut else "note",
            f"{number:,} images are copies of others in the same split{more}",
            within,
            remedy=DROP if any(split[rows[0]] == "train" for rows in within) else "remove them",
        )
