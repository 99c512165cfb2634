"""What a run is called in MLflow: first what sets it apart from others, because tables cut names off."""

import re
from pathlib import Path

from tlx.config.unread_keys import Typed
from tlx.core.errors import shown

# What says nothing of the result, or is in the name already.
_ASIDE = re.compile(
    r"(backbone|dataset|strategy)$|dataset\.root|output|resume|(tracking|runtime|features|sweep|launch|hydra)\b"
)
LONGEST = 120  # characters of what was typed


def run_name(folder: Path, typed: Typed | None, job: str = "") -> str:
    """The name of the run that was made as `folder`.

    `job`: what sets a sweep's job apart from the others of the sweep, in the folder above; such a name ends with the
    sweep's. Others begin with the data set, the strategy and what was typed, and end with the time, which two equal
    runs differ in.

    >>> run_name(Path("sweeps/first/0-x"), None, "head=mlp seed=1")
    'head=mlp seed=1 · first'
    >>> choices = {"backbone": "resnet18", "dataset": "shapes", "strategy": "finetune"}
    >>> run_name(Path("15-19-14-resnet18-shapes-finetune"), Typed(["strategy=finetune", "seed=1"], choices=choices))
    'shapes finetune seed=1 · resnet18 · 15-19-14'
    """
    if job:
        return f"{job} · {folder.parent.name}"
    time, label = re.fullmatch(r"((?:\d+-)*)(.*)", folder.name, re.DOTALL).groups()  # type: ignore[union-attr]
    if typed is None or not typed.choices:
        return str(label)
    words = [f"{key}={value}" for key, value in typed.requested().items() if not _ASIDE.match(key)]
    backbone, strategy = typed.choices["backbone"], typed.choices["strategy"]
    # The folder has the data set's own name, the choice may be `image_folder`.
    named = re.fullmatch(rf"{re.escape(backbone)}-(.+)-{re.escape(strategy)}", label, re.DOTALL)
    first = shown(" ".join([named[1] if named else typed.choices["dataset"], strategy, *words]))
    first = first if len(first) <= LONGEST else f"{first[: LONGEST - 2]} …"
    return " · ".join(filter(None, (first, backbone, time.rstrip("-"))))
