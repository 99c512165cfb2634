"""Whether a configuration makes sense: every value in range, every name known, phases filled from what they inherit.

Needs no torch, so that a wrong value answers at once.
"""

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from tlx.config import tracking_uri
from tlx.config.identity import flat
from tlx.config.schema import Config, Dataset, Source, Strategy, names_weights
from tlx.core.choose_by import RULES
from tlx.core.errors import RequestError, empty, nearest

ANCHORS = ("head", "classifier", "last", "all")
SELECTORS = ("all", "norm", "bias")  # of strategy
SOLVERS = ("sgd",)  # of solvers
DEVICES = (r"auto|cpu|mps|cuda(:\d+)?", "auto, cpu, cuda, cuda:<number> or mps")  # the form, and in words


def checked(node: Any) -> Config:
    """The composed configuration as typed objects, every value in range and every name known.

    Raises:
        RequestError: a value is missing, out of range or of an unknown name; the line has its full key.
    """
    try:
        config: Config = OmegaConf.to_object(node)  # type: ignore[assignment]
    except MissingMandatoryValue as error:
        raise RequestError(f"{error.full_key}: needs a value, as in {error.full_key}=…") from error
    except OmegaConfBaseException as error:
        key = f"{error.full_key}: " if error.full_key else ""
        raise RequestError(f"{key}{str(error.msg or error).splitlines()[0]}") from error
    tracking_uri.resolved(config.tracking)
    config.dataset = _dataset("dataset", config.dataset)
    config.source.dataset = _dataset("source.dataset", config.source.dataset) if config.source.name != "none" else None
    for strategy in (config.strategy, config.source.strategy):
        strategy.phases = {name: phase for name, phase in strategy.phases.items() if phase is not None}
    if config.strategy.weights == "none":  # there is nothing to transfer
        config.backbone.weights, config.source = "none", Source(dataset=None)
    if problem := next(chain(_empty(config), _problems(config), _unknown_stages(config)), None):
        raise RequestError(problem)
    if config.source.dataset is not None:
        _inherit("source.", config.source.strategy, config.source)
    _inherit("", config.strategy, config)
    return config


def stage_index(train_from: str, stages: Sequence[str], classifier: str, *, key: str, fine: bool = True) -> int:
    """The position of the stage or anchor `train_from` among `stages` (input side first).

    Raises:
        RequestError: no such stage, or `last` where the backbone has no stages of its own (`fine=False`).
    """
    if train_from == "all":
        return 0
    if train_from == "head":
        return len(stages) - 1
    start = list(stages).index(classifier)
    if train_from == "classifier":
        return start
    if train_from == "last":
        if not fine:
            raise RequestError(
                f"{key}=last: this backbone's blocks do not run in sequence, so it has no last stage of its own; "
                "take head (the new layers) or all (the whole network)"
            )
        return max(start - 1, 0)
    if train_from not in stages:
        raise RequestError(
            f"{key}={train_from}: no such stage{nearest(train_from, [*stages, *ANCHORS])}; "
            f"stages: {', '.join(stages)}; or head, classifier, last, all"
        )
    return list(stages).index(train_from)


def stage_names(stages: Sequence[str], append: bool) -> list[str]:
    """The stages' names once the head is on: `append` renames the network's own last layer to `logits`."""
    return [*stages[:-1], "logits", "head"] if append else list(stages)


def _dataset(key: str, node: Any) -> Dataset:
    if not isinstance(node, Mapping) or "_target_" not in node:
        raise RequestError(f"{key}: the YAML of a data set needs a _target_ (the function that reads it)")
    common = {f.name for f in dataclasses.fields(Dataset)} - {"reader"}
    given = {name: value for name, value in node.items() if name in common}
    try:
        merged = OmegaConf.merge(OmegaConf.structured(Dataset), given)
    except OmegaConfBaseException as error:
        raise RequestError(f"{key}.{error.full_key}: {str(error.msg).splitlines()[0]}") from error
    dataset: Dataset = OmegaConf.to_object(merged)  # type: ignore[assignment]
    dataset.reader = {name: value for name, value in node.items() if name not in common}
    return dataset


def _inherit(prefix: str, strategy: Strategy, whole: Any) -> None:
    training = whole.training
    for name, phase in strategy.phases.items():
        for group in ("optimizer", "schedule"):
            if getattr(phase, group) is None:
                setattr(phase, group, getattr(whole, group))
            if not isinstance(getattr(phase, group), Mapping):
                key = f"{prefix}strategy.phases.{name}.{group}"
                raise RequestError(f"{key}={getattr(phase, group)}: write +{group}@{key}={getattr(phase, group)}")
        for value in ("epochs", "min_steps", "lr", "batch_size", "patience"):
            if getattr(phase, value) is None:
                setattr(phase, value, getattr(training, value))
        phase.lr *= training.lr_factor


