"""Whether a configuration makes sense: every value in range, every name known, phases filled from what they inherit.

Needs no torch, so that a wrong value answers at once.
"""

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, TypeVar

from omegaconf import OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from tlx.config import tracking_uri
from tlx.config.dataset_schema import DatasetConfig
from tlx.config.evaluation_schema import view_problem
from tlx.config.key_names import typed
from tlx.config.key_rules import values
from tlx.config.schema import AUTO, Config, Source, Strategy, names_weights
from tlx.config.solver_keys import AT_ONCE, AVERAGES, FILLS, MIXING, is_one_of, named, not_read, own
from tlx.config.value_types import refused
from tlx.core.errors import RequestError, empty, nearest
from tlx.core.trees import flat

LEAST = 0.1  # of the parameters before the classifier: what `last` holds
ANCHORS = ("head", "classifier", "last", "first", "all")
Task = TypeVar("Task", Config, Source)
GROUPS = ("optimizer", "schedule")  # what a phase takes from a group unless it has its own
VALUES = ("epochs", "min_steps", "lr", "batch_size", "patience")  # and from `training`
# What solvers read of it beside.
TRAINING = ("label_smoothing", "sampler", "clip_norm", "accumulate", "lr_factor", *MIXING, *AVERAGES)


def checked(node: Any) -> Config:
    """The composed configuration as typed objects, every value in range and every name known.

    Raises:
        RequestError: a value is missing, out of range or of an unknown name; the line has its full key.
    """
    given = _typed(node)
    config = dataclasses.replace(
        given,
        tracking=tracking_uri.resolved(given.tracking),
        dataset=_dataset("dataset", given.dataset),
        strategy=_present(given.strategy),
        source=dataclasses.replace(
            given.source,
            dataset=_dataset("source.dataset", given.source.dataset) if given.source.name != "none" else None,
            strategy=_present(given.source.strategy),
        ),
    )
    if config.strategy.weights == "none":  # there is nothing to transfer
        backbone = dataclasses.replace(config.backbone, weights="none")
        config = dataclasses.replace(config, backbone=backbone, source=Source(dataset=None))
    if problem := next(chain(_empty(config), _problems(config), _unknown_stages(config)), None):
        raise RequestError(problem)
    source = config.source
    if source.dataset is not None:
        source = dataclasses.replace(source, strategy=_inherited("source.", source.strategy, source))
    found = dataclasses.replace(config, source=source, strategy=_inherited("", config.strategy, config))
    return dataclasses.replace(_with_refit(found), source=_with_refit(source))


def stage_index(
    train_from: str,
    stages: Sequence[str],
    classifier: str,
    *,
    key: str,
    fine: bool = True,
    sizes: Sequence[int] | None = None,
) -> int:
    """The position of the stage or anchor `train_from` among `stages` (input side first).

    `sizes`: the parameters of each stage, once they are known. With them `last` is the shortest run of stages that
    ends right before the classifier and holds at least a tenth of the parameters before it; without, the last of them.

    Raises:
        RequestError: no such stage, or `last` where the backbone has no stages of its own (`fine=False`).
    """
    if train_from in ("first", "all"):
        return 0
    if train_from == "head":
        return len(stages) - 1
    start = list(stages).index(classifier)
    if train_from == "classifier":
        return start
    if train_from == "last":
        if not fine:
            raise RequestError(
                f"{key}=last: this backbone is one stage (it cannot be cut, or head.stages makes one of all), so it "
                "has no last one; "
                "take head (the new layers) or all (the whole network)"
            )
        first = max(start - 1, 0)
        while sizes is not None and first and sum(sizes[first:start]) < sum(sizes[:start]) * LEAST:
            first -= 1
        return first
    if train_from not in stages:
        raise RequestError(
            f"{key}={train_from}: no such stage{nearest(train_from, [*stages, *ANCHORS])}; "
            f"stages: {', '.join(stages)}; or head, classifier, last, first, all"
        )
    return list(stages).index(train_from)


def stage_names(stages: Sequence[str], append: bool) -> list[str]:
    """The stages' names once the head is on: `append` renames the network's own last layer to `logits`."""
    return [*stages[:-1], "logits", "head"] if append else list(stages)


