"""Solvers by name, and the keys that each of them does not read."""

from collections.abc import Collection, Mapping
from typing import Any

_PACKAGE = "tlx.training.solvers."
_OPTIMIZER = ("optimizer", "schedule", "min_steps", "lr", "batch_size")  # of a phase
MIXING = ("mixing", "mix_at")
AVERAGES = ("ema", "average_last")  # of weights
# Of `training`, and the loss.
_BATCHES = ("label_smoothing", "sampler", "clip_norm", "accumulate", "lr_factor", "loss", *MIXING, *AVERAGES)

# Those of a phase are null where its solver does not read them.
SOLVERS: Mapping[str, tuple[str, ...]] = {
    "sgd": (),
    "lora": (),
    "l2_sp": (),
    "linear_probe": (*_OPTIMIZER, *_BATCHES),
    "knn": (*_OPTIMIZER, "patience", *_BATCHES),
    "heads": ("optimizer", "schedule", "min_steps", "lr", "patience", *_BATCHES),
}

AT_ONCE = ("linear_probe",)  # fits a layer to all images together
FILLS = ("knn",)  # a head of reference images, and nothing else
CHOICES = ("knn", "heads")  # whose epochs are other models each, and not steps of one way


def named(solver: Any) -> Any:
    """The name of one of tlx's own solvers that a YAML names by its `_target_` alone; else the solver as given."""
    plain = isinstance(solver, Mapping) and set(solver) == {"_target_"} and _of(solver) in SOLVERS
    return _of(solver) if plain else solver


def not_read(solver: Any) -> tuple[str, ...]:
    """The keys that a solver, given by its name or as a YAML has it, does not read."""
    return SOLVERS.get(_of(solver), ())


def is_one_of(solver: Any, names: Collection[str]) -> bool:
    """Whether a solver, given by its name or as a YAML has it, is one of these of tlx's own."""
    return _of(solver) in names


def own(solver: Any) -> bool:
    """Whether it is one of tlx's own."""
    return _of(solver) in SOLVERS


def _of(solver: Any) -> str:
    return str(solver.get("_target_", "") if isinstance(solver, Mapping) else solver).removeprefix(_PACKAGE)