# key pattern → (lowest, highest, whether the lowest itself is allowed)
_RANGES: tuple[tuple[str, float, float | None, bool], ...] = (
    (r"seed", 0, 2**32 - 1, True),
    (r"(source\.)?dataset\.(val|test)_fraction", 0, 0.9, False),
    (r"(source\.)?dataset\.(limit\.\w+|per_class)", 1, None, True),
    (r"(source\.)?dataset\.folds", 2, None, True),
    (r"(source\.)?dataset\.fold", 0, None, True),
    (r"backbone\.input_size", 8, 4096, True),
    (r"head\.dropout", 0, 0.99, True),
    (r"(.*\.)?(epochs|batch_size|patience)", 1, None, True),
    (r"(.*\.)?min_steps", 0, 1_000_000, True),
    (r"(.*\.)?(lr|lr_factor)", 0, None, False),
    (r".*\.lr_decay", 0, 1, False),
    (r"(source\.)?training\.label_smoothing", 0, 0.99, True),
    (r"(source\.)?training\.clip_norm", 0, None, False),
    (r"(source\.)?training\.accumulate", 1, None, True),
    (r"seeds|folds", 2, 1000, True),
    (r"features\.budget", 0, None, True),
    (r"features\.store", 0, None, True),
    (r"features\.views", 1, None, True),
    (r"runtime\.max_pixels", 1, None, True),
)
_CHOICES: tuple[tuple[str, tuple[str, ...]], ...] = (
    (r"(source\.)?dataset\.on_error", ("fail", "skip")),
    (r"(source\.)?augmentation\.input", ("image", "view")),
    (r"(source\.)?training\.class_weights", ("balanced",)),
    (r"(source\.)?strategy\.weights", ("none",)),
    (r".*\.statistics", ("learning", "all", "none")),
    (r".*\.solver", SOLVERS),
    (r"features\.mode", ("auto", "live", "exact")),
    (r"evaluation\.choose_by", RULES),
    (r"resume", ("auto", "never")),
    (r"runtime\.precision", ("auto", "fp32", "bf16")),
)
_PATTERNS: tuple[tuple[str, str, str], ...] = (
    (r"runtime\.device", *DEVICES),
    (r"runtime\.threads", r"auto|[1-9]\d*", "auto or a number from 1"),
    (r"runtime\.workers", r"auto|\d+", "auto or a number from 0"),
    (r"runtime\.devices", r"auto|[1-9]\d*", "auto or a number from 1"),
    (r"sweep\.name", r"[\w+-][\w .+-]*", "a folder's name: letters, digits, spaces, dots, +, - and _"),
    (r"tracking\.register", r"\w[\w .-]*", "a name of letters, digits, spaces, dots, - and _"),
    (r"backbone\.resize", r"auto|squash|[1-9]\d*", "a number of pixels, squash or auto"),
    (r"backbone\.crop", r"auto|[1-9]\d*", "a number of pixels, null or auto"),
    (r"backbone\.interpolation", r"auto|nearest|bilinear|bicubic", "nearest, bilinear, bicubic or auto"),
)


# What is passed on as it is, to networks, optimizers, transforms, readers: there only a path must not be empty.
_FREE = r"(.*\.)?(arguments|optimizer|schedule|transforms|samples|reader)\..*"
_PATH = r".*[._](root|name|path|dir|directory|folder|file|images|manifest|labels|exclude|url|uri|weights)s?"


def _empty(config: Config) -> Iterator[str]:
    """Keys without a text, as an unset variable leaves them: as a path that would be the current folder."""
    for key, value in flat(dataclasses.asdict(config)):
        if isinstance(value, str) and not value.strip() and (not re.fullmatch(_FREE, key) or re.fullmatch(_PATH, key)):
            yield str(empty(f"{key.replace('.reader.', '.')}="))


def _problems(config: Config) -> Iterator[str]:
    for key, value in flat(dataclasses.asdict(config)):
        if re.fullmatch(r"(.*\.)?optimizer\.(lr|params)", key):
            yield f"{key}={value}: the learning rate is training.lr, or lr of a phase; leave it out of the optimizer"
        if value is None or ".optimizer." in key or ".schedule." in key:
            continue
        for pattern, low, high, closed in _RANGES:
            outside = re.fullmatch(pattern, key) and isinstance(value, int | float)
            if (outside and not (low <= value if closed else low < value)) or (
                outside and high is not None and value > high
            ):
                most = "" if high is None else f" and at most {high}"
                yield f"{key}={value}: must be {'at least' if closed else 'more than'} {low}{most}"
        for pattern, choices in _CHOICES:
            if re.fullmatch(pattern, key) and value not in choices:
                yield f"{key}={value}: must be {', '.join(choices)}{nearest(str(value), choices)}"
        for pattern, form, words in _PATTERNS:
            if re.fullmatch(pattern, key) and not re.fullmatch(form, str(value)):
                yield f"{key}={value}: must be {words}"
        if key.endswith(".learns"):
            for selector in set(value) - set(SELECTORS):
                yield f"{key}: {selector} is not one of {', '.join(SELECTORS)}{nearest(selector, SELECTORS)}"
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
    for argument, value in config.backbone.arguments.items():
        if names_weights(argument):
            yield (
                f"backbone.arguments.{argument}={value}: is not passed on; backbone.weights says where weights come "
                "from: imagenet, none, a file or a run's folder"
            )
    for width in config.head.hidden:
        if width < 1:
            yield f"head.hidden: a layer's width must be at least 1, not {width}"
    if not config.strategy.phases:
        yield "strategy.phases: a strategy needs at least one phase"


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
