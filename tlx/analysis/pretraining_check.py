"""Whether images are known to be among those that the network's pretrained weights were trained on."""

from collections.abc import Iterator

from tlx.analysis.audit_data import AuditData
from tlx.analysis.finding import Finding


def check(data: AuditData) -> Iterator[Finding]:
    """What `dataset.pretraining_overlap` says, where the weights are ImageNet's."""
    if data.overlap:
        yield Finding(
            "pretraining_overlap",
            "note",
            f"images that the pretrained weights were trained on: {data.overlap}; the accuracy may be higher than on "
            "new pictures",
            count=len(data),
            remedy="compare it with that of networks of the same weights only",
        )