def _typed(node: Any) -> Config:
    """The composed configuration as typed objects of its own; of values only the type is checked."""
    try:
        config: Config = OmegaConf.to_object(node)  # type: ignore[assignment]
    except MissingMandatoryValue as error:
        raise RequestError(f"{error.full_key}: needs a value, as in {error.full_key}=…") from error
    except OmegaConfBaseException as error:
        raise RequestError(refused(error)) from error
    for training in (config.training, config.source.training):
        training.lr = _rate(training.lr)
    for phase in (*config.strategy.phases.values(), *config.source.strategy.phases.values()):
        if phase is not None:
            phase.lr = _rate(phase.lr)
    return config


def _rate(given: Any) -> Any:
    """A learning rate as a number, if it is one: its key takes a text, too."""
    if isinstance(given, bool):
        return given
    try:
        return float(given)
    except (TypeError, ValueError):
        return given


def _dataset(key: str, node: Any) -> DatasetConfig:
    if not isinstance(node, Mapping) or "_target_" not in node:
        raise RequestError(f"{key}: the YAML of a data set needs a _target_ (the function that reads it)")
    common = {f.name for f in dataclasses.fields(DatasetConfig)} - {"reader"}
    given = {name: value for name, value in node.items() if name in common}
    try:
        merged = OmegaConf.merge(OmegaConf.structured(DatasetConfig), given)
    except OmegaConfBaseException as error:
        raise RequestError(refused(error, f"{key}.")) from error
    dataset: DatasetConfig = OmegaConf.to_object(merged)  # type: ignore[assignment]
    return dataclasses.replace(dataset, reader={name: value for name, value in node.items() if name not in common})


def _present(strategy: Strategy) -> Strategy:
    """Without the phases that are null."""
    phases = {name: phase for name, phase in strategy.phases.items() if phase is not None}
    return dataclasses.replace(strategy, phases=phases)


def _inherited(prefix: str, strategy: Strategy, whole: Config | Source) -> Strategy:
    """With what its phases leave null from `whole`: the task's groups, and its `training`."""
    phases = {}
    for name, phase in strategy.phases.items():
        places = {**dict.fromkeys(GROUPS, whole), **dict.fromkeys(VALUES, whole.training)}
        idle = not_read(phase.solver)
        nulls: dict[str, Any] = {key: None for key in places if key in idle}
        places = {key: place for key, place in places.items() if key not in idle}
        own = {key: getattr(phase, key) for key in places}
        found = {key: getattr(places[key], key) if value is None else value for key, value in own.items()}
        for group in GROUPS:
            if group in found and not isinstance(found[group], Mapping):
                key = f"{prefix}strategy.phases.{name}.{group}"
                raise RequestError(f"{key}={found[group]}: write +{group}@{key}={found[group]}")
        if found.get("lr", AUTO) != AUTO:  # what is found is multiplied where it is found
            found["lr"] *= whole.training.lr_factor
        phases[name] = dataclasses.replace(phase, **found, **nulls, solver=named(phase.solver))
    return dataclasses.replace(strategy, phases=phases)


def _with_refit(task: Task) -> Task:
    """With `training.refit`: where it is not given, if one phase fits layers at once, which costs next to nothing."""
    if task.training.refit is not None:
        return task
    phases = list(task.strategy.phases.values())
    at_once = len(phases) == 1 and is_one_of(phases[0].solver, AT_ONCE)
    return dataclasses.replace(task, training=dataclasses.replace(task.training, refit=at_once))


# What is passed on as it is, to networks, optimizers, transforms, readers: there only a path must not be empty.
_FREE = r"(.*\.)?(arguments|optimizer|schedule|loss|mixing|transforms|samples|reader|unknown\.dataset)\..*"
_PATH = r".*[._](root|name|path|dir|directory|folder|file|images|manifest|labels|exclude|url|uri|weights|dataset)s?"


