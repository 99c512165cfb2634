"""What configurations that are compared are called: by what sets each apart from the others."""

from collections import Counter
from collections.abc import Sequence

from tlx.runs.run_reader import Run

__all__ = ["labels"]
_FEW = 3  # keys that a label takes from the configuration
_GROUPS = ("backbone", "strategy", "head", "augmentation", "dataset")


def labels(groups: Sequence[Sequence[Run]]) -> list[str]:
    """A name for each group of runs: what was requested but not for all, then what else differs.

    A single one is named by what was chosen for it.
    """
    requested = [group[0].requested for group in groups]
    if len(groups) == 1:
        return [" ".join(f"{key}={requested[0][key]}" for key in _GROUPS if key in requested[0]) or "all runs"]
    keys = list(dict.fromkeys(key for each in requested for key in each))
    varying = [key for key in keys if len({each.get(key) for each in requested}) > 1]
    found = [" ".join(f"{key}={each[key]}" for key in varying if key in each) for each in requested]
    places: dict[str, list[int]] = {}
    for i, label in enumerate(found):
        places.setdefault(label, []).append(i)
    for label, alike in places.items():
        if len(alike) == 1:
            continue
        values = [groups[i][0].values for i in alike]
        names = list(dict.fromkeys(key for each in values for key in each))
        differ = [key for key in names if len({str(each.get(key)) for each in values}) > 1]
        for i, each in zip(alike, values, strict=True):
            more = [f"{key}={each.get(key)}" for key in differ[:_FEW]]
            found[i] = " ".join([*([label] if label else []), *more])
    found = [label or "the defaults" for label in found]
    times = Counter(found)
    return [
        label if times[label] == 1 else f"{label} ({group[0].folder.name})"
        for label, group in zip(found, groups, strict=True)
    ]
