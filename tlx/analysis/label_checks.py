"""Findings of labels: those that are probably wrong, and those that a probe contradicts most.

torch is imported where a probe is trained only.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tlx.analysis.audit_data import AuditData
from tlx.analysis.finding import Finding, number_of
from tlx.analysis.label_errors import LabelErrors, Reals, label_errors
from tlx.analysis.remembered import digest, fingerprint
from tlx.analysis.same_pictures import pictures
from tlx.analysis.second_look import chosen, judged
from tlx.core import activity
from tlx.core.errors import printable
from tlx.datasets.images import Labels

FEWEST = 40  # images that a probe needs to say something of labels
ALL = 2_000  # images up to which all have features at full size; from which suspicious labels are listed
LISTED = 100  # suspicious labels of a split
ASSUMED = 0.01  # share of wrong labels where none could be shown: certainties of suspicious labels are for this one
REMEDY = "look at them; move what is wrong to its class, or leave it out of training (dataset.exclude=FILE)"

Logits = NDArray[np.float32]


class Judged(NamedTuple):
    """Logits of images that did not train the probe, and how many images of the data set each stands for."""

    rows: Labels
    logits: Logits
    weights: Reals


def check(data: AuditData) -> Iterator[Finding]:
    """Labels that are probably wrong; of a large data set also those that are worth a look."""
    if data.features is None or len(data) < FEWEST or len(np.unique(data.labels)) < 2:
        return
    scores = _scores(data, data.features, pictures(data))
    labels = data.labels[scores.rows]
    found = label_errors(scores.logits, labels, weights=scores.weights)
    if len(found):
        yield _finding(
            data,
            "label_errors",
            f"{number_of(len(found), 'image is', 'images are')} probably labelled wrongly",
            f"about {found.noise:.1%} of all labels may be wrong",
            scores.rows[found.rows],
            found,
        )
    if len(data) < ALL:
        return
    ranked = label_errors(scores.logits, labels, 0.0, weights=scores.weights, assumed=0.0 if len(found) else ASSUMED)
    contradicted = scores.logits.argmax(1)[ranked.rows] != labels[ranked.rows]
    splits = data.splits[scores.rows[ranked.rows]]
    places = [np.flatnonzero(contradicted & (splits == split))[:LISTED] for split in np.unique(splits)]
    if len(kept := np.sort(np.concatenate(places))):
        listed = LabelErrors(ranked.rows[kept], ranked.suggested[kept], ranked.certainty[kept], ranked.noise)
        shown = "the images of label_errors are among them" if len(found) else "no share of wrong labels could be shown"
        yield _finding(
            data,
            "suspicious_labels",
            f"{number_of(len(kept), 'label')} that a probe contradicts most, at most {LISTED} of each split: worth a "
            f"look; {shown}",
            f"certainties hold if {ranked.noise:.1%} of all labels are wrong",
            scores.rows[listed.rows],
            listed,
        )


def _finding(data: AuditData, kind: str, what: str, share: str, rows: Labels, found: LabelErrors) -> Finding:
    suggested = [data.classes[label] for label in found.suggested.tolist()]
    first = int(rows[0])
    given = printable(data.classes[int(data.labels[first])])
    return data.finding(
        kind,
        "warning" if kind == "label_errors" else "note",
        f"{what}; the most certain: {printable(data.files[first])}, labelled '{given}', looks like "
        f"'{printable(suggested[0])}'; {share}",
        rows.tolist(),
        certainty=found.certainty.tolist(),
        suggested=suggested,
        remedy=REMEDY,
    )


def _scores(data: AuditData, small: Logits, groups: Labels) -> Judged:
    """On features at full size of all images where these are few, else of those that are looked at again."""
    everything, finer, ones = np.arange(len(data)), data.finer, np.ones(len(data))
    if finer is not None and len(data) <= ALL:
        return Judged(
            everything, _out_of_fold(data, lambda: finer.of(everything), groups, fingerprint(small), finer.name), ones
        )
    logits = _out_of_fold(data, lambda: small, groups, fingerprint(small))
    again = None if finer is None else chosen(logits, data.labels, data.splits, groups)
    if finer is None or again is None:
        return Judged(everything, logits, ones)
    rows = again.rows

    def second() -> dict[str, NDArray[np.generic]]:
        features = finer.of(rows)
        with activity.doing("looking again for wrong labels"):
            return {"logits": judged(features, data.labels[rows], len(again.suspects), len(data.classes), groups[rows])}

    about = (fingerprint(small), finer.name, digest(rows), digest(groups))
    known = data.remembered("second_look", second, *about, labels=True)["logits"]
    return Judged(rows, known.astype(np.float32), again.weights(data.labels))


def _out_of_fold(data: AuditData, features: Callable[[], Logits], groups: Labels, *about: str) -> Logits:
    def logits() -> dict[str, NDArray[np.generic]]:
        from tlx.analysis.out_of_fold import out_of_fold

        made = features()
        with activity.doing("looking for wrong labels"):
            return {"logits": out_of_fold(made, data.labels, len(data.classes), groups, folder=data.memory).logits}

    return data.remembered("out_of_fold", logits, digest(groups), *about, labels=True)["logits"].astype(np.float32)
