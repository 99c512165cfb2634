"""Typed values that have no effect: which keys a configuration does not read, why, and what to type instead.

Each rule stands for a place where the code does not look at a key: a phase has a value of its own, a group is not
there, the weights are drawn. `tests/test_unread.py` watches runs to see that the rules are complete.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from omegaconf import DictConfig, OmegaConf

from tlx.config.override_quoting import keys
from tlx.config.recipes import chosen, folders_of, keys_of
from tlx.config.solver_keys import not_read
from tlx.config.validation import GROUPS, TRAINING, VALUES, stage_index, stage_names
from tlx.core.errors import RequestError, shown


@dataclass(frozen=True)
class Typed:
    """What was typed for a run.

    Attributes:
        overrides: as typed, in their order.
        unread: the keys that the composed configuration does not read, with the reason.
        strict: the overrides that must have an effect (in a sweep those that it varies); others get a warning.
        choices: what is chosen of each group, typed or not (`resolvers.choices_of`).
    """

    overrides: Sequence[str] = ()
    unread: Mapping[str, str] = field(default_factory=dict)
    strict: Collection[str] = ()
    choices: Mapping[str, str] = field(default_factory=dict)

    def requested(self) -> dict[str, str]:
        """Key → value, as typed; what an override removes is not there."""
        pairs = (override.lstrip("+~").partition("=") for override in self.overrides)
        return {key: shown(value) for key, equals, value in pairs if equals}

    def idle(self, unread: Mapping[str, str]) -> dict[str, str]:
        """The overrides all of whose keys are `unread`, each with a line that says why it has no effect."""
        found = {}
        for override in self.overrides:
            reasons = [_reason(key, unread) for key in keys(override)]
            if reasons and all(reasons):
                found[override] = f"{shown(override)}: has no effect: {reasons[0]}"
        return found

    def overridden(self) -> dict[str, str]:
        """The overrides that a later one of the same key replaces."""
        found = {}
        for position, override in enumerate(self.overrides):
            for later in self.overrides[position + 1 :]:
                if later != override and set(keys(override)) <= set(keys(later)):
                    found[override] = f"{shown(override)}: has no effect: {shown(later)} comes after it"
        return found

    def warnings(self, unread: Mapping[str, str] | None = None) -> list[str]:
        """A line for each override without an effect: those of the configuration, or those that `unread` adds.

        Raises:
            RequestError: it is one of those that must have one.
        """
        found = self.idle(self.unread) | self.overridden() if unread is None else self.idle(unread)
        for override in found:
            if override in self.strict:
                raise RequestError(found[override])
        return list(found.values())


def refuse(jobs: Sequence[Typed]) -> None:
    """Whether each override has an effect in the jobs of a sweep.

    One that all jobs share is good if one of them reads it (`strategy=finetune,scratch backbone.weights=FILE`). One
    that differs from job to job must be read by each that has it: else these jobs are equal, and the comparison of
    them means nothing.

    Raises:
        RequestError: an override has none.
    """
    idle = [job.idle(job.unread) for job in jobs]
    for job, found in zip(jobs, idle, strict=True):
        for override, line in {**job.overridden(), **found}.items():
            shared = all(override in other.overrides for other in jobs)
            if not shared or all(override in other for other in idle):
                readers = [other for other, none in zip(jobs, idle, strict=True) if override not in none]
                raise RequestError(_beside(line, override, job, readers))


def _beside(line: str, override: str, job: Typed, readers: Sequence[Typed]) -> str:
    """The line why an override of a job has no effect, with what sets the job apart from those that read it."""
    others = [varied(job.overrides, [other.overrides]) for other in readers if override in other.overrides]
    apart = [shown(one) for one in min(others, key=len, default=[])]
    return line.replace("has no effect:", f"has no effect with {' '.join(apart)}:", 1) if apart else line


def varied(job: Sequence[str], jobs: Iterable[Sequence[str]]) -> list[str]:
    """The overrides of a job that not all of `jobs` have."""
    shared = common(jobs)
    return [override for override in job if override not in shared]


def common(jobs: Iterable[Sequence[str]]) -> set[str]:
    """The overrides that all jobs have."""
    first, *others = jobs
    return set(first).intersection(*others)


def unread(node: DictConfig, *, several: bool) -> dict[str, str]:
    """The keys that a composed and checked configuration does not read, each with the reason and what to type.

    A key stands for all that is below it. What depends on the data is found by `data.unread`, what depends on the
    network by `build.unread`.

    Args:
        node: with Hydra's own node in it.
        several: whether it is one of the jobs of a sweep.
    """
    found = dict(_of_network(node))
    found |= dict(_of_task(node, "", node.head.append))
    if node.source.name == "none":
        found |= {f"source.{name}": "there is no source task (source=none)" for name in node.source if name != "name"}
    elif node.strategy.weights == "none":
        found["source"] = _SCRATCH
    else:
        found |= dict(_of_task(node.source, "source.", False, node.backbone))
        found["source.strategy.weights"] = "a source task starts from random weights in any case"
        found["backbone.weights"] = (
            "the backbone starts from the weights of the source task; take source=none for other weights"
        )
    if node.evaluation.unknown.rate is None:
        found["evaluation.unknown.dataset"] = "evaluation.unknown.rate=null predicts no image as unknown; give a rate"
    found |= dict(_of_features(node)) | dict(_of_tracking(node)) | dict(_of_mode(node, several))
    return found | dict(_of_recipes(node, found))


_NO_SOLVER = "no phase has a solver that reads it; take another strategy"
_SCRATCH = "strategy.weights=none starts from random weights; take another strategy"


def _reason(key: str, unread: Mapping[str, str]) -> str:
    return next((why for name, why in unread.items() if key == name or key.startswith((f"{name}.", f"{name}/"))), "")


def _of_network(node: DictConfig) -> Iterator[tuple[str, str]]:
    backbone = node.backbone
    if node.strategy.weights == "none" and backbone.weights != "none":
        yield "backbone.weights", _SCRATCH
    if backbone.weights != "imagenet" or node.strategy.weights == "none":
        yield "backbone.url", "it is where the weights of backbone.weights=imagenet come from"
    if backbone.resize in ("squash", "pad") and backbone.crop is not None:
        yield (
            "backbone.crop",
            f"backbone.resize={backbone.resize} takes no crop; give backbone.resize a number of pixels",
        )
    phases = [*_phases(node).values(), *_phases(node.source).values()]
    ends = {end for phase in phases for end in (phase.train_from, phase.train_to)}
    if not ends & {"classifier", "last"}:
        yield (
            "backbone.classifier",
            "no phase trains from classifier or last; change strategy.phases.<name>.train_from",
        )


def _of_task(
    task: DictConfig, prefix: str, append: bool, backbone: DictConfig | None = None
) -> Iterator[tuple[str, str]]:
    """What a task of its own training has and does not read: the run, or its source task."""
    phases, backbone = _phases(task), backbone or task.backbone
    for name, node, path in (
        *((value, "training", f"{prefix}training.{value}") for value in VALUES),
        *((group, "", f"{prefix}{group}") for group in GROUPS),
    ):
        readers = {phase: values for phase, values in phases.items() if name not in not_read(values.solver)}
        if phases and not readers:
            yield path, _NO_SOLVER
        elif phases and all(phase[name] is not None for phase in readers.values()):
            own = [f"{prefix}strategy.phases.{phase}.{name}" for phase in readers]
            factor = f", or {prefix}training.lr_factor" if name == "lr" else ""
            which = "the phase has its own" if len(own) == 1 else "each phase has its own"
            how = f"change {' and '.join(own)}{factor}"
            if not node:
                how = f"change {' and '.join(f'{name}@{one}' for one in own)}"
            yield path, f"{which}; {how}"
    for name, path in (*((one, f"{prefix}training.{one}") for one in TRAINING), ("loss", "loss")):
        if (
            phases
            and all(name in not_read(phase.solver) for phase in phases.values())
            and not (prefix and name == "loss")
        ):
            yield path, _NO_SOLVER
    for name, phase in phases.items():
        for key in not_read(phase.solver):
            if key in phase:
                yield f"{prefix}strategy.phases.{name}.{key}", "the phase's solver does not read it"
    if task.training.mixing is None:
        yield f"{prefix}training.mix_at", f"{prefix}training.mixing is null, nothing is mixed; take recipe=mixup"
    if not task.augmentation.transforms:
        yield f"{prefix}augmentation.input", f"{prefix}augmentation.transforms is empty; take another augmentation"
    if isinstance(task.dataset, DictConfig) and task.dataset.get("root") is not None:
        yield f"{prefix}dataset.archive", f"nothing is fetched where {prefix}dataset.root is given"
    for name, phase in phases.items():
        if _head_alone(phase, backbone, append):
            why = "the phase trains the new head alone, and all of it; change {0}.train_from"
            for key in ("learns", "lr_decay"):
                yield f"{prefix}strategy.phases.{name}.{key}", why.format(f"{prefix}strategy.phases.{name}")


def _phases(task: DictConfig) -> dict[str, DictConfig]:
    return {str(name): phase for name, phase in task.strategy.phases.items() if phase is not None}


def _head_alone(phase: DictConfig, backbone: DictConfig, append: bool) -> bool:
    """Whether nothing but the last stage learns, as far as that is known before the network is built."""
    if backbone.stages is None:
        return bool(phase.train_from == "head")
    stages = stage_names([str(stage) for stage in backbone.stages], append)
    first = stage_index(phase.train_from, stages, _classifier(backbone, append), key="")
    return first == len(stages) - 1


def _classifier(backbone: DictConfig, append: bool) -> str:
    return "logits" if append and backbone.classifier == "head" else str(backbone.classifier)


def _of_features(node: DictConfig) -> Iterator[tuple[str, str]]:
    tasks: list[Any] = [node, *([node.source] if node.source.name != "none" else [])]
    if not any(task.augmentation.transforms for task in tasks):
        yield "features.views", "without an augmentation each image has one view; take augmentation=crop_flip"
    if node.features.mode == "live":
        yield "features.budget", "features.mode=live keeps nothing; take features.mode=auto"
        yield "features.shared", "features.mode=live keeps nothing; take features.mode=auto"
    elif not node.features.store:
        yield "features.shared", "features.store=0 keeps nothing on disk that could be shared"


def _of_recipes(node: DictConfig, unread: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """The recipes, where nothing reads what one of them sets."""
    for name in chosen(node):
        reasons = [_reason(key, unread) for key in keys_of(name, folders_of(node))]
        if reasons and all(reasons):
            yield "recipe", f"{name}: {reasons[0]}"


def _of_tracking(node: DictConfig) -> Iterator[tuple[str, str]]:
    if not node.tracking.enabled:
        for name in node.tracking:
            if name not in ("enabled", "register"):  # `checks` refuses that one
                yield f"tracking.{name}", "nothing is tracked; take tracking=sqlite or tracking=server"


def _of_mode(node: DictConfig, several: bool) -> Iterator[tuple[str, str]]:
    """What a sweep alone reads, or a single run alone."""
    raw: Any = OmegaConf.to_container(node.hydra, resolve=False)
    if several:
        yield "hydra.run", "a sweep's folder is hydra.sweep.dir, and a job's in it hydra.sweep.subdir"
        if node.resume == "auto" and node.sweep.name is None:
            yield "resume", "a sweep is resumed by its name; give sweep.name"
        if node.hydra.runtime.choices["hydra/launcher"] == "basic":
            yield "hydra.launcher", "launch=basic has no settings; take another launch"
    else:
        alone = "this is one run; -m or seeds=… makes a sweep"
        if node.hydra.runtime.choices["hydra/launcher"] != "basic":
            yield from ((key, alone) for key in ("launch", "hydra/launcher"))
        yield from ((f"hydra.{key}", alone) for key in ("launcher", "sweep", "sweeper"))
    used = " ".join(str(raw[kind].get(key)) for kind in ("run", "sweep") for key in ("dir", "subdir"))
    for key, name in (("hydra.job.name", "hydra.job.name"), ("hydra.job.config", "hydra.job.override_dirname")):
        if name not in used:
            yield key, f"no folder's name has ${{{name}}} in it; see hydra.run.dir and hydra.sweep.subdir"