def _empty(config: Config) -> Iterator[str]:
    """Keys without a text, as an unset variable leaves them: as a path that would be the current folder."""
    for key, value in flat(dataclasses.asdict(config)):
        if isinstance(value, str) and not value.strip() and (not re.fullmatch(_FREE, key) or re.fullmatch(_PATH, key)):
            yield str(empty(f"{typed(key)}="))


def _problems(config: Config) -> Iterator[str]:
    for key, value in flat(dataclasses.asdict(config)):
        if re.fullmatch(r"(.*\.)?optimizer\.(lr|params)", key):
            yield f"{key}={value}: the learning rate is training.lr, or lr of a phase; leave it out of the optimizer"
    for key, value, rule in values(config):
        # What a YAML names by `_target_`, in place of one of tlx's own names, is tried out when the run is prepared.
        if isinstance(value, Mapping) and "_target_" in value:
            continue
        if problem := rule.problem(key, value):
            yield problem
    if config.features.mode == "live" and config.features.views is not None:
        yield (
            f"features.views={config.features.views}: features.mode=live keeps none; leave out one of them, or take "
            "features.mode=auto"
        )
    if config.tracking.register is not None and not (config.tracking.enabled and config.tracking.model):
        off = "tracking=none" if not config.tracking.enabled else "tracking.model=false"
        yield f"tracking.register={config.tracking.register}: {off} logs no model that could be registered"
    if config.features.mode == "exact" and config.runtime.precision == "bf16":
        yield "features.mode=exact: computes in fp32; leave out runtime.precision=bf16, or take features.mode=auto"
    if config.head.append and config.head.stages:
        yield f"head.append=true: the 1000-class layer does not take head.stages={config.head.stages}; leave out one"
    yield from _references(config)
    for argument, value in config.backbone.arguments.items():
        if names_weights(argument):
            yield (
                f"backbone.arguments.{argument}={value}: is not passed on; backbone.weights says where weights come "
                "from: imagenet, none, a file or a run's folder"
            )
    for prefix, training in (("", config.training), ("source.", config.source.training)):
        if training.ema is not None and training.average_last is not None:
            yield (
                f"{prefix}training.ema={training.ema} {prefix}training.average_last={training.average_last}: the model "
                "is one average of the weights; leave out one of them"
            )
    for prefix, training in (("", config.training), ("source.", config.source.training)):
        if training.lr is None:
            yield f"{prefix}training.lr=null: needs a value, a number or auto"
    yield from filter(None, map(view_problem, config.evaluation.views))
    if not config.strategy.phases:
        yield "strategy.phases: a strategy needs at least one phase"


def _references(config: Config) -> Iterator[str]:
    """Whether a head of reference images is filled, and stands alone."""
    kept = config.head.references
    if kept and (config.head.hidden or config.head.dropout or config.head.append):
        other = "append" if config.head.append else "hidden" if config.head.hidden else "dropout"
        yield f"head.references={kept}: a head of reference images has no layers; leave out head.{other}"
    for name, phase in config.strategy.phases.items():
        fills = is_one_of(phase.solver, FILLS)
        if fills and not kept:
            yield f"strategy.phases.{name}.solver=knn: needs a head of reference images; take head=neighbours"
        if kept and own(phase.solver) and not fills:
            yield (
                f"head.references={kept}: phase {name} trains layers, and this head has none; take strategy=knn, or "
                "head=linear"
            )


def _unknown_stages(config: Config) -> Iterator[str]:
    if config.backbone.stages is None:
        return  # known once the model is built: `strategy.plan` checks then
    stages = list(config.backbone.stages)
    if config.backbone.classifier not in stages:
        yield f"backbone.classifier={config.backbone.classifier}: not one of the stages {', '.join(stages)}"
        return
    tasks = [("", config.strategy, config.head.append), ("source.", config.source.strategy, False)]
    for prefix, strategy, append in tasks:
        for name, phase in strategy.phases.items():
            for end in ("train_from", "train_to"):
                if getattr(phase, end) is not None:
                    key = f"{prefix}strategy.phases.{name}.{end}"
                    try:
                        stage_index(
                            getattr(phase, end), stage_names(stages, append), config.backbone.classifier, key=key
                        )
                    except RequestError as error:
                        yield str(error)
