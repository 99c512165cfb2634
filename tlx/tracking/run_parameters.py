"""The parameters that MLflow lists of a run: the choices in short names, then what can change the result.

All of the configuration is the artifact `config.yaml`. The process that writes to MLflow reads it: of tlx it imports
`core` alone.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from tlx.core.choose_by import DEFAULT
from tlx.core.errors import shown
from tlx.core.trees import flat

LENGTH = 500  # characters: what servers of every age take
_INHERITED = ("epochs", "min_steps", "lr", "batch_size", "patience")  # from `training`, by a phase without its own
# What follows from a choice, or says nothing of the result.
_LEFT_OUT = re.compile(
    r"(output|tracking|evaluation|runtime|resume|sweep|seeds|folds)\b"
    r"|(source\.)?backbone\.(_target_|stages|mean|std|licence|url|classifier|interpolation|arguments)\b"
    r"|(source\.)?dataset\.(on_error|reader\._target_)|features\.(store|budget)"
)


def parameters(tree: Mapping[str, Any], choices: Mapping[str, str] | None = None) -> dict[str, str]:
    """What MLflow lists of a configuration.

    What a phase inherits from `training` is listed as the phases used it, and its optimizer and schedule where they are
    not those of all phases.

    `choices`: what is chosen of each group, by the group's name; of a run of an earlier version, nothing.
    """
    found = {name: value for name, value in tree.items() if name != "source" or tree["source"]["dataset"] is not None}
    phases = tree["strategy"]["phases"]
    for name in _INHERITED:
        used = list(dict.fromkeys(phase[name] for phase in phases.values() if phase.get(name) is not None))
        if used:
            found["training"] = {**found["training"], name: used[0] if len(used) == 1 else ", ".join(map(str, used))}
    own = {
        name: {key: value for key, value in phase.items() if key not in ("optimizer", "schedule") or value != tree[key]}
        for name, phase in phases.items()
    }
    found["strategy"] = {**tree["strategy"], "phases": own}
    listed = {name: value for name, value in dotted(found).items() if not _LEFT_OUT.match(name)}
    short = {"learning_rate": found["training"].get("lr"), "backbone": tree.get("backbone", {}).get("name")}
    rule = tree["evaluation"].get("choose_by", DEFAULT)
    return {**dotted({**short, **(choices or {}), "evaluation.choose_by": rule}), **listed}


def dotted(params: Mapping[str, object]) -> dict[str, str]:
    """Parameters as MLflow takes them: dotted names, short texts; what is null or empty says nothing and is left out.

    >>> dotted({"training": {"lr": 0.001, "patience": None}})
    {'training.lr': '0.001'}
    """
    found: dict[str, str] = {}
    for key, value in flat(params):
        if value is not None and value not in ([], (), {}, ""):
            text = value if isinstance(value, str | int | float) else json.dumps(value, default=str, ensure_ascii=False)
            text = shown(str(text))
            name = re.sub(r"[^\w\-. :/]", "_", key)[-250:]
            found[name] = text if len(text) <= LENGTH else text[: LENGTH - 2] + " …"
    return found
